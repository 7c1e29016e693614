"""Plans and restores as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from drey_cli.conditions import rules_text
from drey_cli.contracts import catalog_pb2, restore_pb2, value_pb2
from drey_cli.render.comparisons import deviation_cell
from drey_cli.render.table import (
    Cell,
    Pair,
    Table,
    facts_table,
    id_field,
    name_field,
    number_field,
    spare_field,
    table_of,
    text_field,
    time_field,
)
from drey_cli.render.values import value_cell
from drey_cli.render.words import format_count, format_span, format_stamp, plural, short_name

_VERDICT_STYLE = {
    "verified": "green",
    "equal-already": "green",
    "pending": "dim",
    "skipped": "yellow",
    "written": "cyan",
}
_DONE = frozenset({"verified", "equal-already"})


def plan_facts(plan: restore_pb2.Plan, *, utc: bool) -> Table:
    """All that is known of a plan beside its items."""
    state = short_name(restore_pb2.PlanState, plan.state)
    pairs: list[Pair] = [
        ("plan", plan.id),
        ("snapshot", plan.snapshot_id),
        ("state", Cell(state, "green" if state == "ready" else "yellow")),
        ("digest", plan.digest),
        ("made by", f"{plan.actor.principal}, {format_stamp(plan.create_time, utc=utc)}"),
        ("expires", format_stamp(plan.expire_time, utc=utc)),
        ("writes", Cell(f"{format_count(plan.writes)} of {plural(plan.pvs, 'PV')}", "bold")),
    ]
    for stage in plan.stages:
        pairs.append((f"  stage {stage.stage}", stage_text(stage)))
    least = sum(stage.least_duration.ToNanoseconds() for stage in plan.stages)
    if least:
        pairs.append(("takes", f"at least {format_span(least)}, and what the devices need"))
    for skip in plan.skips:
        reason = short_name(restore_pb2.SkipReason, skip.reason)
        pairs.append((f"  {reason}", Cell(plural(skip.pvs, "PV"), skip_style(reason))))
    pairs += rules_text(plan.spec)
    if plan.HasField("approval"):
        pairs.append(("approval", _approval_cell(plan.approval)))
    if plan.spec.comment:
        pairs.append(("comment", plan.spec.comment))
    if plan.restore_id:
        pairs.append(("restore", plan.restore_id))
    return facts_table(pairs)


def stage_text(stage: restore_pb2.StageCount) -> str:
    """Writes of a stage, what it waits for and how long."""
    parts = [plural(stage.writes, "write")]
    if stage.HasField("least_duration"):
        least, most = stage.least_duration.ToNanoseconds(), stage.most_duration.ToNanoseconds()
        waits = (
            f"{short_name(catalog_pb2.Completion, count.completion)} of {count.writes}"
            for count in stage.completions
        )
        parts.append("waits for " + ", ".join(waits))
        if least:
            parts.append(f"at least {format_span(least)}")
        late = format_span(most) if stage.HasField("most_duration") else "the write timeout"
        parts.append(f"late after {late}")
    if stage.ramps:
        parts.append(f"{plural(stage.ramps, 'ramp')} of up to {plural(stage.ramp_steps, 'step')}")
    if stage.unpaced_ramps:
        parts.append(f"{stage.unpaced_ramps} without a rate: as long as the device takes")
    return "; ".join(parts)


def _approval_cell(approval: restore_pb2.Approval) -> Cell:
    state = short_name(restore_pb2.ApprovalState, approval.state)
    who = f" by {approval.approver.principal}" if approval.HasField("approver") else ""
    why = f": {approval.reason}" if approval.reason else ""
    needed = f"needed for {plural(approval.pvs, 'PV')}, the first is {approval.first_pv}"
    return Cell(f"{state}{who}{why}; {needed}", "green" if state == "approved" else "yellow")


def approvals_table(approvals: Iterable[restore_pb2.Approval], *, utc: bool) -> Table:
    """One line an approval."""

    def state_cell(approval: restore_pb2.Approval) -> Cell:
        state = short_name(restore_pb2.ApprovalState, approval.state)
        return Cell(state, "green" if state == "approved" else "yellow")

    return table_of(
        approvals,
        id_field("plan", lambda approval: approval.plan_id),
        time_field("asked", lambda approval: approval.create_time, utc=utc),
        text_field("by", lambda approval: approval.requester.principal),
        text_field("state", state_cell),
        number_field("PVs", lambda approval: format_count(approval.pvs)),
        spare_field(text_field("first PV", lambda approval: approval.first_pv)),
        text_field("decided by", lambda approval: approval.approver.principal),
        spare_field(time_field("until", lambda approval: approval.expire_time, utc=utc)),
        text_field("reason", lambda approval: approval.reason, fold=True),
    )


def skip_style(reason: str) -> str:
    """Style of a reason for leaving out: what is equal is no trouble."""
    return "dim" if reason in {"equal", "excluded"} else "yellow"


def plan_table(items: Iterable[restore_pb2.PlanItem]) -> Table:
    """Writes by stage, then what is left out and why."""
    return table_of(
        items,
        number_field("stage", lambda item: Cell("—", "dim") if item.skip else str(item.stage)),
        name_field("PV", lambda item: Cell(item.name, "dim" if item.skip else "")),
        number_field("now", lambda item: _item_value(item, "current")),
        number_field("target", lambda item: _item_value(item, "target")),
        number_field("delta", lambda item: f"{item.delta:+.6g}" if item.HasField("delta") else ""),
        text_field(
            "deviation",
            lambda item: deviation_cell(item.deviation if item.HasField("deviation") else None),
        ),
        text_field("note", _plan_note, fold=True),
    )


def _item_value(item: restore_pb2.PlanItem | restore_pb2.RestoreItem, field: str) -> Cell:
    value: value_pb2.Value = getattr(item, field)
    return value_cell(value if item.HasField(field) else None)  # type: ignore[arg-type]


def _plan_note(item: restore_pb2.PlanItem) -> Cell:
    skip = short_name(restore_pb2.SkipReason, item.skip)
    return Cell("; ".join([*([skip] if skip else []), *item.warnings]), skip_style(skip))


def plans_table(plans: Iterable[restore_pb2.Plan], *, utc: bool) -> Table:
    return table_of(
        plans,
        id_field("plan", lambda plan: plan.id),
        time_field("time", lambda plan: plan.create_time, utc=utc),
        text_field("state", lambda plan: short_name(restore_pb2.PlanState, plan.state)),
        number_field("writes", lambda plan: format_count(plan.writes)),
        number_field("PVs", lambda plan: format_count(plan.pvs)),
        text_field("by", lambda plan: plan.actor.principal),
        text_field("comment", lambda plan: plan.spec.comment, fold=True),
    )


def restores_table(restores: Iterable[restore_pb2.Restore], *, utc: bool) -> Table:
    return table_of(
        restores,
        id_field("restore", lambda restore: restore.id),
        time_field("time", lambda restore: restore.create_time, utc=utc),
        text_field("state", state_of),
        text_field("result", _result_cell, fold=True),
        text_field("by", lambda restore: restore.actor.principal),
    )


def _result_cell(restore: restore_pb2.Restore) -> Cell:
    if restore.all_verified:
        return Cell("all verified", "green")
    return Cell(counts_text(verdict_counts(restore)))


def state_of(restore: restore_pb2.Restore) -> str:
    return short_name(restore_pb2.RestoreState, restore.state)


def verdict_counts(restore: restore_pb2.Restore) -> dict[str, int]:
    """PVs by verdict, by short name, in the order of the contract."""
    return verdict_names({count.verdict: count.pvs for count in restore.verdicts})


def verdict_names(counts: Mapping[int, int]) -> dict[str, int]:
    return {short_name(restore_pb2.Verdict, verdict): pvs for verdict, pvs in counts.items()}


def counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{pvs} {name}" for name, pvs in counts.items())


def restore_facts(restore: restore_pb2.Restore, *, utc: bool) -> Table:
    """All that is known of a restore beside its items."""
    pairs: list[Pair] = [
        ("restore", restore.id),
        ("plan", restore.plan_id),
        ("snapshot", restore.snapshot_id),
        ("state", state_of(restore)),
        ("by", f"{restore.actor.principal}, {format_stamp(restore.create_time, utc=utc)}"),
    ]
    if restore.HasField("start_time") and restore.HasField("end_time"):
        took = restore.end_time.ToNanoseconds() - restore.start_time.ToNanoseconds()
        pairs.append(("took", format_span(took)))
    for name, pvs in verdict_counts(restore).items():
        pairs.append((f"  {name}", Cell(plural(pvs, "PV"), _VERDICT_STYLE.get(name, "red"))))
    if restore.continues_restore_id:
        pairs.insert(1, ("continues", restore.continues_restore_id))
    if restore.continued_by_restore_id:
        pairs.append(("continued by", restore.continued_by_restore_id))
    if restore.interfered:
        meanwhile = f"{plural(restore.interfered, 'PV')}, by somebody else, or by logic of the IOC"
        pairs.append(("changed meanwhile", Cell(meanwhile, "bold yellow")))
    if restore.rollback_restore_id:
        pairs.append(("goes back by", Cell(restore.rollback_restore_id, "bold yellow")))
    if restore.HasField("rollback_error"):
        why_not = f"it did NOT go back: {restore.rollback_error.message}"
        pairs.append(("rollback", Cell(why_not, "bold red")))
    if restore.may_still_fire:
        held = f"{plural(restore.may_still_fire, 'PV')}, held until their IOCs answer"
        pairs.append(("may still be written", Cell(held, "bold red")))
    if restore.HasField("error"):
        pairs.append(("error", Cell(restore.error.message, "bold red")))
    if restore.comment:
        pairs.append(("comment", restore.comment))
    return facts_table(pairs)


def restore_verdict(restore: restore_pb2.Restore) -> Cell:
    """One line that says how it went. Only what was verified is called done."""
    counts = verdict_counts(restore)
    total = sum(counts.values())
    meanwhile = (
        f"; somebody else changed {plural(restore.interfered, 'PV')} meanwhile"
        if restore.interfered
        else ""
    )
    if restore.all_verified:
        equal = counts.get("equal-already", 0) + counts.get("skipped", 0)
        return Cell(
            f"all verified: {plural(counts.get('verified', 0), 'PV')} written and read back,"
            f" {format_count(equal)} equal already{meanwhile}",
            "bold yellow" if meanwhile else "bold green",
        )
    short = sum(pvs for name, pvs in counts.items() if name not in _DONE)
    return Cell(
        f"NOT all verified: {format_count(short)} of {plural(total, 'PV')} are not{meanwhile}",
        "bold red",
    )


def restore_items_table(items: Iterable[restore_pb2.RestoreItem], *, limit: int = 0) -> Table:
    return table_of(
        items,
        name_field("PV", lambda item: item.name),
        text_field("verdict", _verdict_cell),
        number_field("before", lambda item: _item_value(item, "before")),
        number_field("target", lambda item: _item_value(item, "target")),
        number_field("seen", lambda item: _item_value(item, "seen")),
        number_field("readback", lambda item: _item_value(item, "readback")),
        text_field("note", _restore_note, fold=True),
        limit=limit,
    )


def _verdict_cell(item: restore_pb2.RestoreItem) -> Cell:
    verdict = short_name(restore_pb2.Verdict, item.verdict)
    return Cell(verdict, _VERDICT_STYLE.get(verdict, "red"))


def _restore_note(item: restore_pb2.RestoreItem) -> str:
    skip = short_name(restore_pb2.SkipReason, item.skip)
    return "; ".join(note for note in (skip, item.epics_status, item.explanation) if note)
