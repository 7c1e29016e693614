"""One restore while it runs: where it stands, what was seen of it, and how that is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from drey_ca.interface import Slots
from drey_core.compare import compare
from drey_core.errors import DreyError, FailedPrecondition, Reason
from drey_core.values import ARRAY, I4, I8, U1, Columns, Kind
from drey_restore.adapters.changes import ChangeFeed
from drey_restore.adapters.channels import ChannelPool, SlotsByRow
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.execution import (
    ECA_DISCONN,
    ECA_NORMAL,
    NOT_SENT,
    Execution,
    labels_moved,
    too_many_failed,
)
from drey_restore.domain.items import Carried, Outcome, PlanItems, scatter_rows
from drey_restore.domain.kinds import RestoreState
from drey_restore.domain.records import RestoreRecord, Rules, Unanswered
from drey_restore.limits import Clock, Limits
from drey_restore.usecases.ending import Ending, RestoreEnd, outcome_of
from drey_restore.usecases.notify import Notifier, Wishes
from drey_restore.usecases.plans import MadePlan
from drey_restore.usecases.rollback import GoingBack, goes_back, without_way_back
from drey_restore.usecases.watching import WriteWatch
from drey_runtime.database import is_unavailable
from drey_runtime.jobs import JobContext, JobLost
from drey_runtime.retrying import backoff_delay

T = TypeVar("T")
_LOOK_EVERY_S = 0.25
_LOOKS = 3
"""At what connects anew while it is looked at, or written."""


@dataclass(frozen=True)
class RunParts:
    """What every run of this process uses."""

    store: RestoreStore
    channels: ChannelPool
    feed: ChangeFeed
    ending: Ending
    going_back: GoingBack
    notifier: Notifier
    limits: Limits
    clock: Clock


class Course:
    """Shared by the parts of a run: check, write, verify.

    `before` is what was there before the first write, `at_start` before the first of this run: they
    differ where it continues another (`carried`). `seen` and `readback` are what was read after the
    writes, `reached` and `moving` as in `Outcome`; shapes (n,) of the plan.
    """

    def __init__(
        self,
        parts: RunParts,
        restore: RestoreRecord,
        plan: tuple[PlanItems, Rules],
        context: JobContext,
        wishes: Wishes,
        carried: Carried | None = None,
    ) -> None:
        self.store, self.channels, self.limits = parts.store, parts.channels, parts.limits
        self.clock = parts.clock
        self.restore, (self.items, self.rules) = restore, plan
        items = self.items
        self._setpoint_slots = SlotsByRow(parts.channels, items.addresses)
        self._readback_slots = SlotsByRow(parts.channels, items.readback_addresses)
        self.context, self.carried = context, carried
        self._ending, self._notifier, self._wishes = parts.ending, parts.notifier, wishes
        self._going_back = parts.going_back
        self.watch = WriteWatch(parts.feed, parts.channels, items)
        self.execution = Execution(items, carried)
        self.with_readback = np.zeros(len(items), bool)
        self._connected_at = np.zeros(len(items), np.int64)
        outcome = outcome_of(items, self.execution, carried)
        self.before = self.at_start = outcome.before
        self.readback_before = (
            Columns.empty_columns(len(items)) if carried is None else carried.readback
        )
        self.seen, self.readback = outcome.seen, outcome.readback
        self.reached, self.moving = outcome.readback_reached.copy(), outcome.moving.copy()
        self.unanswered: Unanswered | None = None
        self.cut_short: DreyError | None = None
        self._halted = asyncio.Event()
        self._state = restore.state
        self._pausing, self._advancing = asyncio.Lock(), asyncio.Lock()

    def is_stopping(self) -> bool:
        """Whether somebody, or a guard, wants it to end: nothing more is sent."""
        return self.is_aborted() or self._halted.is_set()

    def is_aborted(self) -> bool:
        """Whether somebody wants it to end."""
        return self._wishes.abort.is_set() or self.context.cancelled.is_set()

    def halt_restore(self, why: DreyError) -> None:
        """End it at once; the first reason counts."""
        if self.cut_short is None:
            self.cut_short = why
        self._halted.set()

    def check_failures(self, *, at_end: bool = False) -> None:
        """End it where more writes have failed than its plan allows before it goes back."""
        why = self.failed_too_often(at_end=at_end)
        if why is not None:
            self.halt_restore(why)

    def failed_too_often(self, *, at_end: bool = False) -> DreyError | None:
        """Why it is to go back for its failures; None: it is not."""
        most = None if self.rules.rollback is None else self.rules.rollback.max_failed
        if most is None:
            return None
        failed = self.execution.failed_so_far(at_end=at_end)
        return too_many_failed(self.items, failed, most) if len(failed) > most else None

    def want_abort(self) -> None:
        """End it as somebody wanted who told another process."""
        self._wishes.abort.set()

    def is_pausing(self) -> bool:
        """Whether somebody wants it to hold where it is: nothing is sent meanwhile."""
        return self._wishes.pause

    def want_pause(self) -> None:
        """Hold it as somebody wanted who told another process."""
        self._wishes.pause = True

    async def wait_while_paused(self) -> float:
        """Hold until somebody resumes or stops it; the seconds that took.

        What is in flight goes on. Whoever resumes it may tell another process: the row says it.
        """
        begun = time.monotonic()
        async with self._pausing:
            if self.is_pausing() and not self.is_stopping():
                await self._hold_restore()
        return time.monotonic() - begun

    async def _hold_restore(self) -> None:
        await through_outage(lambda: self.advance_state(RestoreState.PAUSED))
        while self.is_pausing() and not self.is_stopping():
            self._wishes.changed.clear()
            fresh = await through_outage(lambda: self.store.restore(self.restore.id))
            self._wishes.pause = fresh.pause_requested
            if fresh.abort_requested:
                self.want_abort()
            elif fresh.pause_requested:
                await self.wait_any((), _LOOK_EVERY_S, self._wishes.changed)
        if not self.is_stopping():
            await through_outage(lambda: self.advance_state(RestoreState.WRITING))

    async def wait_any(
        self,
        tasks: Iterable[asyncio.Task[Any]],
        timeout_s: float | None,
        *events: asyncio.Event,
    ) -> None:
        """Until a task or an event is done, it is to stop, or `timeout_s` are over."""
        waits = {
            asyncio.create_task(event.wait())
            for event in (self._wishes.abort, self.context.cancelled, self._halted, *events)
        }
        try:
            await asyncio.wait(
                {*tasks, *waits}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)

    def slots_of_rows(self, rows: I8) -> Slots:
        """Slots of the setpoints of rows; good until the next `await`."""
        return self._setpoint_slots.slots_of_rows(rows)

    def readback_slots(self, rows: I8) -> Slots:
        """Slots of the readbacks of rows; good until the next `await`."""
        return self._readback_slots.slots_of_rows(rows)

    def addresses_of_rows(self, rows: I8) -> list[str]:
        """Addresses of the setpoints of rows."""
        return [self.items.addresses[row] for row in rows.tolist()]

    def note_connections(self, rows: I8) -> None:
        """Remember the connections of rows: their labels are those that were looked at."""
        self._connected_at[rows] = self._state_times(rows)

    def relabelled_rows(self, rows: I8) -> I8:
        """Rows to which what is written would mean another thing: enumerations of other labels.

        Also those of rows that are one now and were none when the plan was made, or the reverse.
        """
        items, info = self.items, self.channels.table.read_info(self.slots_of_rows(rows))
        meant, is_enum = (
            kinds & ~np.uint8(ARRAY) == Kind.ENUM for kinds in (items.target.kind[rows], info.kind)
        )
        changed = (meant != is_enum) & (info.kind != Kind.NONE)
        for place in np.flatnonzero(meant & is_enum).tolist():
            live_labels, planned = info.labels[place], items.labels(int(rows[place]))
            shown = tuple(label.decode(errors="replace").encode() for label in live_labels)
            changed[place] = bool(shown and planned) and shown != planned
        relabelled: I8 = rows[changed]
        return relabelled

    async def relabelled_since(self, rows: I8) -> I8:
        """As `relabelled`, of rows that are about to be sent; those of new connections anew."""
        for _ in range(_LOOKS):
            times = self._state_times(rows)
            unknown = times != self._connected_at[rows]
            if not unknown.any():
                break
            again, before = rows[unknown], times[unknown]
            # its answer comes after the labels, which were asked for as it was connected
            reading = await self.channels.table.read_values(
                self.slots_of_rows(again), self.limits.read_s
            )
            answered = reading.code == ECA_NORMAL
            same = answered & (self._state_times(again) == before)
            self._connected_at[again[same]] = before[same]
            if not answered.any():
                break
        return self.relabelled_rows(rows)

    async def stop_at_relabelled(self, rows: I8) -> bool:
        """Whether what is about to be sent would mean another thing: then no more is, and why."""
        relabelled = await self.relabelled_since(rows)
        if len(relabelled):
            self.cut_short = labels_moved(
                self.items, relabelled, "they and what comes after them were not written"
            )
        return len(relabelled) > 0

    async def write_values(
        self, rows: I8, values: Columns, timeout_s: float, *, completion: bool
    ) -> I4:
        """Write to the setpoints of rows, on connections that were looked at; ECA codes.

        What connects anew meanwhile may be of another type or have other labels: it is looked at
        first, and where it means another thing, nothing more is sent by this restore.
        """
        until = time.monotonic() + timeout_s

        def may_go_on() -> bool:
            return time.monotonic() < until and not self.is_stopping() and self.cut_short is None

        codes, left = np.full(len(rows), NOT_SENT, np.int32), np.arange(len(rows))
        for _ in range(_LOOKS):
            self.context.check_lease()
            codes[left] = await self.channels.table.write_values(
                self.slots_of_rows(rows[left]),
                values.take_rows(left),
                until - time.monotonic(),
                completion=completion,
                connected_at=self._connected_at[rows[left]],
            )
            left = left[codes[left] == ECA_DISCONN]
            if len(left) == 0 or not may_go_on():
                break
            if await self.stop_at_relabelled(rows[left]):
                codes[left] = NOT_SENT
            if not may_go_on():
                break
        return codes

    def _state_times(self, rows: I8) -> I8:
        times: I8 = self.channels.table.read_info(self.slots_of_rows(rows)).state_time
        return times

    async def advance_state(self, state: RestoreState | None = None) -> None:
        """Store state (None: as it is) and counts, and tell those who watch."""
        async with self._advancing:
            self._state = state = self._state if state is None else state
            try:
                await self.store.advance_restore(
                    self.restore.id,
                    state,
                    self.execution.counts,
                    interfered=self.watch.interference.interfered_count,
                    start_ns=self.clock(),
                )
            except FailedPrecondition as refusal:
                # somebody else has ended it: this process was taken for dead
                raise JobLost(self.context.job.id) from refusal
        self._notifier.wake_listeners(self.restore.id)
        self._show_progress(state)

    async def note_counts(self) -> None:
        """Counts for those who watch; not worth stopping for."""
        try:
            await self.advance_state()
        except DreyError as error:
            if not is_unavailable(error):
                raise

    async def end_restore(self, state: RestoreState, error: DreyError | None = None) -> None:
        """Store the end, of the restore and of its job; waits while Postgres is away."""
        self.execution.close_books()
        outcome = self._final_outcome()
        end = RestoreEnd(
            state, self.execution.counts, (self.items, outcome), error, self.unanswered
        )
        way_back: MadePlan | DreyError | None = None

        async def store_end() -> None:
            nonlocal way_back
            fresh = await self.store.restore(self.restore.id)
            if fresh.state.ended:
                return  # stored before, and the answer was lost
            fresh = replace(fresh, interfered=self.watch.interference.interfered_count)
            if way_back is None and goes_back(self.rules, fresh, state, error):
                way_back = await self._plan_way_back(fresh, outcome)
            try:
                async with self.store.database.begin_transaction() as conn:
                    if isinstance(way_back, MadePlan):
                        fresh = await self._going_back.begin_rollback(conn, fresh, way_back, error)
                    elif way_back is not None:
                        fresh = without_way_back(fresh, way_back)
                    await self._ending.end_in(conn, fresh, end, self.context.end_in)
            except BaseException:
                self.context.not_ended()
                raise
            self._ending.tell_end(fresh.id, end)

        self._show_progress(state)
        await through_outage(store_end)

    def _final_outcome(self) -> Outcome:
        outcome = outcome_of(
            self.items,
            self.execution,
            self.carried,
            before=self.before,
            seen=self.seen,
            readback=self.readback,
        )
        return replace(
            outcome,
            readback_reached=self.reached,
            moving=self.moving,
            interference=self.watch.interference.first,
            interferences=self.watch.interference.count,
        )

    async def _plan_way_back(
        self, restore: RestoreRecord, outcome: Outcome
    ) -> MadePlan | DreyError:
        """The plan of the way back, or why there is none."""
        if not self.execution.anything_sent:
            return FailedPrecondition("nothing was sent", reason=Reason.PLAN_EMPTY)
        try:
            return await self._going_back.prepare_plan(
                *(restore, self.items, outcome, self.readback_before, self.unanswered)
            )
        except DreyError as error:
            if is_unavailable(error):
                raise
            return error

    def _show_progress(self, state: RestoreState) -> None:
        self.context.report_progress(
            self.execution.finished_count, len(self.items.writes), state.name.lower()
        )


async def through_outage(action: Callable[[], Awaitable[T]]) -> T:
    """Do it, again and again while Postgres is away: results are held in memory meanwhile.

    Ends by cancellation when the job's lease is over.
    """
    attempt = 0
    while True:
        try:
            return await action()
        except DreyError as error:
            if not is_unavailable(error):
                raise
        await asyncio.sleep(backoff_delay(attempt))
        attempt += 1


async def read_readbacks(course: Course, rows: I8) -> U1:
    """Classes of the comparison of the stored readbacks of rows with what they show now."""
    reading = await course.channels.table.read_values(
        course.readback_slots(rows), course.limits.read_s
    )
    return note_readbacks(course, rows, reading.values)


def note_readbacks(course: Course, rows: I8, values: Columns) -> U1:
    """As `read_readbacks`, of values that were read."""
    items = course.items
    course.readback = scatter_rows(course.readback, rows, values)
    return compare(
        items.stored_readback.take_rows(rows),
        values,
        items.readback_absolute[rows],
        items.readback_relative[rows],
    ).cls
