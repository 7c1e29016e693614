"""Writes: announced in the journal, sent, and withdrawn where nobody answered."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from drey_core.errors import DeadlineExceeded, DreyError
from drey_core.values import I8
from drey_restore.domain.execution import NOT_SENT
from drey_restore.domain.items import I4
from drey_restore.domain.kinds import RestoreState, Verdict
from drey_restore.usecases.course import Course, through_outage
from drey_restore.usecases.ending import unanswered_of
from drey_runtime.database import is_unavailable

_WAIT_FOR_CHUNK_S = 0.25
"""A chunk that takes longer goes on beside the next one: a slow device holds up no other."""


class Writer:
    """Nothing is sent before it stands in the journal; nothing that stands there is sent again."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._items, self._execution = course.items, course.execution
        self._channels, self._limits = course.channels, course.limits
        self._restore = course.restore
        self._batch = 0

    async def run(self) -> None:
        """Announce and send chunk by chunk; all share one deadline."""
        order = self._items.writes
        order = order[self._execution.verdict[order] == Verdict.PENDING]
        if len(order) == 0:
            return
        deadline = time.monotonic() + self._restore.write_timeout_ns / 1e9
        await self._course.advance(RestoreState.WRITING)
        running: set[asyncio.Task[None]] = set()
        try:
            for at in range(0, len(order), self._limits.chunk):
                if self._course.is_stopping() or time.monotonic() >= deadline:
                    break
                rows = order[at : at + self._limits.chunk]
                if not await self._announce(rows):
                    break
                task = asyncio.create_task(self._send(self._batch, rows, deadline))
                running.add(task)
                await asyncio.wait({task}, timeout=_WAIT_FOR_CHUNK_S)
                if task.done():
                    task.result()
                await self._course.note_counts()
            if running:
                await asyncio.gather(*running)
        finally:
            await _cancel(running)

    async def _announce(self, rows: I8) -> bool:
        """Make the intent durable; False where it cannot be: then nothing more is sent."""
        self._batch += 1
        at = self._course.clock()
        try:
            allowed = await self._course.store.journal_intent(
                *(self._restore.id, self._course.context.job, self._batch),
                *(rows, self._items.number[rows], at),
            )
        except DreyError as error:
            if not is_unavailable(error):
                raise
            self._course.cut_short = error
            return False
        if not allowed:
            self._course.stop()
        if self._course.is_stopping():
            # announced and not sent: the outcome says so, the journal alone would not know
            return False
        if self._batch == 1 and self._course.clock() > self._restore.start_by_ns:
            self._course.cut_short = DeadlineExceeded(
                "the start deadline was over before the first write"
            )
            return False
        self._execution.intend(rows, at)
        return True

    async def _send(self, batch: int, rows: I8, deadline: float) -> None:
        """Send what is announced. JobLost, and nothing is sent, where the lease may be over."""
        self._course.context.check_lease()
        timeout = deadline - time.monotonic()
        if timeout > 0:
            codes: I4 = await self._channels.table.write(
                self._course.slots(rows),
                self._items.target.take(rows),
                timeout,
                completion=True,
            )
        else:
            codes = np.full(len(rows), NOT_SENT, np.int32)
        at = self._course.clock()
        self._execution.result(rows, codes, at)
        await through_outage(
            lambda: self._course.store.journal_result(self._restore.id, batch, codes, at)
        )

    async def withdraw(self) -> None:
        """See to it that nothing takes place after the end, or know what may.

        Channels whose write was not answered are closed and opened again: the IOC drops what waits
        on them, and a new channel that is connected says that it has. Writes of those that are not
        may still take place, and hold their channels.
        """
        rows = self._execution.unanswered
        if len(rows) == 0:
            return
        table = self._channels.table
        rows = rows[table.unanswered(self._course.slots(rows))]
        circuits = table.info(self._course.slots(rows)).host
        await self._channels.renew(self._course.addresses(rows))
        up = await table.wait_connected(self._course.slots(rows), self._limits.connect_s)
        by_row = dict(zip(rows.tolist(), circuits, strict=True))
        self._course.unanswered = unanswered_of(self._items, self._execution, rows[~up], by_row)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel, and wait until they have stopped; what they raise is known by then, or is moot."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
