"""Writes: announced in the journal, sent, waited for, and withdrawn where nobody answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from drey_core.errors import DeadlineExceeded, DreyError
from drey_core.pv_table import CompletionMode
from drey_core.values import I8, as_float64
from drey_restore.adapters.store import Permission
from drey_restore.domain.execution import ECA_NORMAL, ECA_TIMEOUT, NOT_SENT
from drey_restore.domain.items import I4
from drey_restore.domain.judging import readback_reached
from drey_restore.domain.kinds import Verdict
from drey_restore.domain.lanes import next_rows
from drey_restore.domain.ramping import step_size
from drey_restore.domain.settling import Mask, SettlingRows
from drey_restore.usecases.course import Course, note_readbacks, through_outage
from drey_restore.usecases.ending import unanswered_of
from drey_restore.usecases.looks import Looks, was_answered
from drey_restore.usecases.ramper import Ramper
from drey_runtime.database import is_unavailable

_WAIT_FOR_BATCH_S = 0.25
"""A batch that takes longer goes on beside the next one: a slow device holds up no other."""
_LOOK_EVERY_S = 0.1
_GRACE_S = 2.0
"""How long what is in flight may still take once somebody wants it to stop."""


@dataclass(frozen=True)
class _Manner:
    """How writes are sent and completed: those of one manner share batches. Times in seconds."""

    completion: CompletionMode
    timeout_s: float | None
    settle_s: float
    ramped: bool

    @property
    def is_polled(self) -> bool:
        """Whether something is looked at until the write is complete."""
        return self.completion in (CompletionMode.READBACK, CompletionMode.DONE_CHANNEL)


class SetpointWriter:
    """Nothing is sent before it stands in the journal; nothing that stands there is sent again."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._items, self._execution = course.items, course.execution
        self._channels, self._limits = course.channels, course.limits
        self._restore = course.restore
        self._batch = 0
        self._announcing = asyncio.Lock()
        self._running: dict[asyncio.Task[None], I8] = {}

    async def write_stage(self, rows: I8) -> None:
        """Send the rows of one stage, limits and modes before values.

        Returns when all are complete, late, or nobody waits.
        """
        rows = rows[self._execution.verdict[rows] == Verdict.PENDING]
        deadline = _Deadline(self._restore.write_timeout_ns / 1e9)
        try:
            is_value = self._items.is_value[rows]
            for step in (rows[~is_value], rows[is_value]):
                for manner, part in self._by_manner(step):
                    if manner.ramped:
                        for ramps in self._by_ioc(part):
                            self._running[asyncio.create_task(self._run_ramps(manner, ramps))] = (
                                ramps
                            )
                    elif not await self._send_all(manner, part, deadline):
                        break
                await self._wait_for_rest()
        finally:
            await self._cancel_rest()

    def _by_manner(self, rows: I8) -> Iterator[tuple[_Manner, I8]]:
        """Rows in order, those first that take their time."""
        manners = [
            _Manner(
                policy.completion,
                policy.timeout_s,
                policy.settle_s or 0.0,
                ramped=step_size(policy) is not None,
            )
            for policy in self._items.policies
        ]
        code_of = {manner: code for code, manner in enumerate(dict.fromkeys(manners))}
        codes = np.array([code_of[manner] for manner in manners], np.int64)[
            self._items.policy_of[rows]
        ]
        for manner in sorted(code_of, key=lambda each: not (each.is_polled or each.ramped)):
            part = rows[codes == code_of[manner]]
            if len(part):
                yield manner, part

    async def _send_all(self, manner: _Manner, rows: I8, deadline: _Deadline) -> bool:
        """False where nothing more may be sent, of other manners neither."""
        lanes = self._server_lanes(rows)
        while len(rows):
            if not await self._may_go_on(deadline):
                return False
            batch = next_rows(
                lanes,
                self._slow_lanes(rows, lanes),
                batch=self._limits.chunk,
                per_lane=self._limits.per_ioc,
            )
            if len(batch) == 0:
                await self._course.wait_any(self._running, deadline.left_s)
                self._reap_answers()
                continue
            taken, rest = rows[batch], np.ones(len(rows), bool)
            rest[batch] = False
            if await self._course.stop_at_relabelled(taken):
                return False
            number = await self._announce_rows(taken)
            if number is None:
                if self._course.cut_short or self._course.is_stopping():
                    return False
                continue  # it is to pause
            rows, lanes = rows[rest], lanes[rest]
            await self._begin_batch(number, manner, taken, deadline)
            await self._course.note_counts()
        return True

    def _server_lanes(self, rows: I8) -> I8:
        """A number for each of rows, the same for those of one IOC."""
        hosts = self._channels.table.read_info(self._course.slots_of_rows(rows)).host
        lanes: I8 = np.unique(hosts, return_inverse=True)[1]
        return lanes

    def _by_ioc(self, rows: I8) -> Iterator[I8]:
        """Rows of one IOC after those of another: each waits for its own devices alone."""
        lanes = self._server_lanes(rows)
        order = np.argsort(lanes, kind="stable")
        yield from np.split(rows[order], np.flatnonzero(np.diff(lanes[order])) + 1)

    async def _may_go_on(self, deadline: _Deadline | None) -> bool:
        if self._course.is_pausing():
            held_s = await self._course.wait_while_paused()
            if deadline is not None:
                deadline.move_by(held_s)
        if self._course.is_stopping() or self._course.cut_short is not None:
            return False
        return deadline is None or deadline.left_s > 0

    async def _run_ramps(self, manner: _Manner, rows: I8) -> None:
        """Ramps take the time that their policies give: each step, and the target, has its own."""
        timeout_s = manner.timeout_s or self._restore.write_timeout_ns / 1e9
        await Ramper(
            self._course,
            _RampSender(self, manner, timeout_s),
            rows,
            manner.completion,
            timeout_s,
            manner.settle_s,
        ).run()

    def _slow_lanes(self, rows: I8, lanes: I8) -> I8:
        """Lanes of `rows` to whose IOC as many batches are on their way as may be."""
        if not self._running:
            return lanes[:0]
        hosts = self._channels.table.read_info(self._course.slots_of_rows(rows)).host
        lane_of = dict(zip(hosts, lanes.tolist(), strict=True))
        counts: dict[int, int] = {}
        for sent in self._running.values():
            for host in set(self._channels.table.read_info(self._course.slots_of_rows(sent)).host):
                if host in lane_of:
                    counts[lane_of[host]] = counts.get(lane_of[host], 0) + 1
        return np.array([n for n, c in counts.items() if c >= self._limits.batches_per_ioc], int)

    async def _begin_batch(
        self, number: int, manner: _Manner, rows: I8, deadline: _Deadline
    ) -> None:
        """Send what is announced; on from there beside the next where it takes long."""
        handed_over = asyncio.Event()
        task = asyncio.create_task(
            self._complete_batch(number, manner, rows, deadline, handed_over.set)
        )
        self._running[task] = rows
        handover = asyncio.create_task(handed_over.wait())
        try:
            await self._course.wait_any({task, handover}, _WAIT_FOR_BATCH_S)
        finally:
            handover.cancel()
            await asyncio.wait({handover})
        self._reap_answers()

    def _reap_answers(self) -> None:
        """Forget what is done; raise what it raised."""
        for task in [task for task in self._running if task.done()]:
            del self._running[task]
            task.result()

    async def _announce_rows(self, rows: I8, steps: I4 | None = None) -> int | None:
        """Make the intent durable; None where it is not: then nothing of it is sent."""
        async with self._announcing:
            if self._course.is_stopping() or self._course.cut_short is not None:
                return None
            return await self._announce_next(self._batch + 1, rows, steps)

    async def _announce_next(self, number: int, rows: I8, steps: I4 | None) -> int | None:
        now_ns = self._course.clock()
        try:
            permission = await self._course.store.journal_intent(
                *(self._restore.id, self._course.context.job, number),
                *(rows, self._items.number[rows], now_ns),
                steps=steps,
            )
        except DreyError as error:
            if not is_unavailable(error):
                raise
            self._course.cut_short = error
            return None
        if permission == Permission.PAUSE:
            self._course.want_pause()
            return None
        if permission == Permission.STOP:
            self._course.want_abort()
        if self._course.is_stopping():
            # announced and not sent: the outcome says so, the journal alone would not know
            return None
        if number == 1 and self._course.clock() > self._restore.start_by_ns:
            self._course.cut_short = DeadlineExceeded(
                "the start deadline was over before the first write"
            )
            return None
        self._batch = number
        self._execution.mark_intended(rows, now_ns, steps)
        return number

    # ---- one batch

    async def _complete_batch(
        self,
        batch: int,
        manner: _Manner,
        rows: I8,
        deadline: _Deadline,
        handed_over: Callable[[], None],
    ) -> None:
        """Send it and note what came of it. JobLost, and nothing is sent, without the lease."""
        self._course.context.check_lease()
        timeout_s = manner.timeout_s or deadline.left_s
        if self._course.is_stopping():
            timeout_s = 0  # since it was announced, it was stopped
        until = time.monotonic() + timeout_s
        if timeout_s > 0:
            interference = self._course.watch.interference
            interference.expect_values(
                rows, self._items.target.take_rows(rows) if manner.ramped else None
            )
            answered = manner.completion == CompletionMode.PUT_CALLBACK
            codes = await self._course.write_values(
                rows, self._items.target.take_rows(rows), timeout_s, completion=answered
            )
            if answered:
                interference.mark_complete(rows[codes == ECA_NORMAL])
        else:
            codes = np.full(len(rows), NOT_SENT, np.int32)
        if manner.is_polled:
            handed_over()
            codes = await self._wait_until_settled(manner, rows, codes, until)
        now_ns = self._course.clock()
        self._execution.mark_result(rows, codes, now_ns)
        self._course.check_failures()
        self._course.watch.interference.mark_unsent(rows[self._execution.sent_time[rows] == 0])
        await through_outage(
            lambda: self._course.store.journal_result(self._restore.id, batch, codes, now_ns)
        )
        if not manner.is_polled and manner.settle_s:
            handed_over()
            await self._course.wait_any((), manner.settle_s)

    async def _wait_until_settled(self, manner: _Manner, rows: I8, codes: I4, until: float) -> I4:
        """`codes` with ECA_TIMEOUT for what was not complete in time."""
        sent = np.flatnonzero(codes == ECA_NORMAL)
        settling = SettlingRows(np.full(len(sent), manner.settle_s), np.full(len(sent), until))
        holds = (
            self._readbacks_hold
            if manner.completion == CompletionMode.READBACK
            else self._done_channels_hold
        )
        async with Looks(self._channels.table, self._limits.read_s) as looks:
            while len(settling.waiting_rows) and not self._course.is_stopping():
                held, known = await holds(rows[sent[settling.waiting_rows]], looks)
                settling.note_readbacks(held, time.monotonic(), known=known)
                if len(settling.waiting_rows):
                    await self._course.wait_any((), _LOOK_EVERY_S)
        settling.give_up()
        settled_codes = codes.copy()
        settled_codes[sent[settling.late]] = ECA_TIMEOUT
        return settled_codes

    async def _readbacks_hold(self, rows: I8, looks: Looks) -> tuple[Mask, Mask]:
        """Whether they do, and of which rows that is known."""
        reading = await looks.read_slots(self._course.readback_slots(rows))
        known, holds = was_answered(reading), np.zeros(len(rows), bool)
        cls = note_readbacks(self._course, rows[known], reading.values.take_rows(known))
        holds[known] = readback_reached(cls) == 1
        return holds, known

    async def _done_channels_hold(self, rows: I8, looks: Looks) -> tuple[Mask, Mask]:
        """Done channels at their values, read after the writes were handed over."""
        addresses = [self._items.done_address(row) for row in rows.tolist()]
        reading = await looks.read_slots(self._channels.slots_of(addresses))
        policies = [self._items.policies[i] for i in self._items.policy_of[rows].tolist()]
        wanted = np.array([1.0 if p.done_value is None else p.done_value for p in policies])
        numbers = as_float64(reading.values.kind, reading.values.data)
        return (reading.code == ECA_NORMAL) & (numbers == wanted), was_answered(reading)

    # ---- the end of a stage, and of all

    async def _wait_for_rest(self) -> None:
        """Until all is complete or late; once it is to stop, for a moment only."""
        while self._running and not self._course.is_stopping():
            await self._course.wait_any(self._running, None)
            self._reap_answers()
            await self._course.note_counts()
        if self._running:
            await asyncio.wait(self._running, timeout=_GRACE_S)
            self._reap_answers()

    async def _cancel_rest(self) -> None:
        """Cancel, and wait until they have stopped; what they raise is known, or is moot."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        self._running.clear()

    async def withdraw_announced(self) -> None:
        """See to it that nothing takes place after the end, or know what may.

        Channels whose write was not answered are closed and opened again: the IOC drops what waits
        on them, and a new channel that is connected says that it has. Writes of those that are not
        may still take place, and hold their channels. So do all of them where the table cannot
        close a channel.
        """
        rows = self._execution.unanswered_rows
        if len(rows) == 0:
            return
        table = self._channels.table
        rows = rows[table.unanswered_slots(self._course.slots_of_rows(rows))]
        circuits = table.read_info(self._course.slots_of_rows(rows)).host
        withdrawn = np.zeros(len(rows), bool)
        if table.withdraws_writes:
            await self._channels.renew_channels(self._course.addresses_of_rows(rows))
            await self._course.watch.follow_rows(rows)
            withdrawn = await table.wait_connected(
                self._course.slots_of_rows(rows), self._limits.connect_s
            )
        by_row = dict(zip(rows.tolist(), circuits, strict=True))
        self._course.unanswered = unanswered_of(
            self._items, self._execution, rows[~withdrawn], by_row
        )


class _RampSender:
    """What a ramp sees of its writer."""

    def __init__(self, writer: SetpointWriter, manner: _Manner, timeout_s: float) -> None:
        self._writer, self._manner, self._timeout_s = writer, manner, timeout_s
        self.announce = writer._announce_rows
        self.done_channels_hold = writer._done_channels_hold

    async def may_send(self) -> bool:
        return await self._writer._may_go_on(None)

    def send_targets(self, batch: int, rows: I8) -> asyncio.Task[None]:
        deadline = _Deadline(self._timeout_s)
        return asyncio.create_task(
            self._writer._complete_batch(batch, self._manner, rows, deadline, lambda: None)
        )


class _Deadline:
    """The time by which all of a stage must be sent, and complete where no policy says when."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    def move_by(self, seconds: float) -> None:
        """Later by as much as nobody was allowed to send."""
        self._end += seconds
