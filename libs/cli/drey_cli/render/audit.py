"""The audit trail as tables."""

from __future__ import annotations

from collections.abc import Iterable

from drey_cli.contracts import audit_pb2
from drey_cli.render.table import Cell, Column, Table
from drey_cli.render.times import format_time


def events_table(events: Iterable[audit_pb2.AuditEvent], *, utc: bool) -> Table:
    """One line an act."""
    table = Table(
        (
            Column("number"),
            Column("time"),
            Column("by"),
            Column("roles"),
            Column("action"),
            Column("object"),
            Column("what there is since", fold=True),
        )
    )
    for event in events:
        table.add(
            str(event.sequence),
            format_time(event.time.ToNanoseconds(), utc=utc),
            event.actor.principal,
            ", ".join(event.actor.roles),
            event.action,
            event.target,
            event.after_json,
        )
    return table


def act_line(event: audit_pb2.AuditEvent, *, utc: bool) -> str:
    """One act as it is followed."""
    time = format_time(event.time.ToNanoseconds(), utc=utc)
    said = f"{event.sequence}  {time}  {event.actor.principal}  {event.action}  {event.target}"
    return f"{said}  {event.after_json}".rstrip()


def findings_table(findings: Iterable[audit_pb2.ChainFinding]) -> Table:
    """One line a finding."""
    table = Table((Column("number"), Column("what is wrong", fold=True)))
    for finding in findings:
        table.add(str(finding.sequence or "—"), Cell(finding.problem, "red"))
    return table
