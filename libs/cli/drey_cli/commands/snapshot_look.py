"""`drey snapshot list|show|read|verify`: looking at snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from drey_cli.commands.snapshot_take import SnapshotArgument
from drey_cli.contracts import form_pb2, snapshot_service_pb2, value_pb2
from drey_cli.errors import usage_error
from drey_cli.exits import ExitCode
from drey_cli.naming import snapshot_id
from drey_cli.parts import whole_rows
from drey_cli.registry import command
from drey_cli.render.documents import as_document
from drey_cli.render.rows import Metadata, metadata_by_number, rows_table
from drey_cli.render.snapshots import snapshot_facts, snapshots_table
from drey_cli.render.times import plural
from drey_cli.selection import Choice
from drey_cli.session import Session

if TYPE_CHECKING:
    from drey_cli.client import Stream

app = typer.Typer()


@command(
    app,
    "list",
    examples=(
        "drey snapshot list --golden",
        "drey snapshot list --since 2026-11-20T08:00",
    ),
)
def list_snapshots(
    session: Session,
    search: Annotated[str, typer.Option("--search", "-s", help="Text in title or comment.")] = "",
    label: Annotated[list[str] | None, typer.Option("--label", help="Has all of them.")] = None,
    golden: Annotated[bool, typer.Option("--golden", help="Only golden ones.")] = False,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Only those taken by.")] = "",
    digest: Annotated[str, typer.Option("--digest", help="Only those of equal content.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="ISO time; local unless it says.")
    ] = "",
    before: Annotated[str, typer.Option("--before", metavar="TIME", help="ISO time.")] = "",
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones as well.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most; 0 is all.")] = 50,
) -> None:
    """List snapshots, newest first."""
    client = session.client
    request = snapshot_service_pb2.ListSnapshotsRequest(
        search=search,
        labels=label or [],
        golden_only=golden,
        principal=by,
        digest=digest,
        include_deleted=deleted,
    )
    if since:
        request.from_time.FromDatetime(parse_time(since, option="--since"))
    if before:
        request.to_time.FromDatetime(parse_time(before, option="--before"))

    snapshots = list(
        client.list_items(client.snapshots.ListSnapshots, request, "snapshots", limit=limit)
    )
    session.show({"snapshots": snapshots}, lambda: snapshots_table(snapshots, utc=session.out.utc))


def parse_time(text: str, *, option: str) -> datetime:
    """An ISO time, local where it names no zone."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise usage_error(
            f"{option}: {text!r} is not a time", field=option, remedy="as 2026-11-21T08:00"
        ) from error


@command(app, "show", examples=("drey snapshot show latest",))
def show(session: Session, snapshot: SnapshotArgument) -> None:
    """Show what is known of a snapshot, without its values."""
    client = session.client
    request = snapshot_service_pb2.GetSnapshotRequest(id=snapshot_id(client, snapshot))
    answer = client.call(client.snapshots.GetSnapshot, request)
    session.show(answer, lambda: snapshot_facts(answer.snapshot, utc=session.out.utc))


@command(
    app,
    "read",
    examples=(
        "drey snapshot read latest --device QUAD",
        "drey snapshot read 'before shift 2' --json > values.jsonl",
        "drey snapshot read latest --only-missing",
    ),
)
def read(
    session: Session,
    choice: Choice,
    snapshot: SnapshotArgument,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Only PVs without a connected value.")
    ] = False,
) -> None:
    """Read the values of a snapshot, whole or in part.

    Names and devices are those of its time, tags those of the catalog as of now.
    With --json: the snapshot as the first line, then a line for each PV.
    """
    client = session.client
    request = snapshot_service_pb2.ReadSnapshotRequest(
        id=snapshot_id(client, snapshot),
        selector=choice.optional(),
        form=form_pb2.VALUE_FORM_ROWS,
        with_metadata=not session.out.json,
        only_missing=only_missing,
    )
    with client.stream(client.snapshots.ReadSnapshot, request) as stream:
        if session.out.json:
            _read_lines(session, stream)
        else:
            _read_table(session, stream)


def _read_lines(
    session: Session, stream: Stream[snapshot_service_pb2.ReadSnapshotResponse]
) -> None:

    def read_rows() -> Iterator[value_pb2.PvRow]:
        for message in stream:
            if message.HasField("header"):
                session.out.line({"snapshot": as_document(message.header)})
            yield from message.rows.rows

    for row in whole_rows(read_rows()):
        session.out.line(row)


def _read_table(
    session: Session, stream: Stream[snapshot_service_pb2.ReadSnapshotResponse]
) -> None:

    rows: list[value_pb2.PvRow] = []
    metadata: dict[int, Metadata] = {}
    title = ""
    for message in stream:
        if message.HasField("header"):
            header = message.header
            title = (
                f"{header.title or '(no title)'}, {session.time(header.take_time.ToNanoseconds())}"
            )
        metadata.update(metadata_by_number(message.metadata.pvs))
        rows.extend(message.rows.rows)
    table = rows_table(whole_rows(rows), metadata, utc=session.out.utc, title=title)
    table.note = plural(len(table.rows), "PV")
    session.out.table(table)


@command(app, "verify", examples=("drey snapshot verify latest",))
def verify(session: Session, snapshot: SnapshotArgument) -> None:
    """Check every stored page of a snapshot against its hash. Exit 4 if it is not intact."""
    from drey_cli.client import STREAM_TIMEOUT_S

    client = session.client
    answer = client.call(
        client.snapshots.VerifySnapshot,
        snapshot_service_pb2.VerifySnapshotRequest(id=snapshot_id(client, snapshot)),
        timeout_s=max(client.connection.timeout_s, STREAM_TIMEOUT_S),
    )
    if session.out.json:
        session.out.document(answer)
    elif answer.intact:
        session.out.text(f"intact: {answer.pages} pages checked", "bold green")
    else:
        session.out.text(f"NOT intact: {answer.pages} pages checked", "bold red")
        for finding in answer.findings:
            session.out.text(f"  {finding}")
    if not answer.intact:
        raise typer.Exit(ExitCode.DIFFERENT)
