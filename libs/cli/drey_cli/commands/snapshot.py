"""`drey snapshot list|show|read|verify`, and `drey snapshot golden`: looking at snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drey_cli import naming
from drey_cli.commands.snapshot_take import snapshot_argument, snapshot_command
from drey_cli.contracts import form_pb2, snapshot_service_pb2, value_pb2
from drey_cli.errors import ExitCode
from drey_cli.naming import snapshot_id
from drey_cli.options import MOMENT, limit_option, option, reason_option
from drey_cli.output import Drawn
from drey_cli.render.snapshots import golden_table, snapshot_facts, snapshots_table
from drey_cli.render.table import Cell
from drey_cli.render.values import metadata_by_number, rows_table
from drey_cli.render.words import as_document, format_stamp, plural
from drey_cli.selection import Choice, choosing
from drey_cli.session import CliSession, command, end_with, group
from drey_client.parts import whole_rows
from drey_client.watch_state import ChannelPair

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from drey_cli.client import Stream

golden = group("Which snapshots are known to be good.")
golden_label_option = option(
    "--label", "-l", default="", help="Tells several golden snapshots apart."
)


@command(
    "list",
    snapshot_command,
    gives="{snapshots}",
    examples=("drey snapshot list --golden", "drey snapshot list --since 2026-11-20T08:00"),
)
@option("--search", "-s", default="", help="Text in title or comment.")
@option("--label", "labels", multiple=True, help="Has all of them.")
@option("--golden", is_flag=True, help="Only golden ones.")
@option("--by", default="", metavar="NAME", help="Only those taken by.")
@option("--digest", default="", help="Only those of equal content.")
@option("--holds", "pv", default="", metavar="PV", help="Only those that hold this PV.")
@option("--since", type=MOMENT, metavar="TIME", help="ISO time; local unless it says.")
@option("--before", type=MOMENT, metavar="TIME", help="ISO time.")
@option("--deleted", is_flag=True, help="Deleted ones as well.")
@limit_option(50, "Most snapshots")
def list_snapshots(
    session: CliSession,
    search: str,
    labels: list[str],
    golden: bool,
    by: str,
    digest: str,
    pv: str,
    since: Timestamp | None,
    before: Timestamp | None,
    deleted: bool,
    limit: int,
) -> None:
    """List snapshots, newest first."""
    client = session.client
    request = snapshot_service_pb2.ListSnapshotsRequest(
        search=search,
        labels=labels,
        golden_only=golden,
        principal=by,
        digest=digest,
        pv=pv,
        from_time=since,
        to_time=before,
        include_deleted=deleted,
    )
    snapshots = list(
        client.list_items(client.snapshots.ListSnapshots, request, "snapshots", limit=limit)
    )
    session.show_document(
        {"snapshots": snapshots}, lambda: snapshots_table(snapshots, utc=session.out.utc)
    )


@command(
    "show", snapshot_command, gives="GetSnapshotResponse", examples=("drey snapshot show latest",)
)
@snapshot_argument
def show_snapshot(session: CliSession, snapshot: str) -> None:
    """Show what is known of a snapshot, without its values."""
    client = session.client
    request = snapshot_service_pb2.GetSnapshotRequest(id=snapshot_id(client, snapshot))
    answer = client.call_method(client.snapshots.GetSnapshot, request)
    session.show_document(answer, lambda: snapshot_facts(answer.snapshot, utc=session.out.utc))


@command(
    "read",
    snapshot_command,
    gives="{snapshot}, then PvRow a line",
    examples=(
        "drey snapshot read latest --device QUAD",
        "drey snapshot read 'before shift 2' --json > values.jsonl",
        "drey snapshot read latest --only-missing",
    ),
)
@snapshot_argument
@choosing
@option("--only-missing", is_flag=True, help="Only PVs without a connected value.")
def read_snapshot(session: CliSession, choice: Choice, snapshot: str, only_missing: bool) -> None:
    """Read the values of a snapshot, whole or in part.

    Names and devices are those of its time, tags those of the catalog as of now.
    With --json: the snapshot as the first line, then a line for each PV.
    """
    client = session.client
    request = snapshot_service_pb2.ReadSnapshotRequest(
        id=snapshot_id(client, snapshot),
        selector=choice.optional_selector(),
        form=form_pb2.VALUE_FORM_ROWS,
        with_metadata=not session.out.json,
        only_missing=only_missing,
    )
    with client.stream_method(client.snapshots.ReadSnapshot, request) as stream:
        if session.out.json:
            _write_lines(session, stream)
        else:
            _draw_values(session, stream)


def _write_lines(
    session: CliSession, stream: Stream[snapshot_service_pb2.ReadSnapshotResponse]
) -> None:
    def read_rows() -> Iterator[value_pb2.PvRow]:
        for message in stream:
            if message.HasField("header"):
                session.out.write_line({"snapshot": as_document(message.header)})
            yield from message.rows.rows

    for row in whole_rows(read_rows()):
        session.out.write_line(row)


def _draw_values(
    session: CliSession, stream: Stream[snapshot_service_pb2.ReadSnapshotResponse]
) -> None:
    rows: list[value_pb2.PvRow] = []
    metadata: dict[int, ChannelPair] = {}
    title, utc = "", session.out.utc
    for message in stream:
        if message.HasField("header"):
            header = message.header
            title = f"{header.title or '(no title)'}, {format_stamp(header.take_time, utc=utc)}"
        metadata.update(metadata_by_number(message.metadata.pvs))
        rows.extend(message.rows.rows)
    table = rows_table(whole_rows(rows), metadata, utc=utc, title=title)
    table.note = plural(len(table.rows), "PV")
    session.out.print_table(table)


@command(
    "verify",
    snapshot_command,
    gives="VerifySnapshotResponse",
    examples=("drey snapshot verify latest",),
)
@snapshot_argument
def verify_snapshot(session: CliSession, snapshot: str) -> None:
    """Check every stored page of a snapshot against its hash. Exit 4 if it is not intact."""
    from drey_cli.client import STREAM_TIMEOUT_S

    client = session.client
    answer = client.call_method(
        client.snapshots.VerifySnapshot,
        snapshot_service_pb2.VerifySnapshotRequest(id=snapshot_id(client, snapshot)),
        timeout_s=max(client.connection.timeout_s, STREAM_TIMEOUT_S),
    )

    def draw_findings() -> Drawn:
        if answer.intact:
            return Cell(f"intact: {answer.pages} pages checked", "bold green")
        head = Cell(f"NOT intact: {answer.pages} pages checked", "bold red")
        return [head, *(f"  {finding}" for finding in answer.findings)]

    session.show_document(answer, draw_findings)
    if not answer.intact:
        end_with(ExitCode.DIFFERENT)


@command(
    "set",
    golden,
    gives="SetGoldenResponse",
    examples=(
        "drey snapshot golden set latest --reason 'after tuning'",
        "drey snapshot golden set 'run 3' --label injector",
    ),
)
@snapshot_argument
@golden_label_option
@reason_option
def set_golden(session: CliSession, snapshot: str, label: str, reason: str) -> None:
    """Mark a snapshot as golden. There is one for each label: the mark moves to it."""
    client = session.client
    request = snapshot_service_pb2.SetGoldenRequest(
        snapshot_id=snapshot_id(client, snapshot), label=label, reason=reason
    )
    answer = client.call_method(client.snapshots.SetGolden, request)
    session.show_document(answer, lambda: snapshot_facts(answer.snapshot, utc=session.out.utc))
    if answer.moved_from_id:
        session.out.print_note(f"the mark was taken from {answer.moved_from_id}")


@command(
    "clear",
    golden,
    gives="ClearGoldenResponse",
    examples=("drey snapshot golden clear latest --label injector",),
)
@snapshot_argument
@golden_label_option
@reason_option
def clear_golden(session: CliSession, snapshot: str, label: str, reason: str) -> None:
    """Take a golden mark away from a snapshot."""
    client = session.client
    request = snapshot_service_pb2.ClearGoldenRequest(
        snapshot_id=snapshot_id(client, snapshot), label=label, reason=reason
    )
    answer = client.call_method(client.snapshots.ClearGolden, request)
    session.show_document(answer, lambda: snapshot_facts(answer.snapshot, utc=session.out.utc))


@command("list", golden, gives="{snapshots}", examples=("drey snapshot golden list",))
def list_golden(session: CliSession) -> None:
    """List golden snapshots with their marks."""
    snapshots = list(naming.list_snapshots(session.client, golden_only=True))
    session.show_document(
        {"snapshots": snapshots}, lambda: golden_table(snapshots, utc=session.out.utc)
    )


snapshot_command.add_command(golden, "golden")
