"""`drey status`: how the whole does, and its tables."""

from __future__ import annotations

import math

from drey_cli.contracts import breaker_pb2, monitor_service_pb2, system_service_pb2
from drey_cli.errors import ExitCode
from drey_cli.options import option
from drey_cli.output import Drawn
from drey_cli.render.table import (
    Cell,
    Table,
    number_field,
    spare_field,
    table_of,
    text_field,
    time_field,
)
from drey_cli.render.words import format_count, format_time, plural, short_name
from drey_cli.session import CliSession, command, end_with

_LEVEL_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}


@command(
    "status",
    gives="GetSystemSummaryResponse; with --watch WatchSystemSummaryResponse a line",
    examples=("drey status", "drey status --json | jq .summary.healthy"),
)
@option("--watch", "-w", is_flag=True, help="Follow it until Ctrl-C.")
def status_command(session: CliSession, watch: bool) -> None:
    """Show how the whole does: services, shards, IOCs, findings. Exit 1 unless healthy."""
    if watch:
        _watch_status(session)
        return
    client = session.client
    request = system_service_pb2.GetSystemSummaryRequest()
    answer = client.call_method(client.system.GetSystemSummary, request)
    session.show_document(answer, lambda: draw_summary(answer.summary, utc=session.out.utc))
    if not answer.summary.healthy:
        end_with(ExitCode.REFUSED)


def _watch_status(session: CliSession) -> None:
    from drey_cli.following import follow_stream

    request = system_service_pb2.WatchSystemSummaryRequest()
    for answer in follow_stream(
        session, lambda client: client.system.WatchSystemSummary, request, patience_s=math.inf
    ):
        if session.out.json:
            session.out.write_line(answer)
            continue
        if session.out.is_terminal:
            session.out.rich_console.clear()
        session.out.draw_parts(draw_summary(answer.summary, utc=session.out.utc))


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

    def age_text(shard: monitor_service_pb2.ShardStatus) -> str:
        is_known = shard.state.HasField("age")
        return f"{shard.state.age.ToMilliseconds()} ms" if is_known else "never"

    def access_cell(shard: monitor_service_pb2.ShardStatus) -> Cell:
        return Cell(shard.channel_access, "yellow" if shard.channel_access == "aioca" else "")

    def state_cell(shard: monitor_service_pb2.ShardStatus) -> Cell:
        return Cell("fresh", "green") if shard.state.fresh else Cell("stale", "bold yellow")

    def standby_text(shard: monitor_service_pb2.ShardStatus) -> str:
        return ", ".join(
            standby.instance if standby.warm else f"{standby.instance} (connects)"
            for standby in shard.standbys
        )

    standby_field = text_field("warm standbys", standby_text, fold=True)
    return table_of(
        summary.shards,
        number_field("shard", lambda shard: str(shard.state.shard)),
        text_field("state", state_cell),
        text_field("owner", lambda shard: shard.owner or Cell("nobody", "red"), fold=True),
        *([standby_field] if any(shard.standbys for shard in summary.shards) else []),
        number_field("epoch", lambda shard: str(shard.state.epoch)),
        number_field("age", age_text),
        number_field("updates/s", lambda shard: format_count(round(shard.updates_per_s))),
        text_field("access", access_cell),
    )


def channels_table(summary: system_service_pb2.SystemSummary) -> Table:
    """Channels of each shard by their connection."""

    def trouble_cell(count: int) -> Cell:
        return Cell(format_count(count), "yellow" if count else "dim")

    return table_of(
        summary.shards,
        number_field("shard", lambda shard: str(shard.state.shard)),
        number_field("channels", lambda shard: format_count(shard.channels)),
        number_field("connected", lambda shard: format_count(shard.connected)),
        number_field("disconnected", lambda shard: trouble_cell(shard.disconnected)),
        number_field("never", lambda shard: trouble_cell(shard.never_connected)),
        number_field("unsupported", lambda shard: trouble_cell(shard.unsupported)),
        number_field("in alarm", lambda shard: trouble_cell(shard.in_alarm)),
    )


