"""`drey snapshot`: its commands, and those of `drey snapshot golden`."""

from __future__ import annotations

from typing import Annotated

import typer

from drey_cli.commands import (
    SUMMARIES,
    snapshot_compare,
    snapshot_look,
    snapshot_take,
)
from drey_cli.commands.snapshot_take import SnapshotArgument
from drey_cli.contracts import snapshot_service_pb2
from drey_cli.naming import list_snapshots, snapshot_id
from drey_cli.registry import command, command_app
from drey_cli.render.snapshots import golden_table, snapshot_facts
from drey_cli.session import Session, new_request_id

golden = command_app("Which snapshots are known to be good.")

LabelOption = Annotated[
    str, typer.Option("--label", "-l", help="Tells several golden snapshots apart.")
]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why; it is audited.")]


@command(
    golden,
    "set",
    examples=(
        "drey snapshot golden set latest --reason 'after tuning'",
        "drey snapshot golden set 'run 3' --label injector",
    ),
)
def set_golden(
    session: Session, snapshot: SnapshotArgument, label: LabelOption = "", reason: ReasonOption = ""
) -> None:
    """Mark a snapshot as golden. There is one for each label: the mark moves to it."""
    client = session.client
    request = snapshot_service_pb2.SetGoldenRequest(
        snapshot_id=snapshot_id(client, snapshot),
        label=label,
        reason=reason,
        request_id=new_request_id(),
    )
    answer = client.call(client.snapshots.SetGolden, request)
    if session.out.json:
        session.out.document(answer)
        return
    session.out.table(snapshot_facts(answer.snapshot, utc=session.out.utc))
    if answer.moved_from_id:
        session.out.note(f"the mark was taken from {answer.moved_from_id}")


@command(golden, "clear", examples=("drey snapshot golden clear latest --label injector",))
def clear_golden(
    session: Session, snapshot: SnapshotArgument, label: LabelOption = "", reason: ReasonOption = ""
) -> None:
    """Take a golden mark away from a snapshot."""
    client = session.client
    request = snapshot_service_pb2.ClearGoldenRequest(
        snapshot_id=snapshot_id(client, snapshot),
        label=label,
        reason=reason,
        request_id=new_request_id(),
    )
    answer = client.call(client.snapshots.ClearGolden, request)
    session.show(answer, lambda: snapshot_facts(answer.snapshot, utc=session.out.utc))


@command(golden, "list", examples=("drey snapshot golden list",))
def list_golden(session: Session) -> None:
    """List golden snapshots with their marks."""
    snapshots = list(list_snapshots(session.client, golden_only=True))
    session.show({"snapshots": snapshots}, lambda: golden_table(snapshots, utc=session.out.utc))


app = command_app(SUMMARIES["snapshot"])
for part in (snapshot_take, snapshot_look, snapshot_compare):
    app.add_typer(part.app)
app.add_typer(golden, name="golden")
