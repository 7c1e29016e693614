"""The state of the whole as tables."""

from __future__ import annotations

from drey_cli.contracts import system_service_pb2
from drey_cli.render.enums import short_name
from drey_cli.render.table import Cell, Column, Table
from drey_cli.render.times import format_count, format_time, plural

_LEVEL_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def parts_table(summary: system_service_pb2.SystemSummary) -> Table:
    """One line a part of the system."""

    table = Table(
        (
            Column("part"),
            Column("state"),
            Column("answers in", right=True),
            Column("detail", fold=True),
        )
    )
    for part in summary.parts:
        state = short_name(system_service_pb2.PartState, part.state)
        table.add(
            part.name,
            Cell(state, "green" if state == "up" else "bold red"),
            f"{part.latency.ToNanoseconds() / 1e6:.1f} ms" if part.HasField("latency") else "—",
            part.detail,
        )
    return table


def shards_table(summary: system_service_pb2.SystemSummary) -> Table:
    """One line a shard."""
    table = Table(
        (
            Column("shard", right=True),
            Column("state"),
            Column("owner"),
            Column("epoch", right=True),
            Column("age", right=True),
            Column("channels", right=True),
            Column("connected", right=True),
            Column("disconnected", right=True),
            Column("never", right=True),
            Column("in alarm", right=True),
            Column("updates/s", right=True),
            Column("access"),
        )
    )
    for shard in summary.shards:
        state = shard.state
        table.add(
            str(state.shard),
            Cell("fresh", "green") if state.fresh else Cell("stale", "bold yellow"),
            Cell(shard.owner) if shard.owner else Cell("nobody", "red"),
            str(state.epoch),
            f"{state.age.ToMilliseconds()} ms" if state.HasField("age") else "never",
            format_count(shard.channels),
            format_count(shard.connected),
            _trouble(shard.disconnected),
            _trouble(shard.never_connected),
            _trouble(shard.in_alarm),
            f"{shard.updates_per_s:,.0f}".replace(",", "\u202f"),
            Cell(shard.channel_access, "yellow" if shard.channel_access == "aioca" else ""),
        )
    return table


def _trouble(count: int) -> Cell:
    return Cell(format_count(count), "yellow" if count else "dim")


def findings_table(summary: system_service_pb2.SystemSummary, *, utc: bool) -> Table:
    """One line a finding, gravest first."""

    table = Table(
        (
            Column("finding"),
            Column("since"),
            Column("what", fold=True),
            Column("remedy", fold=True),
        )
    )
    for finding in summary.findings:
        level = short_name(system_service_pb2.FindingLevel, finding.level)
        since = format_time(finding.since.ToNanoseconds(), utc=utc)
        table.add(Cell(level, _LEVEL_STYLE.get(level, "")), since, finding.text, finding.remedy)
    return table


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
    tables = [parts_table(summary), shards_table(summary), findings_table(summary, utc=utc)]
    return [table for table in tables if table.rows]
