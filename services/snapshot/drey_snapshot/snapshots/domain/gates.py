"""The gates before a snapshot: is the image fresh, and does it cover what was asked?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import Directory
from drey_core.errors import FailedPrecondition, NotFound, Reason
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS, Pages, mask_pages
from drey_core.values import I8, KIND_NONE, State
from drey_snapshot.snapshots.domain.records import ShardStamp

Mask = NDArray[np.bool_]
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Pulse:
    """A shard's last sign of life; `known` is False where it never had an owner.

    The age is by this process's own clock, since it saw the sign change; -1 where it never did.
    """

    stamp: ShardStamp
    known: bool
    image_failing: bool

    def fresh(self, max_age_ns: int) -> bool:
        """Whether the image of the shard can be believed."""
        alive = self.known and not self.image_failing
        return alive and 0 <= self.stamp.age_ns <= max_age_ns


def require_fresh(pulses: Sequence[Pulse], max_age_ns: int) -> None:
    """Raise `FailedPrecondition` IMAGE_NOT_FRESH naming the shards that are not fresh."""
    stale = [p for p in pulses if not p.fresh(max_age_ns)]
    if not stale:
        return
    oldest = max((p.stamp.age_ns for p in stale if p.known), default=-1)
    shards = ",".join(str(p.stamp.shard) for p in stale)
    why = "; ".join(_why(p) for p in stale[:_SHOWN])
    raise FailedPrecondition(
        f"the image is not fresh: {why}. Wait for the monitor, allow a greater max_age, or take "
        f"the snapshot by reading the channels",
        reason=Reason.IMAGE_NOT_FRESH,
        metadata={
            "shards": shards,
            "oldest_age_ms": str(oldest // 1_000_000) if oldest >= 0 else "never",
        },
    )


def _why(pulse: Pulse) -> str:
    shard = pulse.stamp.shard
    if not pulse.known:
        return f"shard {shard} has no monitor"
    if pulse.image_failing:
        return f"the monitor of shard {shard} cannot write the image"
    if pulse.stamp.age_ns < 0:
        return f"the monitor of shard {shard} gave no sign of life since this service looks for it"
    return f"the monitor of shard {shard} was last heard of {pulse.stamp.age_ns / 1e9:.1f} s ago"


def slots_of(page_numbers: I8, channels: I8) -> Mask:
    """Which slots of pages (ascending) are those of channels; shape (pages, 256)."""
    mask = np.zeros((len(page_numbers), PAGE_SLOTS), bool)
    mask[np.searchsorted(page_numbers, channels >> PAGE_SHIFT), channels & PAGE_MASK] = True
    return mask


def in_scope(pages: Pages, channels: I8, mask: Mask | None = None) -> Pages:
    """The pages with what is outside `channels` absent, and what is inside at least not absent.

    A channel of the scope that the image knows nothing of was never connected. `pages` must be
    writable and is changed, or a copy of it is. `mask`: their `slots_of`, where it is known.
    """
    if mask is None:
        mask = slots_of(pages.numbers, channels)
    if ((pages.values["state"] != State.ABSENT) & ~mask).any():
        pages = mask_pages(pages, channels)
    state = pages.values["state"]
    state[mask & (state == State.ABSENT)] = State.NEVER_CONNECTED
    return pages


def missing_rows(pages: Pages, directory: Directory, rows: I8) -> I8:
    """Those of `rows` with a channel that has no value or is not connected.

    `pages` are as `in_scope` gives them.
    """
    ok: Mask = (pages.values["state"] == State.CONNECTED) & (pages.values["kind"] != KIND_NONE)
    if (ok == (pages.values["state"] != State.ABSENT)).all():
        return rows[:0]  # the ordinary case, told without looking at a single PV
    bad = ~(
        _good(ok, pages, directory.setpoint_channel[rows])
        & _good(ok, pages, directory.readback_channel[rows])
    )
    missing: I8 = rows[bad]
    return missing


def _good(ok: Mask, pages: Pages, channels: I8) -> Mask:
    """Which channels are fine; a PV without such a channel (0) lacks nothing."""
    if len(pages) == 0:
        return np.equal(channels, 0)
    at = np.searchsorted(pages.numbers, channels >> PAGE_SHIFT)
    found: Mask = ok[np.minimum(at, len(pages) - 1), channels & PAGE_MASK]
    return np.equal(channels, 0) | found


def require_coverage(directory: Directory, missing: I8, allowed: int | None) -> None:
    """Raise `FailedPrecondition` COVERAGE_TOO_SMALL where more is missing than allowed."""
    if allowed is None or len(missing) <= allowed:
        return
    raise _too_small(
        directory,
        missing,
        allowed,
        "PVs have no value or are disconnected",
        "to go on, connect them, leave them out of the selection, or allow the gap"
        " (`gates.max_missing`, `gates.allow_any_missing`), which is recorded by name",
    )


def require_names(
    directory: Directory, wanted: I8, unknown: Sequence[str], scope: I8, missing: I8
) -> None:
    """Refuse where a PV that must be there is unknown, outside the scope, or missing."""
    if unknown:
        raise NotFound(
            "gates.required_names: nothing in the catalog is called " + ", ".join(unknown[:_SHOWN]),
            field="gates.required_names",
            metadata={"resource": "pv", "id": unknown[0]},
        )
    lacking = wanted[~np.isin(wanted, scope) | np.isin(wanted, missing)]
    if len(lacking):
        raise _too_small(
            directory,
            lacking,
            0,
            "PVs that are required are missing or outside the selection",
            "to go on, connect and select them, or take them off `gates.required_names`",
        )


def _too_small(
    directory: Directory, rows: I8, allowed: int, what: str, remedy: str
) -> FailedPrecondition:
    names = [directory.names[row] for row in rows[:_SHOWN].tolist()]
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return FailedPrecondition(
        f"{len(rows)} {what}, {allowed} may be: {', '.join(names)}{more}; {remedy}",
        reason=Reason.COVERAGE_TOO_SMALL,
        metadata={
            "missing": str(len(rows)),
            "allowed": str(allowed),
            "first_missing": names[0],
        },
    )
