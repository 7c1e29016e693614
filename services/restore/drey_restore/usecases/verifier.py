"""Reading back what was written, past any subscription."""

from __future__ import annotations

import asyncio
import time

import numpy as np
from numpy.typing import NDArray

from drey_core.compare import compare
from drey_core.values import I8, Kind
from drey_restore.domain.items import scatter
from drey_restore.domain.judging import SAME, readback_reached
from drey_restore.domain.kinds import RestoreState, Verdict
from drey_restore.usecases.course import Course, through_outage

_SETTLE_S = 0.5
"""How long a setpoint may take after its completion to show the target."""
_READ_AGAIN_S = 0.2


class Verifier:
    """Reads setpoints and readbacks until they are where they should be, or the time is over."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._items, self._execution = course.items, course.execution
        self._channels, self._limits = course.channels, course.limits
        self._restore = course.restore

    async def run(self) -> None:
        """Read setpoints and readbacks until they are where they should be, or the time is over."""
        self._execution.close()
        await through_outage(lambda: self._course.advance(RestoreState.VERIFYING))
        sent = self._items.writes
        sent = sent[self._execution.sent_time[sent] != 0]
        begun = time.monotonic()
        end = begun + (0 if self._course.is_stopping() else self._restore.verify_timeout_ns / 1e9)
        pending, passes = sent, 0
        at_target = np.zeros(len(self._items), bool)
        while True:
            passes += 1
            at_target[pending] = await self._look(pending)
            written = self._execution.verdict[pending] == Verdict.WRITTEN
            off = ~at_target[pending] & (time.monotonic() < min(end, begun + _SETTLE_S))
            pending = pending[written & (off | (self._course.reached[pending] == 0))]
            if len(pending) == 0 or self._course.is_stopping() or time.monotonic() >= end:
                break
            await asyncio.sleep(_READ_AGAIN_S)
        good = at_target[sent] & (self._course.reached[sent] != 0)
        open_rows = sent[~(good & (self._execution.verdict[sent] == Verdict.WRITTEN))]
        if len(open_rows):
            await self._look_for_movement(open_rows)
        if passes > 1 or len(open_rows):
            # what was at its target a while ago may have left it since
            at_target[sent] = await self._look(sent, readbacks=False)
        was_read = self._course.seen.kind[sent] != Kind.NONE
        self._execution.verify(sent, at_target[sent], was_read, self._course.reached[sent])

    async def _look_for_movement(self, rows: I8) -> None:
        """Whether the readbacks of what is not as it should be stand still."""
        rows = rows[self._course.with_readback[rows]]
        if len(rows) == 0:
            return
        earlier = self._course.readback.take(rows)
        await asyncio.sleep(_READ_AGAIN_S)
        await self._look(rows)
        later = self._course.readback.take(rows)
        known = (earlier.kind != Kind.NONE) & (later.kind != Kind.NONE)
        cls = compare(
            earlier,
            later,
            self._items.readback_absolute[rows],
            self._items.readback_relative[rows],
        ).cls
        self._course.moving[rows[known]] = ~np.isin(cls[known], SAME)

    async def _look(self, rows: I8, *, readbacks: bool = True) -> NDArray[np.bool_]:
        """Read `rows` past any subscription; which setpoints are at their targets."""
        items, table = self._items, self._channels.table
        with_readback = rows[self._course.with_readback[rows]] if readbacks else rows[:0]
        slots = np.concatenate(
            [self._course.slots(rows), self._course.readback_slots(with_readback)]
        )
        found = await table.read(slots, self._limits.read_s)
        setpoint, readback = (
            found.values.take(np.arange(len(rows))),
            found.values.take(np.arange(len(rows), len(slots))),
        )
        self._course.seen = scatter(self._course.seen, rows, setpoint)
        self._course.readback = scatter(self._course.readback, with_readback, readback)
        if len(with_readback):
            self._course.reached[with_readback] = readback_reached(
                compare(
                    items.stored_readback.take(with_readback),
                    readback,
                    items.readback_absolute[with_readback],
                    items.readback_relative[with_readback],
                ).cls
            )
        compared = compare(
            items.target.take(rows), setpoint, items.absolute[rows], items.relative[rows]
        )
        at_target: NDArray[np.bool_] = np.isin(compared.cls, SAME)
        return at_target
