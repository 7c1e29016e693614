"""Runs one restore: check, write, verify, say what became of every PV."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import numpy as np

from drey_core.errors import DreyError, FailedPrecondition, Internal
from drey_restore.domain.execution import end_by_shortfall, gate_not_held, gate_not_met
from drey_restore.domain.kinds import RestoreState, Skip
from drey_restore.domain.records import RestoreRecord
from drey_restore.usecases.course import Course, RunParts, through_outage
from drey_restore.usecases.ending import EndJob
from drey_restore.usecases.guards import Guards, GuardWatch
from drey_restore.usecases.notify import RunningRestores
from drey_restore.usecases.record_check import RecordCheck
from drey_restore.usecases.start_check import StartCheck
from drey_restore.usecases.verifier import Verifier
from drey_restore.usecases.writer import SetpointWriter
from drey_runtime.database import Connection
from drey_runtime.jobs import Job, JobContext, JobEnd, JobError, JobLost, JobState, JobStore


class Runner:
    """The job handler."""

    def __init__(
        self,
        parts: RunParts,
        jobs: JobStore,
        guards: Guards,
        records: RecordCheck,
        running: RunningRestores,
    ) -> None:
        self._parts, self._store, self._ending = parts, parts.store, parts.ending
        self._jobs, self._guards, self._records, self._running = jobs, guards, records, running

    async def run(self, context: JobContext) -> str:
        """Execute the restore that the payload names, once; ends the job with it.

        Cancelling it (the process stops, the job is lost) stops sending at once; the journal then
        says what is known.
        """
        restore_id = context.payload.decode()
        restore = await through_outage(lambda: self._store.restore(restore_id))
        if restore.state != RestoreState.WAITING:
            raise Internal(f"restore {restore.id} is {restore.state.name.lower()} already")
        context.result = f"restores/{restore.id}"
        try:
            plan = await through_outage(lambda: self._store.read_plan(restore.plan_id))
            items = await through_outage(
                lambda: self._store.plan_items(restore.plan_id, restore.plan_digest)
            )
            carried = await through_outage(lambda: self._store.carried_outcome(restore))
        except FailedPrecondition as mismatch:
            await self._fail_by_journal(restore, mismatch, context)
            return context.result
        with self._running.running_restore(restore.id) as wishes:
            course = Course(self._parts, restore, (items, plan.rules), context, wishes, carried)
            await _run_with_channels(course, self._guards, self._records)
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
            self._end_claimed(job),
        )

    async def _fail_by_journal(
        self, restore: RestoreRecord, error: DreyError, context: JobContext
    ) -> None:
        async def fail_restore() -> None:
            try:
                await self._ending.end_by_journal(
                    restore, RestoreState.FAILED, error, context.end_in
                )
            except BaseException:
                context.not_ended()
                raise

        await through_outage(fail_restore)

    def _end_claimed(self, job: Job) -> EndJob:
        async def end_restore(conn: Connection, state: JobState, *, error: JobError | None) -> None:
            if await self._jobs.finish_in(conn, job, JobEnd(state, error=error)) is None:
                raise JobLost(job.id)

        return end_restore


async def _run_with_channels(course: Course, guards: Guards, records: RecordCheck) -> None:
    items = course.items
    rows = items.writes
    addresses = course.addresses_of_rows(
        np.flatnonzero(np.isin(items.skip, (Skip.NONE, Skip.EQUAL)))
    )
    addresses += filter(None, (items.readback_addresses[row] for row in rows.tolist()))
    addresses += filter(None, (items.done_address(row) for row in rows.tolist()))
    async with course.channels.use_channels(addresses):
        try:
            await course.end_restore(*await _run_course(course, guards, records))
        except (asyncio.CancelledError, JobLost):
            # nobody waits for them any more: what has not begun shall not begin
            await course.channels.renew_channels(
                course.addresses_of_rows(course.execution.unanswered_rows)
            )
            raise


async def _write_guarded(
    course: Course, watch: GuardWatch, writer: SetpointWriter, verifier: Verifier
) -> None:
    """Write, and watch the guards meanwhile: without a watch nothing is written."""

    def on_end(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            course.halt_restore(
                Internal(f"the watch of the guards has ended: {task.exception()!r}")
            )

    watching = asyncio.create_task(watch.run(course.halt_restore))
    watching.add_done_callback(on_end)
    try:
        await _write_stages(course, watch, writer, verifier)
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _wait_for_gates(course: Course, watch: GuardWatch, first: int, following: int) -> None:
    """Until what the gates from stage `first` to before `following` want holds, or it is late."""
    end = time.monotonic() + course.restore.verify_timeout_ns / 1e9
    for guard in course.rules.must_hold(first, following):
        while (why := watch.not_met(guard)) is not None and not course.is_stopping():
            left = end - time.monotonic()
            if left <= 0:
                course.cut_short = gate_not_held(guard, first, why)
                return
            watch.changed.clear()
            await course.wait_any((), left, watch.changed)


async def _write_stages(
    course: Course, watch: GuardWatch, writer: SetpointWriter, verifier: Verifier
) -> None:
    """Stage by stage; what a gate wants of one holds before the next begins."""
    if len(course.execution.pending_rows):
        await course.advance_state(RestoreState.WRITING)
    stages = course.items.rows_by_stage
    numbers = [int(course.items.stage[rows[0]]) for rows in stages]
    for rows, number, following in zip(stages, numbers, [*numbers[1:], None], strict=True):
        await writer.write_stage(rows)
        if course.is_stopping() or course.cut_short is not None:
            return
        if following is not None:
            await _wait_for_gates(course, watch, number, following)
        if course.is_stopping() or course.cut_short is not None:
            return
        most = course.rules.most_failed(number)
        if most is None:
            continue
        await verifier.judge_readbacks(rows[course.execution.sent_time[rows] != 0])
        failed = course.execution.failed_rows(rows)
        if len(failed) > most:
            course.cut_short = gate_not_met(course.items, rows, failed, most)
            return


async def _run_course(
    course: Course, guards: Guards, records: RecordCheck
) -> tuple[RestoreState, DreyError | None]:
    """How it ends; all but that is done."""
    if course.is_stopping():
        return RestoreState.ABORTED, None
    writer, verifier = SetpointWriter(course), Verifier(course)
    async with AsyncExitStack() as stack:
        try:
            await StartCheck(course, records).run()
            watch = await stack.enter_async_context(guards.watch_rules(course.rules))
            if (broken := watch.broken_guard()) is not None:
                raise broken
            if (failed := course.failed_too_often()) is not None:
                raise failed
        except DreyError as error:
            return RestoreState.FAILED, error
        await stack.enter_async_context(
            course.watch.watch_writes(
                course.execution.pending_rows, course.at_start, course.note_counts
            )
        )
        if not course.is_stopping():
            await _write_guarded(course, watch, writer, verifier)
        await writer.withdraw_announced()
        if course.execution.anything_sent:
            await verifier.run()
    course.execution.close_books()
    course.check_failures(at_end=True)
    if course.is_aborted():
        return RestoreState.ABORTED, None
    if course.cut_short is not None:
        return RestoreState.INTERRUPTED, course.cut_short
    write_timeout_s = course.restore.write_timeout_ns / 1e9
    why = course.channels.table.why_refused(course.slots_of_rows(course.items.writes))
    return end_by_shortfall(course.items, course.execution, write_timeout_s, why)
