"""Ramps: each step is announced, sent, completed, and seen, before the next one is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Protocol

import numpy as np

from drey_core.pv_table import CompletionMode
from drey_core.values import ARRAY, I8, Columns, Kind, as_float64
from drey_restore.domain.execution import ECA_NORMAL
from drey_restore.domain.items import F8, I4
from drey_restore.domain.judging import alarm_is_worse
from drey_restore.domain.ramping import (
    Climbing,
    expected_readback,
    step_columns,
    step_size,
    steps_passed,
)
from drey_restore.domain.settling import Mask, SettlingRows
from drey_restore.usecases.course import Course, through_outage
from drey_restore.usecases.looks import Looks, was_answered

_LOOK_EVERY_S = 0.1
_LEAST_TOLERANCE = 1e-6
"""Of the value: what a record of type FLOAT32 makes of it is no other value."""


class Sender(Protocol):
    """What a ramp needs of the writer."""

    async def may_send(self) -> bool:
        """Whether more may be sent; waits while it is paused."""
        ...

    async def announce(self, rows: I8, steps: I4 | None = None) -> int | None:
        """Number of the entry in the journal; None: nothing of it may be sent."""
        ...

    def send_targets(self, batch: int, rows: I8) -> asyncio.Task[None]:
        """Write the targets of announced rows."""
        ...

    async def done_channels_hold(self, rows: I8, looks: Looks) -> tuple[Mask, Mask]:
        """Whether the done channels of rows are at their values, and of which that is known."""
        ...


class Ramper:
    """Ramps of one stage and IOC, that complete in one way. Times in seconds."""

    def __init__(
        self,
        course: Course,
        sender: Sender,
        rows: I8,
        completion: CompletionMode,
        timeout_s: float,
        settle_s: float,
    ) -> None:
        self._course, self._sender, self._rows = course, sender, rows
        self._completion, self._timeout_s, self._settle_s = completion, timeout_s, settle_s
        self._items, self._execution = course.items, course.execution
        self._channels, self._limits = course.channels, course.limits
        self._begin = _numeric_values(course.at_start, rows)
        self._target = _numeric_values(self._items.target, rows)
        self._first_readback = np.full(len(rows), np.nan)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Returns when all are at their targets, have stopped, or nothing more may be sent."""
        try:
            await self._read_first_readbacks()
            climbing = self._climb_state()
            while self._goes_on(climbing):
                if not await self._sender.may_send():
                    break
                due = climbing.due_ramps(time.monotonic())[: self._limits.chunk]
                if len(due):
                    await self._go_on(climbing, due)
                    continue
                wake = climbing.next_due()
                left = None if wake is None else max(0.0, wake - time.monotonic())
                await self._course.wait_any(self._running, left)
            if self._running:
                await asyncio.wait(self._running)
            self._reap_answers()
        finally:
            for task in self._running:
                task.cancel()
            if self._running:
                await asyncio.wait(self._running)

    def _goes_on(self, climbing: Climbing) -> bool:
        self._reap_answers()
        return bool(climbing.open_ramps.any() or self._running)

    def _reap_answers(self) -> None:
        for task in [task for task in self._running if task.done()]:
            self._running.discard(task)
            task.result()

    def _climb_state(self) -> Climbing:
        """All ramps from where their setpoints are; those from which it would be a jump stop."""
        items, rows = self._items, self._rows.tolist()
        policies = [items.policies[int(items.policy_of[row])] for row in rows]
        steps = [items.ramps.get(row, ()) for row in rows]
        sent = self._execution.steps[self._rows]  # by the restore that this one continues
        slack = np.where(sent > 0, self._allowed_distance(self._rows, self._begin), 0.0)
        passed = [
            steps_passed(each, now, target, step_size(policy) or 0.0, done, off)
            for each, policy, now, target, done, off in zip(
                *(steps, policies, self._begin.tolist(), self._target.tolist()),
                *(sent.tolist(), slack.tolist()),
                strict=True,
            )
        ]
        climbing = Climbing(
            self._begin, steps, [each or 0 for each in passed], policies, time.monotonic()
        )
        self._stop_ramps(climbing, np.flatnonzero([each is None for each in passed]))
        return climbing

    def _stop_ramps(self, climbing: Climbing, ramps: I8) -> None:
        climbing.stop_ramps(ramps)
        self._execution.stop_ramps(self._rows[ramps])
        self._course.check_failures()

    async def _read_first_readbacks(self) -> None:
        """Where the readbacks are before the first step; NaN where there is none to follow."""
        there = np.flatnonzero(self._course.with_readback[self._rows])
        if len(there) == 0:
            return
        slots = self._course.readback_slots(self._rows[there])
        reading = await self._channels.table.read_values(slots, self._limits.read_s)
        self._first_readback[there] = _numeric_values(reading.values, np.arange(len(there)))

    async def _go_on(self, climbing: Climbing, due: I8) -> None:
        """Send the next step, or the target, of those that are where they were left."""
        rows = self._rows[due]
        reading = await self._channels.table.read_values(
            self._course.slots_of_rows(rows), self._limits.read_s
        )
        still = self._is_there(rows, climbing.value[due], reading.values)
        self._stop_ramps(climbing, due[~still])
        due = due[still]
        at_last = climbing.done[due]
        for ramps, is_target in ((due[~at_last], False), (due[at_last], True)):
            if len(ramps) == 0:
                continue
            steps = None if is_target else (climbing.index[ramps] + 1).astype(np.int32)
            batch = await self._sender.announce(self._rows[ramps], steps)
            if batch is None:
                return
            if steps is None:
                climbing.leave_ramps(ramps)
                self._running.add(self._sender.send_targets(batch, self._rows[ramps]))
            else:
                climbing.begin_step(ramps)
                step = self._send_step(batch, climbing, ramps, steps)
                self._running.add(asyncio.create_task(step))

    async def _send_step(self, batch: int, climbing: Climbing, ramps: I8, steps: I4) -> None:
        """Write one step of each of `ramps`, and wait until it is reached."""
        self._course.context.check_lease()
        rows, values, sent = self._rows[ramps], climbing.next_values(ramps), time.monotonic()
        columns = step_columns(values, self._items.target.kind[rows])
        self._course.watch.interference.expect_values(rows, columns)
        codes = await self._course.write_values(
            rows,
            columns,
            self._timeout_s,
            completion=self._completion == CompletionMode.PUT_CALLBACK,
        )
        now_ns = self._course.clock()
        self._execution.mark_result(rows, codes, now_ns, steps)
        self._course.check_failures()
        await through_outage(
            lambda: self._course.store.journal_result(self._course.restore.id, batch, codes, now_ns)
        )
        done = np.flatnonzero(codes == ECA_NORMAL)
        climbing.stop_ramps(ramps[codes != ECA_NORMAL])
        # one that was not answered has held up the others, whose time begins now
        until = (sent if len(done) == len(rows) else time.monotonic()) + self._timeout_s
        settling = SettlingRows(np.full(len(done), self._settle_s), np.full(len(done), until))
        async with AsyncExitStack() as stack:
            table, read_s = self._channels.table, self._limits.read_s
            looks = [await stack.enter_async_context(Looks(table, read_s)) for _ in range(3)]
            while len(settling.waiting_rows):
                look = done[settling.waiting_rows]
                followed, known = await self._has_followed(
                    ramps[look], values[look], climbing.value[ramps[look]], looks
                )
                settling.note_readbacks(followed, time.monotonic(), known=known)
                if self._course.is_stopping():
                    return  # the end says where each stands
                if len(settling.waiting_rows):
                    await self._course.wait_any((), _LOOK_EVERY_S)
        climbing.arrive_at_step(ramps[done], settling.settled, sent)
        self._execution.stop_ramps(rows[done[settling.late]])
        self._course.check_failures()

    async def _has_followed(
        self, ramps: I8, values: F8, earlier: F8, looks: Sequence[Looks]
    ) -> tuple[Mask, Mask]:
        """Whether setpoints, readbacks and done channels are where a step leads to.

        And of which ramps that is known.
        """
        rows = self._rows[ramps]
        of_setpoints, of_readbacks, of_done = looks
        reading = await of_setpoints.read_slots(self._course.slots_of_rows(rows))
        followed, known = self._is_there(rows, values, reading.values), was_answered(reading)
        if self._completion == CompletionMode.DONE_CHANNEL:
            done, answered = await self._sender.done_channels_hold(rows, of_done)
            followed, known = followed & done, known & answered
        last = _numeric_values(self._items.stored_readback, rows)
        first = self._first_readback[ramps]
        have_readback = np.flatnonzero(~np.isnan(first) & ~np.isnan(last))
        if len(have_readback) == 0:
            return followed, known
        reading = await of_readbacks.read_slots(self._course.readback_slots(rows[have_readback]))
        known[have_readback] &= was_answered(reading)
        seen = _numeric_values(reading.values, np.arange(len(have_readback)))
        expected, before = (
            expected_readback(
                first[have_readback],
                last[have_readback],
                self._begin[ramps[have_readback]],
                self._target[ramps[have_readback]],
                value[have_readback],
            )
            for value in (values, earlier)
        )
        items = self._items
        allowed = items.readback_absolute[rows[have_readback]] + items.readback_relative[
            rows[have_readback]
        ] * np.abs(expected)
        # a device that does not go straight is followed too, as long as it goes
        allowed = np.maximum(allowed, np.abs(expected - before) / 2)
        followed[have_readback] &= np.abs(seen - expected) <= allowed
        return followed, known

    def _is_there(self, rows: I8, values: F8, seen: Columns) -> Mask:
        """Whether setpoints are at values, with an alarm that is allowed."""
        numbers = _numeric_values(seen, np.arange(len(rows)))
        allowed = self._allowed_distance(rows, values)
        stored = self._items.stored.severity[rows]
        severity = np.maximum(stored, self._course.at_start.severity[rows])
        there: Mask = (np.abs(numbers - values) <= allowed) & ~alarm_is_worse(seen, severity)
        return there

    def _allowed_distance(self, rows: I8, values: F8) -> F8:
        """How far setpoints may be off values at which they are said to be."""
        allowed = self._items.absolute[rows] + self._items.relative[rows] * np.abs(values)
        return np.maximum(allowed, np.abs(values) * _LEAST_TOLERANCE)


def _numeric_values(columns: Columns, rows: I8) -> F8:
    """Values of rows; NaN where one is no single number."""
    kind = columns.kind[rows]
    numbers: F8 = as_float64(kind, columns.data[rows]).astype(np.float64)
    texts = (kind == Kind.NONE) | (kind == Kind.STRING) | (kind & np.uint8(ARRAY) != 0)
    return np.where(texts, np.nan, numbers)
