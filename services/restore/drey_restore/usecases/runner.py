"""Runs one restore: look, write, verify, say what became of every PV.

Nothing is sent before it stands in the journal; nothing that stands there is sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drey_ca.interface import Slots
from drey_core.compare import DifferenceClass, compare
from drey_core.errors import DeadlineExceeded, DreyError, FailedPrecondition, Internal, Reason
from drey_core.values import I8, U1, Columns, Kind
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.execution import ECA_NORMAL, Execution
from drey_restore.domain.items import I4, PlanItems, scatter
from drey_restore.domain.kinds import RestoreState, Verdict
from drey_restore.domain.records import RestoreRecord
from drey_restore.ports import Channels, Clock
from drey_restore.usecases.ending import Ending, outcome_of
from drey_restore.usecases.notify import Aborts, Notifier
from drey_runtime.backoff import backoff
from drey_runtime.database import is_unavailable
from drey_runtime.jobs import Job, JobCancelled, JobContext

_SAME = (DifferenceClass.EQUAL, DifferenceClass.WITHIN_TOLERANCE)
_NOTHING_TO_COMPARE = (
    DifferenceClass.UNSPECIFIED,
    DifferenceClass.ONLY_IN_OTHER,
    DifferenceClass.DISCONNECTED_IN_REFERENCE,
    DifferenceClass.DISCONNECTED_IN_BOTH,
    DifferenceClass.TYPE_CHANGED,
    DifferenceClass.NOT_COMPARABLE,
)
_ECA_NORDACCESS = 368

_WAIT_FOR_CHUNK_S = 0.25
"""A chunk that takes longer goes on beside the next one: a slow device holds up no other."""
_SETTLE_S = 0.5
"""How long a setpoint may take after its completion to show the target."""
_READ_AGAIN_S = 0.2


@dataclass(frozen=True)
class Limits:
    """Times in seconds, and writes sent at a time."""

    connect_s: float
    read_s: float
    chunk: int


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
        items = await self._store.plan_items(restore.plan_id)
        with self._aborts.running(restore.id) as abort:
            one = _One(self, restore, items, context, abort)
            await one.execute()
        return context.result

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
        self._slot: Slots = np.full(n, -1, np.int64)
        self._readback_slot: Slots = np.full(n, -1, np.int64)
        self._before = items.current
        self._seen = Columns.empty(n)
        self._readback = Columns.empty(n)
        self._reached = np.full(n, -1, np.int8)
        self._state = restore.state
        self._batch = 0
        self._cut_short: DreyError | None = None

    @property
    def _stopped(self) -> bool:
        return self._abort.is_set() or self._context.cancelled.is_set()

    async def execute(self) -> None:
        """All of it. Raises what the job shall show: JobCancelled, or why it could not begin."""
        try:
            await self._prepare()
        except DreyError as error:
            if is_unavailable(error):
                raise
            await self._end(RestoreState.FAILED, error)
            raise
        if not self._stopped:
            await self._write()
        if self._execution.anything_sent:
            await self._verify()
        if self._stopped:
            await self._end(RestoreState.ABORTED)
            raise JobCancelled("the restore was aborted")
        if self._cut_short is not None:
            await self._end(RestoreState.INTERRUPTED, self._cut_short)
            raise self._cut_short
        await self._end(RestoreState.COMPLETED)

    # ---- before the first write

    async def _prepare(self) -> None:
        """Connect, look at what would be written, and refuse where the machine has moved."""
        rows = self._items.writes
        self._context.progress(0, len(rows), "connecting")
        up = await self._connect(rows)
        self._check_start()
        found = await self._channels.table.read(self._slot[up], self._limits.read_s)
        unreadable = found.code == _ECA_NORDACCESS
        there = (found.code == ECA_NORMAL) | unreadable
        lost = np.setdiff1d(rows, up[there])
        self._execution.disconnected(lost)
        read = found.code == ECA_NORMAL
        self._before = scatter(self._before, up[read], found.values.take(read))
        self._check_moved(up[read], found.values.take(read))
        self._check_start()

    async def _connect(self, rows: I8) -> I8:
        """Those of `rows` whose setpoint is connected; one wait for all channels together."""
        items = self._items
        self._slot[rows] = await self._channels.slots([items.addresses[r] for r in rows.tolist()])
        with_readback = np.array(
            [r for r in rows.tolist() if items.readback_addresses[r]], np.int64
        )
        self._readback_slot[with_readback] = await self._channels.slots(
            [items.readback_addresses[r] for r in with_readback.tolist()]
        )
        wanted = np.concatenate([self._slot[rows], self._readback_slot[with_readback]])
        left = (self._restore.start_by_ns - self._clock()) / 1e9
        timeout = max(0.0, min(self._limits.connect_s, left))
        up = await self._channels.table.wait_connected(wanted, timeout)
        dead = with_readback[~up[len(rows) :]]
        self._readback_slot[dead] = -1
        return rows[up[: len(rows)]]

    def _check_start(self) -> None:
        if self._clock() > self._restore.start_by_ns:
            raise DeadlineExceeded("the start deadline was over before the first write: none is")

    def _check_moved(self, rows: I8, now: Columns) -> None:
        """Raise MACHINE_MOVED for values, or enum labels, that changed since the plan."""
        items = self._items
        compared = compare(
            items.current.take(rows), now, items.absolute[rows], items.relative[rows]
        )
        moved = rows[~np.isin(compared.cls, _SAME)]
        relabelled = self._relabelled(rows)
        if self._restore.accept_moved and len(relabelled) == 0:
            return
        if self._restore.accept_moved:
            moved = relabelled
        moved = np.union1d(moved, relabelled)
        if len(moved) == 0:
            return
        first = items.names[int(moved[0])]
        what = "other enum labels" if len(relabelled) else "another value"
        raise FailedPrecondition(
            f"{len(moved)} of the PVs to write have changed since the plan was made, the first is"
            f" {first} ({what}); nothing was written. Make a new plan, or accept the changes",
            reason=Reason.MACHINE_MOVED,
            metadata={"moved": str(len(moved)), "first_moved": first},
        )

    def _relabelled(self, rows: I8) -> I8:
        """Enums whose labels are known and not those of the plan: their index means another."""
        items = self._items
        enums = rows[items.target.kind[rows] == Kind.ENUM]
        labels = self._channels.table.info(self._slot[enums]).labels
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
                await self._note()
            if running:
                await asyncio.wait(running)
                for task in running:
                    task.result()
        finally:
            for task in running:
                task.cancel()

    async def _announce(self, rows: I8) -> bool:
        """Make the intent durable; False where it cannot be: then nothing more is sent."""
        self._batch += 1
        at = self._clock()
        try:
            allowed = await self._store.journal_intent(
                self._restore.id, self._batch, rows, self._items.number[rows], at
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
        if self._batch == 1 and at > self._restore.start_by_ns:
            self._cut_short = DeadlineExceeded("the start deadline was over before the first write")
            return False
        self._execution.intend(rows, at)
        return True

    async def _send(self, batch: int, rows: I8, deadline: float) -> None:
        timeout = max(0.0, deadline - time.monotonic())
        codes: I4 = await self._channels.table.write(
            self._slot[rows], self._items.target.take(rows), timeout, completion=True
        )
        at = self._clock()
        self._execution.result(rows, codes, at)
        await _through(lambda: self._store.journal_result(self._restore.id, batch, codes, at))

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
        if passes > 1:
            # what was at its target a while ago may have left it since
            at_target[sent] = await self._look(sent, readbacks=False)
        was_read = self._seen.kind[sent] != Kind.NONE
        self._execution.verify(sent, at_target[sent], was_read, self._reached[sent])

    async def _look(self, rows: I8, *, readbacks: bool = True) -> NDArray[np.bool_]:
        """Read `rows` past any subscription; which setpoints are at their targets."""
        items, table = self._items, self._channels.table
        with_readback = rows[(self._readback_slot[rows] >= 0)] if readbacks else rows[:0]
        slots = np.concatenate([self._slot[rows], self._readback_slot[with_readback]])
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
        await self._store.advance(
            self._restore.id, state, self._execution.counts, start_ns=self._clock()
        )
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
        outcome = replace(
            outcome_of(
                self._items,
                self._execution,
                before=self._before,
                seen=self._seen,
                readback=self._readback,
            ),
            readback_reached=self._reached,
        )

        async def store() -> None:
            fresh = await self._store.restore(self._restore.id)
            if fresh.state.ended:
                return  # stored before, and the answer was lost
            await self._ending.end(
                fresh, self._items, outcome, self._execution.counts, state, error
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
