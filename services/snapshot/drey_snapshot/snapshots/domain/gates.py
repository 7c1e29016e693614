"""The gates before a snapshot: is the image fresh, and does it cover what was asked?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import Directory
from drey_core.errors import FailedPrecondition, Reason
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS, Pages, mask_pages
from drey_core.values import I8, KIND_NONE, State
from drey_snapshot.snapshots.domain.records import ShardStamp

Mask = NDArray[np.bool_]
_SHOWN = 10
_FRESH_RETRY_S = 1.0
"""A monitor gives several signs of life within it, and a standby has taken over within a few."""


class MissingReason(IntEnum):
    """Why a channel is missing; the numbers of `drey.snapshot.v1.MissingReason`."""

    NONE = 0
    NEVER_CONNECTED = 1
    DISCONNECTED = 2
    NO_VALUE = 3
    UNSUPPORTED = 4
    NOT_SELECTED = 5


_OF_STATE = {
    State.NEVER_CONNECTED: MissingReason.NEVER_CONNECTED,
    State.DISCONNECTED: MissingReason.DISCONNECTED,
    State.UNSUPPORTED: MissingReason.UNSUPPORTED,
}


class MissingPv(NamedTuple):
    """A PV that is missing; NONE for a channel that is there, or that the PV has not."""

    number: int
    name: str
    required: bool
    setpoint: int
    readback: int


class CoverageRefusal(FailedPrecondition):
    """COVERAGE_TOO_SMALL with all that is missing, by number of the PV."""

    reason = Reason.COVERAGE_TOO_SMALL

    def __init__(
        self, message: str, missing: Sequence[MissingPv], metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, metadata=metadata)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class ShardPulse:
    """A shard's last sign of life; `known` is False where it never had an owner.

    The age is by this process's own clock, since it saw the sign change; -1 where it never did.
    """

    stamp: ShardStamp
    known: bool
    image_failing: bool

    def is_fresh(self, max_age_ns: int) -> bool:
        """Whether the image of the shard can be believed."""
        alive = self.known and not self.image_failing
        return alive and 0 <= self.stamp.age_ns <= max_age_ns


def require_fresh(pulses: Sequence[ShardPulse], max_age_ns: int) -> None:
    """Raise `FailedPrecondition` IMAGE_NOT_FRESH naming the shards that are not fresh."""
    stale = [p for p in pulses if not p.is_fresh(max_age_ns)]
    if not stale:
        return
    oldest = max((p.stamp.age_ns for p in stale if p.known), default=-1)
    shards = ",".join(str(p.stamp.shard) for p in stale)
    why = "; ".join(_pulse_reason(p) for p in stale[:_SHOWN])
    raise FailedPrecondition(
        f"the image is not fresh: {why}. Wait for the monitor, allow a greater max_age, or take "
        f"the snapshot by reading the channels",
        reason=Reason.IMAGE_NOT_FRESH,
        metadata={
            "shards": shards,
            "oldest_age_ms": str(oldest // 1_000_000) if oldest >= 0 else "never",
        },
        retry_after_s=_FRESH_RETRY_S,
    )


def _pulse_reason(pulse: ShardPulse) -> str:
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
        _good_channels(ok, pages, directory.setpoint_channel[rows])
        & _good_channels(ok, pages, directory.readback_channel[rows])
    )
    missing: I8 = rows[bad]
    return missing


def _good_channels(ok: Mask, pages: Pages, channels: I8) -> Mask:
    """Which channels are fine; a PV without such a channel (0) lacks nothing."""
    if len(pages) == 0:
        return np.equal(channels, 0)
    page_index = np.searchsorted(pages.numbers, channels >> PAGE_SHIFT)
    good: Mask = ok[np.minimum(page_index, len(pages) - 1), channels & PAGE_MASK]
    return np.equal(channels, 0) | good


def require_coverage(
    pages: Pages,
    directory: Directory,
    rows: I8,
    required: I8,
    allowed: int | None,
    why: str = "",
) -> None:
    """Raise `CoverageRefusal` where more of `rows` is missing than allowed, or one `required`.

    `rows` and `required` are rows of the directory, ascending; `pages` as `in_scope` gives them.
    `why` is said with it: which IOCs were not asked.
    """
    missing = missing_rows(pages, directory, rows)
    unselected = required[~np.isin(required, rows)]
    lacking = np.union1d(unselected, np.intersect1d(required, missing))
    if len(lacking):
        shown, limit = lacking, 0
        what = "PVs that are required are missing or outside the selection"
        remedy = "connect and select them, or take them off `gates.required`"
    elif allowed is not None and len(missing) > allowed:
        shown, limit = missing, allowed
        what = "PVs have no value or are disconnected"
        remedy = (
            "connect them, leave them out of the selection, or allow the gap"
            " (`gates.max_missing`, `gates.any_missing`), which is recorded by name"
        )
    else:
        return
    names = [directory.names[row] for row in shown[:_SHOWN].tolist()]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    raise CoverageRefusal(
        f"{len(shown)} {what}, {limit} may be: {', '.join(names)}{more}; to go on, {remedy}"
        + (f". {why}" if why else ""),
        _missing_pvs(pages, directory, np.union1d(missing, lacking), required, unselected),
        {"missing": str(len(shown)), "allowed": str(limit), "first_missing": names[0]},
    )


def _missing_pvs(
    pages: Pages, directory: Directory, rows: I8, required: I8, unselected: I8
) -> list[MissingPv]:
    outside = np.isin(rows, unselected)
    reasons = [
        _missing_reasons(pages, channels[rows], outside)
        for channels in (directory.setpoint_channel, directory.readback_channel)
    ]
    return [
        MissingPv(number, directory.names[row], is_required, setpoint, readback)
        for row, number, is_required, setpoint, readback in zip(
            rows.tolist(),
            directory.pv_number[rows].tolist(),
            np.isin(rows, required).tolist(),
            reasons[0],
            reasons[1],
            strict=True,
        )
    ]


def _missing_reasons(pages: Pages, channels: I8, outside: Mask) -> list[int]:
    """Why each channel is missing, 0 where it is not or where there is none (0)."""
    reasons = np.where(outside & (channels != 0), int(MissingReason.NOT_SELECTED), 0)
    asked = np.flatnonzero(~outside & (channels != 0))
    values = pages.columns_of_channels(channels[asked])
    of_state = np.zeros(256, np.int64)
    for state, reason in _OF_STATE.items():
        of_state[state] = reason
    why = of_state[values.state]
    why[(values.state == State.CONNECTED) & (values.kind == KIND_NONE)] = MissingReason.NO_VALUE
    reasons[asked] = why
    chosen: list[int] = reasons.tolist()
    return chosen
