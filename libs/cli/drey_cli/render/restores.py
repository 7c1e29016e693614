"""Plans and restores as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from drey_cli.contracts import restore_pb2
from drey_cli.render.comparisons import deviation_cell
from drey_cli.render.enums import short_name
from drey_cli.render.table import Cell, Column, Table, facts
from drey_cli.render.times import format_count, format_span, format_time, plural
from drey_cli.render.values import value_cell

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp


_VERDICT_STYLE = {
    "verified": "green",
    "equal-already": "green",
    "pending": "dim",
    "skipped": "yellow",
    "written": "cyan",
}
_DONE = frozenset({"verified", "equal-already"})


def _time_text(time: Timestamp, utc: bool) -> str:
    return format_time(time.ToNanoseconds(), utc=utc)


def plan_facts(plan: restore_pb2.Plan, *, utc: bool) -> Table:
    """All that is known of a plan beside its items."""
    state = short_name(restore_pb2.PlanState, plan.state)
    pairs: list[tuple[str, Cell | str]] = [
        ("plan", plan.id),
        ("snapshot", plan.snapshot_id),
        ("state", Cell(state, "green" if state == "ready" else "yellow")),
        ("digest", plan.digest),
        (
            "made by",
            f"{plan.actor.principal}, {_time_text(plan.create_time, utc)}",
        ),
        ("expires", _time_text(plan.expire_time, utc)),
        ("writes", Cell(f"{format_count(plan.writes)} of {plural(plan.pvs, 'PV')}", "bold")),
    ]
    for stage in plan.stages:
        pairs.append((f"  stage {stage.stage}", plural(stage.writes, "write")))
    for skip in plan.skips:
        reason = short_name(restore_pb2.SkipReason, skip.reason)
        pairs.append((f"  {reason}", Cell(plural(skip.pvs, "PV"), skip_style(reason))))
    if plan.HasField("approval"):
        pairs.append(("approval", _approval_cell(plan.approval)))
    if plan.spec.comment:
        pairs.append(("comment", plan.spec.comment))
    if plan.restore_id:
        pairs.append(("restore", plan.restore_id))
    return facts(pairs)


def _approval_cell(approval: restore_pb2.Approval) -> Cell:
    state = short_name(restore_pb2.ApprovalState, approval.state)
    who = f" by {approval.approver.principal}" if approval.HasField("approver") else ""
    why = f": {approval.reason}" if approval.reason else ""
    needed = f"needed for {plural(approval.pvs, 'PV')}, the first is {approval.first_pv}"
    return Cell(f"{state}{who}{why}; {needed}", "green" if state == "approved" else "yellow")


def approvals_table(approvals: Iterable[restore_pb2.Approval], *, utc: bool) -> Table:
    """One line an approval."""
    table = Table(
        (
            Column("plan"),
            Column("asked"),
            Column("by"),
            Column("state"),
            Column("PVs", right=True),
            Column("first PV"),
            Column("decided by"),
            Column("until"),
            Column("reason", fold=True),
        )
    )
    for approval in approvals:
        state = short_name(restore_pb2.ApprovalState, approval.state)
        table.add(
            approval.plan_id,
            _time_text(approval.create_time, utc),
            approval.requester.principal,
            Cell(state, "green" if state == "approved" else "yellow"),
            format_count(approval.pvs),
            approval.first_pv,
            approval.approver.principal,
            _time_text(approval.expire_time, utc),
            approval.reason,
        )
    return table


def skip_style(reason: str) -> str:
    """Style of a reason for leaving out: what is equal is no trouble."""
    return "dim" if reason in {"equal", "excluded"} else "yellow"


def plan_table(items: Iterable[restore_pb2.PlanItem]) -> Table:
    """Writes by stage, then what is left out and why."""
    table = Table(
        (
            Column("stage", right=True),
            Column("PV"),
            Column("now", right=True),
            Column("target", right=True),
            Column("delta", right=True),
            Column("deviation"),
            Column("note", fold=True),
        )
    )
    for item in items:
        skip = short_name(restore_pb2.SkipReason, item.skip)
        table.add(
            Cell("—", "dim") if skip else str(item.stage),
            Cell(item.name, "dim" if skip else ""),
            value_cell(item.current if item.HasField("current") else None),
            value_cell(item.target if item.HasField("target") else None),
            f"{item.delta:+.6g}" if item.HasField("delta") else "",
            deviation_cell(item.deviation if item.HasField("deviation") else None),
            Cell("; ".join([skip, *item.warnings] if skip else item.warnings), skip_style(skip)),
        )
    return table


def plans_table(plans: Iterable[restore_pb2.Plan], *, utc: bool) -> Table:
    """One line a plan."""
    table = Table(
        (
            Column("plan"),
            Column("time"),
            Column("state"),
            Column("writes", right=True),
            Column("PVs", right=True),
            Column("by"),
            Column("comment", fold=True),
        )
    )
    for plan in plans:
        table.add(
            plan.id,
            _time_text(plan.create_time, utc),
            short_name(restore_pb2.PlanState, plan.state),
            format_count(plan.writes),
            format_count(plan.pvs),
            plan.actor.principal,
            plan.spec.comment,
        )
    return table


def restores_table(restores: Iterable[restore_pb2.Restore], *, utc: bool) -> Table:
    """One line a restore."""
    table = Table(
        (
            Column("restore"),
            Column("time"),
            Column("state"),
            Column("result", fold=True),
            Column("by"),
        )
    )
    for restore in restores:
        table.add(
            restore.id,
            _time_text(restore.create_time, utc),
            short_name(restore_pb2.RestoreState, restore.state),
            Cell("all verified", "green") if restore.all_verified else verdicts_text(restore),
            restore.actor.principal,
        )
    return table


def verdict_counts(restore: restore_pb2.Restore) -> dict[str, int]:
    """PVs by verdict, by short name, in the order of the contract."""
    return {short_name(restore_pb2.Verdict, count.verdict): count.pvs for count in restore.verdicts}


def verdicts_text(restore: restore_pb2.Restore) -> str:
    """Verdict counts in one line."""
    return ", ".join(f"{pvs} {name}" for name, pvs in verdict_counts(restore).items())


def restore_facts(restore: restore_pb2.Restore, *, utc: bool) -> Table:
    """All that is known of a restore beside its items."""
    pairs: list[tuple[str, Cell | str]] = [
        ("restore", restore.id),
        ("plan", restore.plan_id),
        ("snapshot", restore.snapshot_id),
        ("state", short_name(restore_pb2.RestoreState, restore.state)),
        (
            "by",
            f"{restore.actor.principal}, {_time_text(restore.create_time, utc)}",
        ),
    ]
    if restore.HasField("start_time") and restore.HasField("end_time"):
        took = restore.end_time.ToNanoseconds() - restore.start_time.ToNanoseconds()
        pairs.append(("took", format_span(took)))
    for name, pvs in verdict_counts(restore).items():
        pairs.append((f"  {name}", Cell(plural(pvs, "PV"), _VERDICT_STYLE.get(name, "red"))))
    if restore.may_still_fire:
        held = f"{plural(restore.may_still_fire, 'PV')}, held until their IOCs answer"
        pairs.append(("may still be written", Cell(held, "bold red")))
    if restore.HasField("error"):
        pairs.append(("error", Cell(restore.error.message, "bold red")))
    if restore.comment:
        pairs.append(("comment", restore.comment))
    return facts(pairs)


def restore_verdict(restore: restore_pb2.Restore) -> Cell:
    """One line that says how it went. Only what was verified is called done."""
    counts = verdict_counts(restore)
    total = sum(counts.values())
    if restore.all_verified:
        equal = counts.get("equal-already", 0) + counts.get("skipped", 0)
        return Cell(
            f"all verified: {plural(counts.get('verified', 0), 'PV')} written and read back,"
            f" {format_count(equal)} equal already",
            "bold green",
        )
    short = sum(pvs for name, pvs in counts.items() if name not in _DONE)
    return Cell(
        f"NOT all verified: {format_count(short)} of {plural(total, 'PV')} are not", "bold red"
    )


def restore_items_table(items: Iterable[restore_pb2.RestoreItem]) -> Table:
    """One line a PV of a restore."""
    table = Table(
        (
            Column("PV"),
            Column("verdict"),
            Column("before", right=True),
            Column("target", right=True),
            Column("seen", right=True),
            Column("readback", right=True),
            Column("note", fold=True),
        )
    )
    for item in items:
        verdict = short_name(restore_pb2.Verdict, item.verdict)
        notes = [short_name(restore_pb2.SkipReason, item.skip), item.epics_status]
        notes.append(item.explanation)
        table.add(
            item.name,
            Cell(verdict, _VERDICT_STYLE.get(verdict, "red")),
            *(
                value_cell(getattr(item, name) if item.HasField(name) else None)
                for name in ("before", "target", "seen", "readback")
            ),
            "; ".join(note for note in notes if note),
        )
    return table
