"""A plan as a page for the logbook (one file that loads nothing), and as rows for a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from drey_cli.contracts import catalog_pb2, restore_pb2
from drey_cli.render.page import PAGE_END, Cells, facts_html, html_table, page_head
from drey_cli.render.pvs import source_text
from drey_cli.render.restores import plan_facts
from drey_cli.render.spreadsheet import csv_document
from drey_cli.render.values import alarm_cell, format_value
from drey_cli.render.words import format_time, plural, short_name

if TYPE_CHECKING:
    from drey.common.v1.value_pb2 import Value

_COLUMNS = (
    *("stage", "PV", "address", "now", "now alarm", "now time", "stored", "stored alarm"),
    *("target", "delta", "tolerances", "completion", "left out", "notes"),
)


def plan_html(plan: restore_pb2.Plan, items: Sequence[restore_pb2.PlanItem], *, utc: bool) -> str:
    """The whole plan: warnings first, writes by stage, then what is left out, by reason."""
    writes = [item for item in items if not item.skip]
    told = [item for item in writes if item.warnings]
    heading = f"Restore plan: {plural(plan.writes, 'write')} of {plural(plan.pvs, 'PV')}"
    parts = [page_head(f"Plan {plan.id}", heading)]
    if told:
        parts.append(f"<section class=warnings><h2>Warnings: {plural(len(told), 'write')}</h2>")
        parts.append(html_table(("PV", "what to know"), (_warning_cells(item) for item in told)))
        parts.append("</section>")
    parts.append("<h2>The plan</h2>")
    parts.append(facts_html(plan_facts(plan, utc=utc)))
    for stage in plan.stages:
        rows = [item for item in writes if item.stage == stage.stage]
        parts.append(f"<h2>Stage {stage.stage}: {plural(len(rows), 'write')}</h2>")
        parts.append(html_table(_WRITE_TITLES, (_write_cells(item, utc) for item in rows)))
    for skip in plan.skips:
        reason = short_name(restore_pb2.SkipReason, skip.reason)
        rows = [item for item in items if item.skip == skip.reason]
        parts.append(f"<h2>Left out, {escape(reason)}: {plural(len(rows), 'PV')}</h2>")
        parts.append(html_table(_SKIP_TITLES, (_skip_cells(item) for item in rows)))
    return "\n".join([*parts, PAGE_END])


_WRITE_TITLES = (
    *("PV", "now", "since", "alarm", "stored", "alarm", "target", "delta", "tolerances"),
    *("completes by", "notes"),
)
_SKIP_TITLES = ("PV", "now", "stored", "why")


def _warning_cells(item: restore_pb2.PlanItem) -> Cells:
    return ("pv", item.name), ("", "; ".join(item.warnings))


def _write_cells(item: restore_pb2.PlanItem, utc: bool) -> Cells:
    return (
        ("pv", item.name),
        ("number", _value_text(item, "current")),
        ("", _time(item.current, utc)),
        ("alarm", alarm_cell(item.current).text),
        ("number", _value_text(item, "stored")),
        ("alarm", alarm_cell(item.stored).text if item.HasField("stored") else ""),
        ("number", _value_text(item, "target")),
        ("number", f"{item.delta:+.6g}" if item.HasField("delta") else ""),
        ("number", f"{item.deviation:.3g}" if item.HasField("deviation") else ""),
        ("", _policy_text(item)),
        ("", "; ".join(item.warnings)),
    )


def _skip_cells(item: restore_pb2.PlanItem) -> Cells:
    return (
        ("pv", item.name),
        ("number", _value_text(item, "current")),
        ("number", _value_text(item, "stored")),
        ("", "; ".join(item.warnings)),
    )


def plan_csv(items: Iterable[restore_pb2.PlanItem], *, utc: bool) -> str:
    """One line a PV, writes and what is left out; whole values, times as they are shown."""
    return csv_document(_COLUMNS, (_csv_row(item, utc) for item in items))


def _csv_row(item: restore_pb2.PlanItem, utc: bool) -> tuple[object, ...]:
    skip = short_name(restore_pb2.SkipReason, item.skip)
    return (
        "" if skip else item.stage,
        item.name,
        item.address,
        _value_text(item, "current", full=True),
        alarm_cell(item.current).text,
        _time(item.current, utc),
        _value_text(item, "stored", full=True),
        alarm_cell(item.stored).text if item.HasField("stored") else "",
        _value_text(item, "target", full=True),
        repr(item.delta) if item.HasField("delta") else "",
        repr(item.deviation) if item.HasField("deviation") else "",
        _policy_text(item),
        skip,
        "; ".join(item.warnings),
    )


def _value_text(item: restore_pb2.PlanItem, name: str, *, full: bool = False) -> str:
    value: Value | None = getattr(item, name) if item.HasField(name) else None  # type: ignore[arg-type]
    return "" if value is None else format_value(value, full=full)


def _time(value: Value, utc: bool) -> str:
    return format_time(value.source_time_ns, utc=utc) if value.source_time_ns else ""


def _policy_text(item: restore_pb2.PlanItem) -> str:
    """What is followed, and who says it where that is not Drey."""
    policy = item.policy
    parts = [short_name(catalog_pb2.Completion, policy.completion)]
    if policy.done_channel:
        parts.append(policy.done_channel)
    for name in ("timeout", "settle"):
        if policy.HasField(name):
            parts.append(f"{name} {getattr(policy, name).ToNanoseconds() / 1e9:g} s")
    for name in ("ramp_rate", "ramp_step"):
        if policy.HasField(name):  # type: ignore[arg-type]
            parts.append(f"{name.replace('_', ' ')} {getattr(policy, name):g}")
    if policy.HasField("allowed"):
        parts.append(f"allowed {policy.allowed.low:g} to {policy.allowed.high:g}")
    said: dict[str, list[str]] = {}
    for source in item.policy_sources:
        if source.WhichOneof("source") != "built_in":
            said.setdefault(source_text(source), []).append(source.policy_field.replace("_", " "))
    who = "; ".join(f"{', '.join(fields)} from {name}" for name, fields in said.items())
    return ", ".join(filter(None, parts)) + (f" ({who})" if who else "")
