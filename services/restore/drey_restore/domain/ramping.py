"""Ramps: the values on the way to a target, and where each of several ramps stands.

A policy's `ramp_step` bounds a change, and its `ramp_rate` how soon the next may follow. The values
are planned; a ramp that cannot go on from where it is stops, and never jumps to its target.
"""

from __future__ import annotations

from math import ceil, floor, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.pv_table import Policy
from drey_core.values import I8, U1, Columns, Kind
from drey_restore.domain.items import F8
from drey_restore.domain.policy import MAX_STEPS

Mask = NDArray[np.bool_]
Steps = tuple[float, ...]
STEP_S = 1.0
"""With a rate alone, a step is what it allows in this time."""
_SLACK = 1e-9
"""What floats add to an even division is no step of its own."""


def step_size(policy: Policy) -> float | None:
    """The largest change that a policy allows at a time; None: it asks for no ramp."""
    sizes = [policy.ramp_step, None if policy.ramp_rate is None else policy.ramp_rate * STEP_S]
    return min((size for size in sizes if size is not None), default=None)


def steps_between(now: float, target: float, size: float, *, whole: bool = False) -> Steps | None:
    """Values to be written before the target, evenly, none more than `size` from the one before.

    `whole`: only whole numbers can be written. None where there would be too many, or one of the
    numbers is none.
    """
    size = floor(size * (1 + _SLACK)) if whole else size
    distance = target - now
    if not isfinite(distance) or size <= 0 or abs(distance) > size * MAX_STEPS:
        return None
    count = ceil(abs(distance) / size * (1 - _SLACK))
    steps = (now + distance * index / count for index in range(1, count))
    return tuple(float(round(step)) for step in steps) if whole else tuple(steps)


def steps_passed(
    steps: Steps, now: float, target: float, size: float, sent: int = 0, tolerance: float = 0.0
) -> int | None:
    """How many of the planned steps lie behind `now`.

    The first `sent` were sent before, and `now` may be off the last of them by `tolerance`: none
    of them is sent again. None where the next of them, or the target, is further away than one
    step: the machine has moved since the plan, and no ramp falls through to a jump.
    """
    low, high = min(now, target), max(now, target)
    passed = next((i for i, step in enumerate(steps) if low < step < high), len(steps))
    passed = max(passed, sent)
    following = steps[passed] if passed < len(steps) else target
    return passed if abs(following - now) <= size * (1 + _SLACK) + tolerance else None


class Climbing:
    """n ramps. Times in seconds of one clock that never goes back; arrays have n entries.

    A ramp writes its steps one after the other: `due` ones may write the next, `begin` says that
    it is written, `arrive` that it is reached, after which the rate lets the following wait. It is
    `done` once all steps are reached, and from then on the target may be written when it is due.
    `stop` ends it for good. `value` is where each stands, by what it wrote and reached last.
    """

    def __init__(
        self, value: F8, steps: list[Steps], passed: list[int], policies: list[Policy], now: float
    ) -> None:
        n = len(value)
        self.value = value.copy()
        self.index = np.array(passed, np.int64)
        self._steps = steps
        self._size = np.array([len(each) for each in steps], np.int64)
        rates = [policy.ramp_rate for policy in policies]
        self._rate = np.array([np.inf if rate is None else rate for rate in rates], np.float64)
        self._due = np.full(n, now)
        self._under_way = np.zeros(n, bool)
        self.stopped = np.zeros(n, bool)
        self.left = np.zeros(n, bool)
        """Those whose target somebody has taken on."""

    @property
    def open_ramps(self) -> Mask:
        """Those that have not stopped, and whose target was not taken."""
        mask: Mask = ~self.stopped & ~self.left
        return mask

    @property
    def done(self) -> Mask:
        """Those that stand at their last step."""
        mask: Mask = ~self.stopped & ~self._under_way & (self.index == self._size)
        return mask

    def due_ramps(self, now: float) -> I8:
        """Those that may write their next value, be it a step or the target."""
        return np.flatnonzero(self.open_ramps & ~self._under_way & (self._due <= now))

    def next_due(self) -> float | None:
        """When the next of them may go on; None: all that are open wait for something else."""
        waiting = self.open_ramps & ~self._under_way
        return float(self._due[waiting].min()) if waiting.any() else None

    def next_values(self, ramps: I8) -> F8:
        """The next step of each of `ramps`, none of which is done."""
        values = [self._steps[r][i] for r, i in zip(ramps, self.index[ramps], strict=True)]
        return np.array(values, np.float64)

    def begin_step(self, ramps: I8) -> None:
        """Their next steps are about to be written."""
        self._under_way[ramps] = True

    def arrive_at_step(self, ramps: I8, reached: Mask, sent: float) -> None:
        """Whether each of `ramps` reached the step that was written at `sent`; else it stops."""
        stopped = ramps[~reached]
        ramps = ramps[reached]
        values = self.next_values(ramps)
        self._due[ramps] = sent + np.abs(values - self.value[ramps]) / self._rate[ramps]
        self.value[ramps] = values
        self.index[ramps] += 1
        self._under_way[ramps] = False
        self.stop_ramps(stopped)

    def stop_ramps(self, ramps: I8) -> None:
        """They go no further."""
        self.stopped[ramps] = True
        self._under_way[ramps] = False

    def leave_ramps(self, ramps: I8) -> None:
        """Somebody writes their targets now."""
        self.left[ramps] = True


def step_columns(values: F8, kinds: U1) -> Columns:
    """Values of ramps in the types of their channels."""
    exact: list[Any] = [
        value if kind in (Kind.FLOAT32, Kind.FLOAT64) else round(value)
        for value, kind in zip(values.tolist(), kinds.tolist(), strict=True)
    ]
    return Columns.from_values(np.zeros(len(values), np.int64), exact, kinds.tolist())


def expected_readback(first: F8, last: F8, begin: F8, target: F8, step: F8) -> F8:
    """Where readbacks are to be when their setpoints are at `step` on the way to `target`.

    A readback goes from `first` to `last` while its setpoint goes from `begin` to `target`.
    """
    way = target - begin
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(way == 0, 1.0, (step - begin) / way)
    expected: F8 = first + (last - first) * part
    return expected