def instances_table(summary: system_service_pb2.SystemSummary) -> Table:
    """One line a process."""

    def serving_cell(instance: system_service_pb2.ServiceInstance) -> Cell:
        return Cell("serving", "green") if instance.serving else Cell("not ready", "bold yellow")

    def queue_text(instance: system_service_pb2.ServiceInstance) -> str:
        fullest = max(instance.queues, key=lambda q: q.depth / max(q.bound, 1), default=None)
        return f"{fullest.depth}/{fullest.bound}" if fullest else ""

    return table_of(
        summary.instances,
        text_field("service", lambda instance: instance.service),
        text_field("instance", lambda instance: instance.name, fold=True),
        text_field("state", serving_cell),
        text_field("version", lambda instance: instance.version),
        number_field("fullest queue", queue_text),
    )


def iocs_table(summary: system_service_pb2.SystemSummary) -> Table:
    """One line an IOC, those in trouble first."""

    def state_cell(ioc: system_service_pb2.IocStatus) -> Cell:
        if ioc.channels and not ioc.connected:
            return Cell("down", "bold red")
        if ioc.HasField("silent_since"):
            return Cell("silent", "bold yellow")
        if ioc.hung:
            return Cell(f"{format_count(ioc.hung)} channels hang", "bold yellow")
        return Cell("answers", "green") if ioc.HasField("echo") else Cell("not asked yet", "dim")

    def echo_text(ioc: system_service_pb2.IocStatus) -> str:
        return f"{ioc.echo.ToNanoseconds() / 1e6:.1f} ms" if ioc.HasField("echo") else "—"

    def breaker_cell(ioc: system_service_pb2.IocStatus) -> Cell:
        if ioc.HasField("forced"):
            word = short_name(breaker_pb2.BreakerMode, ioc.forced.mode).replace("-", " ")
            return Cell(f"{word} by {ioc.forced.actor.principal}", "bold yellow")
        services = sorted({breaker.service for breaker in ioc.breakers})
        return Cell(f"open in {', '.join(services)}", "bold red") if services else Cell("closed")

    return table_of(
        summary.iocs,
        text_field("IOC", lambda ioc: ioc.address, fold=True),
        text_field("state", state_cell),
        number_field("channels", lambda ioc: format_count(ioc.channels)),
        number_field("connected", lambda ioc: format_count(ioc.connected)),
        spare_field(number_field("time-outs", lambda ioc: format_count(ioc.timeouts))),
        number_field("echo", echo_text),
        text_field("breaker", breaker_cell),
    )


def findings_table(summary: system_service_pb2.SystemSummary, *, utc: bool) -> Table:
    """One line a finding, gravest first."""

    def level_cell(finding: system_service_pb2.Finding) -> Cell:
        level = short_name(system_service_pb2.FindingLevel, finding.level)
        return Cell(level, _LEVEL_STYLE.get(level, ""))

    return table_of(
        summary.findings,
        text_field("finding", level_cell),
        time_field("since", lambda finding: finding.since, utc=utc),
        text_field("what", lambda finding: finding.text, fold=True),
        text_field("remedy", lambda finding: finding.remedy, fold=True),
    )


def draw_summary(summary: system_service_pb2.SystemSummary, *, utc: bool) -> Drawn:
    """The tables that have rows, in reading order, and one line on the whole."""
    unknown = []
    if summary.HasField("signs_lost_since"):
        since = format_time(summary.signs_lost_since.ToNanoseconds(), utc=utc)
        unknown.append(
            Cell(
                f"instances, IOCs and standbys: unknown since {since}: no signs of life", "bold red"
            )
        )
    tables = [
        parts_table(summary),
        owners_table(summary),
        channels_table(summary),
        instances_table(summary),
        iocs_table(summary),
        findings_table(summary, utc=utc),
    ]
    text = (
        f"{plural(summary.pvs, 'PV')}, {plural(summary.channels, 'channel')},"
        f" {plural(summary.watchers, 'watcher')},"
        f" {plural(summary.open_jobs, 'open job')}, version {summary.version}"
    )
    word = "healthy" if summary.healthy else "NOT healthy"
    verdict = Cell(f"{word}: {text}", "bold green" if summary.healthy else "bold red")
    return [*(table for table in tables if table.rows), *unknown, verdict]
