"""A plan as a page for the logbook (one file that loads nothing), and as rows for a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from drey_cli.contracts import catalog_pb2, restore_pb2
from drey_cli.render.page import PAGE_END, html_table, page_head
from drey_cli.render.pvs import source_text
from drey_cli.render.restores import plan_facts
from drey_cli.render.spreadsheet import csv_lines
from drey_cli.render.table import Field, name_field, number_field, table_of, text_field
from drey_cli.render.values import alarm_cell, value_text
from drey_cli.render.words import format_time, plural, short_name

if TYPE_CHECKING:
    from drey.common.v1.value_pb2 import Value


def plan_html(plan: restore_pb2.Plan, items: Sequence[restore_pb2.PlanItem], *, utc: bool) -> str:
    """The whole plan: warnings first, writes by stage, then what is left out, by reason."""
    writes = [item for item in items if not item.skip]
    warned = [item for item in writes if item.warnings]
    heading = f"Restore plan: {plural(plan.writes, 'write')} of {plural(plan.pvs, 'PV')}"
    parts = [page_head(f"Plan {plan.id}", heading)]
    if warned:
        parts.append(f"<section class=warnings><h2>Warnings: {plural(len(warned), 'write')}</h2>")
        parts.append(html_table(table_of(warned, _PV, _warnings_field("what to know"))))
        parts.append("</section>")
    parts.append("<h2>The plan</h2>")
    parts.append(html_table(plan_facts(plan, utc=utc)))
    for stage in plan.stages:
        rows = [item for item in writes if item.stage == stage.stage]
        parts.append(f"<h2>Stage {stage.stage}: {plural(len(rows), 'write')}</h2>")
        parts.append(html_table(table_of(rows, *_write_fields(utc))))
    for skip in plan.skips:
        reason = short_name(restore_pb2.SkipReason, skip.reason)
        rows = [item for item in items if item.skip == skip.reason]
        parts.append(f"<h2>Left out, {escape(reason)}: {plural(len(rows), 'PV')}</h2>")
        fields = (
            _PV,
            _value_field("now", "current"),
            _value_field("stored", "stored"),
            _warnings_field("why"),
        )
        parts.append(html_table(table_of(rows, *fields)))
    return "\n".join([*parts, PAGE_END])


def _value_field(title: str, name: str) -> Field[restore_pb2.PlanItem]:
    return number_field(title, lambda item: value_text(item, name))


_PV: Field[restore_pb2.PlanItem] = name_field("PV", lambda item: item.name)


def _warnings_field(title: str) -> Field[restore_pb2.PlanItem]:
    return text_field(title, lambda item: "; ".join(item.warnings))


def _write_fields(utc: bool) -> Sequence[Field[restore_pb2.PlanItem]]:
    return (
        _PV,
        _value_field("now", "current"),
        text_field("since", lambda item: _time_text(item.current, utc)),
        text_field("alarm", lambda item: alarm_cell(item.current), css="alarm"),
        _value_field("stored", "stored"),
        text_field("alarm", _stored_alarm, css="alarm"),
        _value_field("target", "target"),
        number_field("delta", lambda item: f"{item.delta:+.6g}" if item.HasField("delta") else ""),
        number_field(
            "tolerances",
            lambda item: f"{item.deviation:.3g}" if item.HasField("deviation") else "",
        ),
        text_field("completes by", _policy_text),
        _warnings_field("notes"),
    )


def plan_csv(items: Iterable[restore_pb2.PlanItem], *, utc: bool) -> str:
    """One line a PV, writes and what is left out; whole values, times as they are shown."""
    return "".join(
        csv_lines(
            {
                "stage": lambda item: "" if item.skip else item.stage,
                "PV": lambda item: item.name,
                "address": lambda item: item.address,
                "now": lambda item: value_text(item, "current", full=True),
                "now alarm": lambda item: alarm_cell(item.current).text,
                "now time": lambda item: _time_text(item.current, utc),
                "stored": lambda item: value_text(item, "stored", full=True),
                "stored alarm": _stored_alarm,
                "target": lambda item: value_text(item, "target", full=True),
                "delta": lambda item: repr(item.delta) if item.HasField("delta") else "",
                "tolerances": lambda item: (
                    repr(item.deviation) if item.HasField("deviation") else ""
                ),
                "completion": _policy_text,
                "left out": lambda item: short_name(restore_pb2.SkipReason, item.skip),
                "notes": lambda item: "; ".join(item.warnings),
            },
            items,
        )
    )


def _stored_alarm(item: restore_pb2.PlanItem) -> str:
    return alarm_cell(item.stored).text if item.HasField("stored") else ""


def _time_text(value: Value, utc: bool) -> str:
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
    fields_by_source: dict[str, list[str]] = {}
    for source in item.policy_sources:
        if source.WhichOneof("source") != "built_in":
            fields_by_source.setdefault(source_text(source), []).append(
                source.policy_field.replace("_", " ")
            )
    who = "; ".join(f"{', '.join(fields)} from {name}" for name, fields in fields_by_source.items())
    return ", ".join(filter(None, parts)) + (f" ({who})" if who else "")
