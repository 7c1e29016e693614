"""`drey snapshot golden set|clear|list`: which snapshots are known to be good."""

from __future__ import annotations

from typing import Annotated

import typer

from drey_cli.commands.snapshot_take import SnapshotArgument
from drey_cli.registry import command
from drey_cli.session import Session, new_request_id

LabelOption = Annotated[
    str, typer.Option("--label", "-l", help="Tells several golden snapshots apart.")
]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why; it is audited.")]


def set_golden(
    session: Session, snapshot: SnapshotArgument, label: LabelOption = "", reason: ReasonOption = ""
) -> None:
    """Mark a snapshot as golden. There is one for each label: the mark moves to it."""
    from drey.snapshot.v1 import snapshot_service_pb2
    from drey_cli.naming import snapshot_id
    from drey_cli.render.snapshots import snapshot_facts

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


def clear_golden(
    session: Session, snapshot: SnapshotArgument, label: LabelOption = "", reason: ReasonOption = ""
) -> None:
    """Take a golden mark away from a snapshot."""
    from drey.snapshot.v1 import snapshot_service_pb2
    from drey_cli.naming import snapshot_id
    from drey_cli.render.snapshots import snapshot_facts

    client = session.client
    request = snapshot_service_pb2.ClearGoldenRequest(
        snapshot_id=snapshot_id(client, snapshot),
        label=label,
        reason=reason,
        request_id=new_request_id(),
    )
    answer = client.call(client.snapshots.ClearGolden, request)
    if session.out.json:
        session.out.document(answer)
    else:
        session.out.table(snapshot_facts(answer.snapshot, utc=session.out.utc))


def list_golden(session: Session) -> None:
    """List golden snapshots with their marks."""
    from drey_cli.naming import list_snapshots
    from drey_cli.render.snapshots import golden_table

    found = list(list_snapshots(session.client, golden_only=True))
    if session.out.json:
        from drey_cli.render.documents import as_documents

        session.out.document({"snapshots": as_documents(found)})
    else:
        session.out.table(golden_table(found, utc=session.out.utc))


def register(snapshot: typer.Typer) -> None:
    """Add the commands to `drey snapshot`."""
    golden = typer.Typer(
        name="golden", no_args_is_help=True, help="Which snapshots are known to be good."
    )
    command(
        golden,
        "set",
        examples=(
            "drey snapshot golden set latest --reason 'after tuning'",
            "drey snapshot golden set 'run 3' --label injector",
        ),
    )(set_golden)
    command(golden, "clear", examples=("drey snapshot golden clear latest --label injector",))(
        clear_golden
    )
    command(golden, "list", examples=("drey snapshot golden list",))(list_golden)
    snapshot.add_typer(golden)
