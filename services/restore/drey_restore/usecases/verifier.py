"""Reading back what was written, and what was equal already, past any subscription."""

from __future__ import annotations

import asyncio
import time

import numpy as np
from numpy.typing import NDArray

from drey_core.compare import compare
from drey_core.values import I8, Columns, Kind
from drey_restore.domain.items import scatter_rows
from drey_restore.domain.judging import SAME, alarm_is_worse, readback_reached
from drey_restore.domain.kinds import RestoreState, Skip, Verdict
from drey_restore.usecases.course import Course, read_readbacks, through_outage

_SETTLE_S = 0.5
"""How long a setpoint may take after its completion to show the target."""
_READ_AGAIN_S = 0.2

Mask = NDArray[np.bool_]


class Verifier:
    """Reads setpoints and readbacks until they are where they should be, or the time is over."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._items, self._execution = course.items, course.execution
        self._channels, self._limits = course.channels, course.limits
        n = len(course.items)
        self._at_target, self._alarmed = np.zeros(n, bool), np.zeros(n, bool)

    async def run(self) -> None:
        """At the end: all that was sent, and all that was equal when the plan was made."""
        self._execution.close_books()
        await through_outage(lambda: self._course.advance_state(RestoreState.VERIFYING))
        sent = self._items.writes
        sent = sent[self._execution.sent_time[sent] != 0]
        await self.judge_readbacks(sent)
        await self._check_equal()
        # what somebody has changed since it was read is not said to be verified
        watch = self._course.watch
        watch.take_changes()
        left = np.intersect1d(sent, watch.interference.rows_off)
        left = left[self._execution.verdict[left] == Verdict.VERIFIED]
        if len(left):
            await self.judge_readbacks(left)

    async def judge_readbacks(self, sent: I8) -> None:
        """Give rows that were sent and accepted their verdicts."""
        reached, accepted = self._course.reached, self._execution.accepted_rows(sent)
        begun = time.monotonic()
        wait_s = self._course.restore.verify_timeout_ns / 1e9
        end = begun + (0 if self._course.is_stopping() else wait_s)
        pending, passes = sent, 0
        while True:
            passes += 1
            await self._read_rows(pending)
            if self._course.is_stopping() or time.monotonic() >= end:
                break
            off = ~self._is_good(pending) & (time.monotonic() < min(end, begun + _SETTLE_S))
            pending = pending[np.isin(pending, accepted) & (off | (reached[pending] == 0))]
            if len(pending) == 0:
                break
            await self._course.wait_any((), _READ_AGAIN_S)
        good = self._is_good(sent) & (reached[sent] != 0)
        open_rows = sent[~(good & np.isin(sent, accepted))]
        if len(open_rows):
            await self._look_for_movement(open_rows)
        if passes > 1 or len(open_rows):
            # what was at its target a while ago may have left it since
            await self._read_rows(sent, readbacks=False)
        was_read = self._course.seen.kind[sent] != Kind.NONE
        self._execution.verify_rows(
            sent, self._at_target[sent], was_read, reached[sent], self._alarmed[sent]
        )

    def _is_good(self, rows: I8) -> Mask:
        good: Mask = self._at_target[rows] & ~self._alarmed[rows]
        return good

    async def _check_equal(self) -> None:
        """Look once at what was equal when the plan was made: nothing was sent to it."""
        items = self._items
        rows = np.flatnonzero(items.skip == Skip.EQUAL)
        if len(rows) == 0:
            return
        seen = await self._read_setpoints(rows)
        equal = np.zeros(len(rows), bool)
        for reference in (items.stored, items.current):
            result = compare(
                reference.take_rows(rows), seen, items.absolute[rows], items.relative[rows]
            )
            equal |= np.isin(result.cls, SAME)
        allowed = np.maximum(items.stored.severity[rows], items.current.severity[rows])
        self._execution.check_equal(rows, equal & ~alarm_is_worse(seen, allowed))

    async def _look_for_movement(self, rows: I8) -> None:
        """Whether the readbacks of what is not as it should be stand still."""
        rows = rows[self._course.with_readback[rows]]
        if len(rows) == 0:
            return
        earlier = self._course.readback.take_rows(rows)
        await asyncio.sleep(_READ_AGAIN_S)
        await self._read_rows(rows)
        later = self._course.readback.take_rows(rows)
        have_values = (earlier.kind != Kind.NONE) & (later.kind != Kind.NONE)
        items = self._items
        cls = compare(
            earlier, later, items.readback_absolute[rows], items.readback_relative[rows]
        ).cls
        self._course.moving[rows[have_values]] = ~np.isin(cls[have_values], SAME)

    async def _read_rows(self, rows: I8, *, readbacks: bool = True) -> None:
        """Read `rows`, and whether each is at its target, with an alarm that is allowed."""
        items = self._items
        with_readback = rows[self._course.with_readback[rows]] if readbacks else rows[:0]
        setpoint = await self._read_setpoints(rows)
        if len(with_readback):
            cls = await read_readbacks(self._course, with_readback)
            self._course.reached[with_readback] = readback_reached(cls)
        compared = compare(
            items.target.take_rows(rows), setpoint, items.absolute[rows], items.relative[rows]
        )
        self._at_target[rows] = np.isin(compared.cls, SAME)
        self._alarmed[rows] = alarm_is_worse(setpoint, items.stored.severity[rows])

    async def _read_setpoints(self, rows: I8) -> Columns:
        reading = await self._channels.table.read_values(
            self._course.slots_of_rows(rows), self._limits.read_s
        )
        self._course.seen = scatter_rows(self._course.seen, rows, reading.values)
        return reading.values
