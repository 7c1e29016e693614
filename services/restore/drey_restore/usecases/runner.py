"""Runs one restore: look, write, verify, say what became of every PV.

Nothing is sent before it stands in the journal; nothing that stands there is sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from drey_ca.interface import Slots
from drey_core.compare import DifferenceClass, compare
from drey_core.errors import DeadlineExceeded, DreyError, FailedPrecondition, Internal, Reason
from drey_core.values import I8, U1, Columns, Kind
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.execution import (
    ECA_NORDACCESS,
    ECA_NORMAL,
    NOT_SENT,
    Execution,
    all_gone,
    shortfall,
    too_many_gone,
)
from drey_restore.domain.items import I4, PlanItems, scatter
from drey_restore.domain.kinds import RestoreState, Verdict
from drey_restore.domain.records import HeldWrite, RestoreRecord, Unanswered
from drey_restore.ports import Channels, Clock, Limits
from drey_restore.usecases.ending import Ending, outcome_of, unanswered_of
from drey_restore.usecases.holding import held_error, refuse_held
from drey_restore.usecases.notify import Aborts, Notifier
from drey_runtime.backoff import backoff
from drey_runtime.database import is_unavailable
from drey_runtime.jobs import Job, JobCancelled, JobContext, JobLost

_SAME = (DifferenceClass.EQUAL, DifferenceClass.WITHIN_TOLERANCE)
_NOTHING_TO_COMPARE = (
    DifferenceClass.UNSPECIFIED,
    DifferenceClass.ONLY_IN_OTHER,
    DifferenceClass.DISCONNECTED_IN_REFERENCE,
    DifferenceClass.DISCONNECTED_IN_BOTH,
    DifferenceClass.TYPE_CHANGED,
    DifferenceClass.NOT_COMPARABLE,
)

_WAIT_FOR_CHUNK_S = 0.25
"""A chunk that takes longer goes on beside the next one: a slow device holds up no other."""
_SETTLE_S = 0.5
"""How long a setpoint may take after its completion to show the target."""
_READ_AGAIN_S = 0.2


class Runner:
    """The job handler."""

    def __init__(
        self,
        store: RestoreStore,
        channels: Channels,
        ending: Ending,
        notifier: Notifier,
        aborts: Aborts,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._store, self._channels, self._ending = store, channels, ending
        self._notifier, self._aborts = notifier, aborts
        self._limits, self._clock = limits, clock

    async def run(self, context: JobContext) -> str:
        """Execute the restore that the payload names, once.

        Cancelling it (the process stops, the job is lost) stops sending at once; the journal then
        says what is known.
        """
        restore = await self._store.restore(context.payload.decode())
        if restore.state != RestoreState.WAITING:
            raise Internal(f"restore {restore.id} is {restore.state.name.lower()} already")
        context.result = f"restores/{restore.id}"
        items = await self._items(restore)
        with self._aborts.running(restore.id) as abort:
            one = _One(self, restore, items, context, abort)
            await one.execute()
        return context.result

    async def _items(self, restore: RestoreRecord) -> PlanItems:
        """The items whose digest was asked for; the restore has failed where they are others."""
        try:
            return await self._store.plan_items(restore.plan_id, restore.plan_digest)
        except FailedPrecondition as mismatch:
            await self._ending.end_by_journal(restore, RestoreState.FAILED, mismatch)
            raise

    async def interrupted(self, job: Job) -> None:
        """End a restore whose process died, by its journal. Nothing is sent."""
        restore = await self._store.restore(job.payload.decode())
        if restore.state.ended:
            return
        await self._ending.end_by_journal(
            restore,
            RestoreState.INTERRUPTED,
            Internal("its process stopped in the middle; nothing was sent again"),
        )


class _One:
    """One run."""

    def __init__(
        self,
        runner: Runner,
        restore: RestoreRecord,
        items: PlanItems,
        context: JobContext,
        abort: asyncio.Event,
    ) -> None:
        self._store, self._ending = runner._store, runner._ending
        self._channels, self._limits = runner._channels, runner._limits
        self._clock, self._notifier = runner._clock, runner._notifier
        self._restore, self._items, self._context = restore, items, context
        self._abort = abort
        self._execution = Execution(items)
        n = len(items)
        self._with_readback = np.zeros(n, bool)
        self._before = items.current
        self._seen = Columns.empty(n)
        self._readback = Columns.empty(n)
        self._reached = np.full(n, -1, np.int8)
        self._moving = np.full(n, -1, np.int8)
        self._unanswered: Unanswered | None = None
        self._state = restore.state
        self._batch = 0
        self._cut_short: DreyError | None = None

    @property
    def _stopped(self) -> bool:
        return self._abort.is_set() or self._context.cancelled.is_set()

    async def execute(self) -> None:
        """All of it. Raises what the job shall show: JobCancelled, or why it is not complete."""
        items = self._items
        rows = items.writes.tolist()
        addresses = [items.addresses[row] for row in rows]
        addresses += [
            items.readback_addresses[row] for row in rows if items.readback_addresses[row]
        ]
        async with self._channels.use(addresses):
            try:
                await self._run()
            except (asyncio.CancelledError, JobLost):
                # nobody waits for them any more: what has not begun shall not begin
                await self._channels.renew(self._addresses(self._execution.unanswered))
                raise

    async def _run(self) -> None:
        try:
            await self._prepare()
        except DreyError as error:
            if is_unavailable(error):
                raise
            await self._end(RestoreState.FAILED, error)
            raise
        if not self._stopped:
            await self._write()
        await self._withdraw()
        if self._execution.anything_sent:
            await self._verify()
        self._execution.close()
        if self._stopped:
            await self._end(RestoreState.ABORTED)
            raise JobCancelled("the restore was aborted")
        if self._cut_short is not None:
            await self._end(RestoreState.INTERRUPTED, self._cut_short)
            raise self._cut_short
        state, lacking = shortfall(
            self._items, self._execution, self._restore.write_timeout_ns / 1e9
        )
        await self._end(state, lacking)
        if lacking is not None and state != RestoreState.COMPLETED:
            raise lacking

    def _addresses(self, rows: I8) -> list[str]:
        return [self._items.addresses[row] for row in rows.tolist()]

    def _slots(self, rows: I8) -> Slots:
        return self._channels.slots(self._addresses(rows))

    # ---- before the first write

    async def _prepare(self) -> None:
        """Connect, look at what would be written, and refuse where the machine has moved."""
        rows = self._items.writes
        self._context.progress(0, len(rows), "connecting")
        held = await self._store.unanswered()
        refuse_held(held, self._items)
        up = await self._connect(rows)
        self._check_start()
        found = await self._channels.table.read(self._slots(up), self._limits.read_s)
        unreadable = found.code == ECA_NORDACCESS
        there = (found.code == ECA_NORMAL) | unreadable
        self._refuse_silent_circuits(up[~there], held)
        lost = np.setdiff1d(rows, up[there])
        self._execution.disconnected(lost)
        most = self._restore.max_unreachable
        if len(lost) == len(rows):
            raise all_gone(self._items)
        if most is not None and len(lost) > most:
            raise too_many_gone(self._items, lost, most)
        read = found.code == ECA_NORMAL
        self._before = scatter(self._before, up[read], found.values.take(read))
        self._check_moved(up[read], found.values.take(read))
        self._check_start()

    async def _connect(self, rows: I8) -> I8:
        """Those of `rows` whose setpoint is connected; one wait for all channels together."""
        items = self._items
        with_readback = np.array(
            [r for r in rows.tolist() if items.readback_addresses[r]], np.int64
        )
        wanted = np.concatenate([self._slots(rows), self._readback_slots(with_readback)])
        left = (self._restore.start_by_ns - self._clock()) / 1e9
        timeout = max(0.0, min(self._limits.connect_s, left))
        up = await self._channels.table.wait_connected(wanted, timeout)
        self._with_readback[with_readback[up[len(rows) :]]] = True
        return rows[up[: len(rows)]]

    def _readback_slots(self, rows: I8) -> Slots:
        return self._channels.slots([self._items.readback_addresses[r] for r in rows.tolist()])

    def _refuse_silent_circuits(self, silent: I8, held: list[HeldWrite]) -> None:
        """CHANNELS_HELD where the circuit of a channel is silent, and a write waits on it.

        What waits there would take place before anything that is sent now.
        """
        by_circuit = {write.circuit: write for write in held if write.circuit}
        if not by_circuit or len(silent) == 0:
            return
        hosts = self._channels.table.info(self._slots(silent)).host
        for row, host in zip(silent.tolist(), hosts, strict=True):
            if host in by_circuit:
                raise held_error(by_circuit[host], f"on whose IOC {self._items.names[row]} lies")

    def _check_start(self) -> None:
        if self._clock() > self._restore.start_by_ns:
            raise DeadlineExceeded("the start deadline was over before the first write: none is")

    def _check_moved(self, rows: I8, now: Columns) -> None:
        """Raise MACHINE_MOVED or LABELS_MOVED for what has changed since the plan."""
        items = self._items
        compared = compare(
            items.current.take(rows), now, items.absolute[rows], items.relative[rows]
        )
        relabelled = self._relabelled(rows)
        if len(relabelled):
            first = items.names[int(relabelled[0])]
            raise FailedPrecondition(
                f"{len(relabelled)} of the PVs to write have other enum labels than when the plan"
                f" was made, the first is {first}; nothing was written. Make a new plan",
                reason=Reason.LABELS_MOVED,
                metadata={"moved": str(len(relabelled)), "first_moved": first},
            )
        moved = rows[~np.isin(compared.cls, _SAME)]
        if self._restore.accept_moved or len(moved) == 0:
            return
        first = items.names[int(moved[0])]
        raise FailedPrecondition(
            f"{len(moved)} of the PVs to write have changed since the plan was made, the first is"
            f" {first}; nothing was written. Make a new plan, or accept the changes",
            reason=Reason.MACHINE_MOVED,
            metadata={"moved": str(len(moved)), "first_moved": first},
        )

    def _relabelled(self, rows: I8) -> I8:
        """Enums whose labels are known and not those of the plan: their index means another."""
        items = self._items
        enums = rows[items.target.kind[rows] == Kind.ENUM]
        labels = self._channels.table.info(self._slots(enums)).labels
        changed = [
            row
            for row, found in zip(enums.tolist(), labels, strict=True)
            if found
            and items.labels(row)
            and tuple(x.decode(errors="replace").encode() for x in found) != items.labels(row)
        ]
        return np.array(changed, np.int64)

    # ---- writing

    async def _write(self) -> None:
        """Announce and send chunk by chunk; all share one deadline."""
        order = self._items.writes
        order = order[self._execution.verdict[order] == Verdict.PENDING]
        if len(order) == 0:
            return
        deadline = time.monotonic() + self._restore.write_timeout_ns / 1e9
        await self._advance(RestoreState.WRITING)
        running: set[asyncio.Task[None]] = set()
        try:
            for at in range(0, len(order), self._limits.chunk):
                if self._stopped or time.monotonic() >= deadline:
                    break
                rows = order[at : at + self._limits.chunk]
                if not await self._announce(rows):
                    break
                task = asyncio.create_task(self._send(self._batch, rows, deadline))
                running.add(task)
                await asyncio.wait({task}, timeout=_WAIT_FOR_CHUNK_S)
                if task.done():
                    task.result()
                await self._note()
            if running:
                await asyncio.gather(*running)
        finally:
            await _cancel(running)

    async def _announce(self, rows: I8) -> bool:
        """Make the intent durable; False where it cannot be: then nothing more is sent."""
        self._batch += 1
        at = self._clock()
        try:
            allowed = await self._store.journal_intent(
                *(self._restore.id, self._context.job, self._batch),
                *(rows, self._items.number[rows], at),
            )
        except DreyError as error:
            if not is_unavailable(error):
                raise
            self._cut_short = error
            return False
        if not allowed:
            self._abort.set()
        if self._stopped:
            # announced and not sent: the outcome says so, the journal alone would not know
            return False
        if self._batch == 1 and self._clock() > self._restore.start_by_ns:
            self._cut_short = DeadlineExceeded("the start deadline was over before the first write")
            return False
        self._execution.intend(rows, at)
        return True

    async def _send(self, batch: int, rows: I8, deadline: float) -> None:
        """Send what is announced. JobLost, and nothing is sent, where the lease may be over."""
        self._context.check_lease()
        timeout = deadline - time.monotonic()
        if timeout > 0:
            codes: I4 = await self._channels.table.write(
                self._slots(rows), self._items.target.take(rows), timeout, completion=True
            )
        else:
            codes = np.full(len(rows), NOT_SENT, np.int32)
        at = self._clock()
        self._execution.result(rows, codes, at)
        await _through(lambda: self._store.journal_result(self._restore.id, batch, codes, at))

    async def _withdraw(self) -> None:
        """See to it that nothing takes place after the end, or know what may.

        Channels whose write was not answered are closed and opened again: the IOC drops what waits
        on them, and a new channel that is connected says that it has. Writes of those that are not
        may still take place, and hold their channels.
        """
        rows = self._execution.unanswered
        if len(rows) == 0:
            return
        table = self._channels.table
        rows = rows[table.unanswered(self._slots(rows))]
        circuits = table.info(self._slots(rows)).host
        await self._channels.renew(self._addresses(rows))
        up = await table.wait_connected(self._slots(rows), self._limits.connect_s)
        by_row = dict(zip(rows.tolist(), circuits, strict=True))
        self._unanswered = unanswered_of(self._items, self._execution, rows[~up], by_row)

    # ---- verifying

    async def _verify(self) -> None:
        """Read setpoints and readbacks until they are where they should be, or the time is over."""
        self._execution.close()
        await _through(lambda: self._advance(RestoreState.VERIFYING))
        sent = self._items.writes
        sent = sent[self._execution.sent_time[sent] != 0]
        begun = time.monotonic()
        end = begun + (0 if self._stopped else self._restore.verify_timeout_ns / 1e9)
        pending, passes = sent, 0
        at_target = np.zeros(len(self._items), bool)
        while True:
            passes += 1
            at_target[pending] = await self._look(pending)
            written = self._execution.verdict[pending] == Verdict.WRITTEN
            off = ~at_target[pending] & (time.monotonic() < min(end, begun + _SETTLE_S))
            pending = pending[written & (off | (self._reached[pending] == 0))]
            if len(pending) == 0 or self._stopped or time.monotonic() >= end:
                break
            await asyncio.sleep(_READ_AGAIN_S)
        good = at_target[sent] & (self._reached[sent] != 0)
        open_rows = sent[~(good & (self._execution.verdict[sent] == Verdict.WRITTEN))]
        if len(open_rows):
            await self._look_for_movement(open_rows)
        if passes > 1 or len(open_rows):
            # what was at its target a while ago may have left it since
            at_target[sent] = await self._look(sent, readbacks=False)
        was_read = self._seen.kind[sent] != Kind.NONE
        self._execution.verify(sent, at_target[sent], was_read, self._reached[sent])

    async def _look_for_movement(self, rows: I8) -> None:
        """Whether the readbacks of what is not as it should be stand still."""
        rows = rows[self._with_readback[rows]]
        if len(rows) == 0:
            return
        earlier = self._readback.take(rows)
        await asyncio.sleep(_READ_AGAIN_S)
        await self._look(rows)
        later = self._readback.take(rows)
        known = (earlier.kind != Kind.NONE) & (later.kind != Kind.NONE)
        cls = compare(
            earlier, later, self._items.readback_absolute[rows], self._items.readback_relative[rows]
        ).cls
        self._moving[rows[known]] = ~np.isin(cls[known], _SAME)

    async def _look(self, rows: I8, *, readbacks: bool = True) -> NDArray[np.bool_]:
        """Read `rows` past any subscription; which setpoints are at their targets."""
        items, table = self._items, self._channels.table
        with_readback = rows[self._with_readback[rows]] if readbacks else rows[:0]
        slots = np.concatenate([self._slots(rows), self._readback_slots(with_readback)])
        found = await table.read(slots, self._limits.read_s)
        setpoint, readback = (
            found.values.take(np.arange(len(rows))),
            found.values.take(np.arange(len(rows), len(slots))),
        )
        self._seen = scatter(self._seen, rows, setpoint)
        self._readback = scatter(self._readback, with_readback, readback)
        if len(with_readback):
            self._reached[with_readback] = _reached(
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
        at_target: NDArray[np.bool_] = np.isin(compared.cls, _SAME)
        return at_target

    # ---- saying so

    async def _advance(self, state: RestoreState) -> None:
        self._state = state
        try:
            await self._store.advance(
                self._restore.id, state, self._execution.counts, start_ns=self._clock()
            )
        except FailedPrecondition as refusal:
            # somebody else has ended it: this process was taken for dead
            raise JobLost(self._context.job.id) from refusal
        self._notifier.wake(self._restore.id)
        self._context.progress(
            self._execution.finished, len(self._items.writes), state.name.lower()
        )

    async def _note(self) -> None:
        """Counts for those who watch; not worth stopping for."""
        try:
            await self._advance(self._state)
        except DreyError as error:
            if not is_unavailable(error):
                raise

    async def _end(self, state: RestoreState, error: DreyError | None = None) -> None:
        self._execution.close()
        counts = self._execution.counts
        outcome = replace(
            outcome_of(
                self._items,
                self._execution,
                before=self._before,
                seen=self._seen,
                readback=self._readback,
            ),
            readback_reached=self._reached,
            moving=self._moving,
        )

        async def store() -> None:
            fresh = await self._store.restore(self._restore.id)
            if fresh.state.ended:
                return  # stored before, and the answer was lost
            await self._ending.end(
                fresh, (self._items, outcome), counts, state, error, self._unanswered
            )

        await _through(store)
        self._context.progress(
            self._execution.finished, len(self._items.writes), state.name.lower()
        )


def _reached(cls: U1) -> NDArray[np.int8]:
    """1: within tolerance of the stored readback, 0: not, -1: there is none to compare."""
    return np.where(
        np.isin(cls, _SAME), 1, np.where(np.isin(cls, _NOTHING_TO_COMPARE), -1, 0)
    ).astype(np.int8)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel, and wait until they have stopped; what they raise is known by then, or is moot."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def _through(action: Callable[[], Awaitable[None]]) -> None:
    """Do it, again and again while Postgres is away: results are held in memory meanwhile.

    Ends by cancellation when the job's lease is over.
    """
    attempt = 0
    while True:
        try:
            await action()
            return
        except DreyError as error:
            if not is_unavailable(error):
                raise
        await asyncio.sleep(backoff(attempt))
        attempt += 1
