"""`drey status`: how the whole does, and its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from drey_cli.contracts import system_service_pb2
from drey_cli.exits import ExitCode
from drey_cli.registry import command, command_app
from drey_cli.render.enums import short_name
from drey_cli.render.table import Cell, Table, number_field, table_of, text_field
from drey_cli.render.times import format_count, format_time, plural
from drey_cli.session import Session

if TYPE_CHECKING:
    from drey_cli.client import Stream

app = command_app()


@command(app, "status", examples=("drey status", "drey status --json | jq .summary.healthy"))
def status(
    session: Session,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it until Ctrl-C.")] = False,
) -> None:
    """Show how the whole does: services, shards, findings. Exit 1 unless it is healthy."""
    if watch:
        _watch_status(session)
        return
    client = session.client
    answer = client.call(
        client.system.GetSystemSummary, system_service_pb2.GetSystemSummaryRequest()
    )
    if session.out.json:
        session.out.document(answer)
    else:
        _draw_status(session, answer.summary)
    if not answer.summary.healthy:
        raise typer.Exit(ExitCode.REFUSED)


def _draw_status(session: Session, summary: system_service_pb2.SystemSummary) -> None:
    for table in summary_tables(summary, utc=session.out.utc):
        session.out.table(table)
    session.out.cell(health_cell(summary))


def _watch_status(session: Session) -> None:
    from drey_cli.client import WATCH_TIMEOUT_S
    from drey_cli.following import Follower, Lost

    client = session.client

    def open_stream() -> Stream[system_service_pb2.WatchSystemSummaryResponse]:
        request = system_service_pb2.WatchSystemSummaryRequest()
        return client.stream(client.system.WatchSystemSummary, request, timeout_s=WATCH_TIMEOUT_S)

    with Follower(open_stream) as follower:
        while True:
            try:
                item = follower.get(0.25)
            except EOFError:
                return
            if isinstance(item, Lost):
                session.out.note(f"{item.error.message}; connecting again", "yellow")
            elif item is not None and session.out.json:
                session.out.line(item)
            elif item is not None:
                if session.out.is_terminal:
                    session.out.console.clear()
                _draw_status(session, item.summary)


_LEVEL_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def parts_table(summary: system_service_pb2.SystemSummary) -> Table:
    """One line a part of the system."""

    def state_cell(part: system_service_pb2.Part) -> Cell:
        state = short_name(system_service_pb2.PartState, part.state)
        return Cell(state, "green" if state == "up" else "bold red")

    def part_latency(part: system_service_pb2.Part) -> str:
        is_known = part.HasField("latency")
        return f"{part.latency.ToNanoseconds() / 1e6:.1f} ms" if is_known else "—"

    return table_of(
        summary.parts,
        text_field("part", lambda part: part.name),
        text_field("state", state_cell),
        number_field("answers in", part_latency),
        text_field("detail", lambda part: part.detail, fold=True),
    )


def owners_table(summary: system_service_pb2.SystemSummary) -> Table:
    """Who owns each shard, and how it does."""
    return table_of(
        summary.shards,
        number_field("shard", lambda shard: str(shard.state.shard)),
        text_field(
            "state",
            lambda shard: (
                Cell("fresh", "green") if shard.state.fresh else Cell("stale", "bold yellow")
            ),
        ),
        text_field("owner", lambda shard: shard.owner or Cell("nobody", "red"), fold=True),
        number_field("epoch", lambda shard: str(shard.state.epoch)),
        number_field(
            "age",
            lambda shard: (
                f"{shard.state.age.ToMilliseconds()} ms" if shard.state.HasField("age") else "never"
            ),
        ),
        number_field("updates/s", lambda shard: format_count(round(shard.updates_per_s))),
        text_field(
            "access",
            lambda shard: Cell(
                shard.channel_access, "yellow" if shard.channel_access == "aioca" else ""
            ),
        ),
    )


def channels_table(summary: system_service_pb2.SystemSummary) -> Table:
    """Channels of each shard by their connection."""
    return table_of(
        summary.shards,
        number_field("shard", lambda shard: str(shard.state.shard)),
        number_field("channels", lambda shard: format_count(shard.channels)),
        number_field("connected", lambda shard: format_count(shard.connected)),
        number_field("disconnected", lambda shard: _trouble_cell(shard.disconnected)),
        number_field("never", lambda shard: _trouble_cell(shard.never_connected)),
        number_field("unsupported", lambda shard: _trouble_cell(shard.unsupported)),
        number_field("in alarm", lambda shard: _trouble_cell(shard.in_alarm)),
    )


def _trouble_cell(count: int) -> Cell:
    return Cell(format_count(count), "yellow" if count else "dim")


def findings_table(summary: system_service_pb2.SystemSummary, *, utc: bool) -> Table:
    """One line a finding, gravest first."""

    def level_cell(finding: system_service_pb2.Finding) -> Cell:
        level = short_name(system_service_pb2.FindingLevel, finding.level)
        return Cell(level, _LEVEL_STYLE.get(level, ""))

    return table_of(
        summary.findings,
        text_field("finding", level_cell),
        text_field("since", lambda each: format_time(each.since.ToNanoseconds(), utc=utc)),
        text_field("what", lambda each: each.text, fold=True),
        text_field("remedy", lambda each: each.remedy, fold=True),
    )


def health_cell(summary: system_service_pb2.SystemSummary) -> Cell:
    """One line on the whole."""
    text = (
        f"{plural(summary.pvs, 'PV')}, {plural(summary.channels, 'channel')},"
        f" {plural(summary.watchers, 'watcher')},"
        f" {plural(summary.open_jobs, 'open job')}, version {summary.version}"
    )
    word = "healthy" if summary.healthy else "NOT healthy"
    return Cell(f"{word}: {text}", "bold green" if summary.healthy else "bold red")


def summary_tables(summary: system_service_pb2.SystemSummary, *, utc: bool) -> list[Table]:
    """The tables that have rows, in reading order."""
    tables = [
        parts_table(summary),
        owners_table(summary),
        channels_table(summary),
        findings_table(summary, utc=utc),
    ]
    return [table for table in tables if table.rows]
