"""Writes of ended restores that may still take place: nobody writes their channels before that."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import UTC, datetime

from drey_core.errors import FailedPrecondition, Reason
from drey_restore.domain.items import PlanItems
from drey_restore.domain.records import HeldWrite


def fields_of(items: PlanItems) -> set[str]:
    """The fields that a plan writes, each once whatever its names are."""
    addresses = [items.addresses[row] for row in items.writes.tolist()]
    if not items.records and not any(mark in "".join(addresses) for mark in ".$"):
        return set(addresses)  # none of them can be another name of one
    return {items.field_written(row) for row in items.writes.tolist()}


def first_writing(items: PlanItems, fields: Container[str]) -> str:
    """Name of the first PV of a plan, in the order of writing, that writes one of `fields`."""
    rows = items.writes.tolist()
    name: str = next(items.names[row] for row in rows if items.field_written(row) in fields)
    return name


def refuse_held(held: Sequence[HeldWrite], items: PlanItems) -> None:
    """CHANNELS_HELD where a write that may still take place goes to a field of the plan."""
    if not held:
        return
    wanted = fields_of(items)
    for write in held:
        if write.field in wanted:
            raise held_error(write, "which this plan writes too")


def held_error(write: HeldWrite, why: str) -> FailedPrecondition:
    """By name: which write, whose, since when, and what to do."""
    sent = datetime.fromtimestamp(write.sent_time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    where = f" ({write.circuit})" if write.circuit else ""
    return FailedPrecondition(
        f"restore {write.restore_id} of {write.principal} sent {write.name}, {why}, at {sent}; its"
        f" IOC{where} has not answered, so that the write may still take place. Nothing was"
        " written. Look at that IOC; the PV is let go as soon as it answers",
        reason=Reason.CHANNELS_HELD,
        metadata={
            "restore_id": write.restore_id,
            "held_by": write.principal,
            "pv": write.name,
            "may_still_fire": "true",
        },
    )
