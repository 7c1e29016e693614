"""Runs one restore: check, write, verify, say what became of every PV."""

from __future__ import annotations

import asyncio

import numpy as np

from drey_core.errors import DreyError, FailedPrecondition, Internal
from drey_restore.adapters.channels import ChannelPool
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.execution import gate_not_met, shortfall
from drey_restore.domain.kinds import RestoreState, Skip
from drey_restore.domain.records import RestoreRecord
from drey_restore.limits import Clock, Limits
from drey_restore.usecases.course import Course, through_outage
from drey_restore.usecases.ending import Ending, EndJob
from drey_restore.usecases.notify import Notifier, RunningRestores
from drey_restore.usecases.start_check import StartCheck
from drey_restore.usecases.verifier import Verifier
from drey_restore.usecases.writer import Writer
from drey_runtime.database import Connection
from drey_runtime.jobs import Job, JobContext, JobError, JobLost, JobState, JobStore


class Runner:
    """The job handler."""

    def __init__(
        self,
        store: RestoreStore,
        jobs: JobStore,
        channels: ChannelPool,
        ending: Ending,
        notifier: Notifier,
        running: RunningRestores,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._store, self._jobs, self._channels = store, jobs, channels
        self._ending, self._notifier, self._running = ending, notifier, running
        self._limits, self._clock = limits, clock

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
            plan = await through_outage(lambda: self._store.plan(restore.plan_id))
            items = await through_outage(
                lambda: self._store.plan_items(restore.plan_id, restore.plan_digest)
            )
        except FailedPrecondition as mismatch:
            await self._fail_by_journal(restore, mismatch, context)
            return context.result
        with self._running.running(restore.id) as wishes:
            course = Course(
                self._store,
                self._channels,
                self._ending,
                self._notifier,
                self._limits,
                self._clock,
                restore,
                items,
                plan.rules,
                context,
                wishes,
            )
            await _run_with_channels(course)
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
        async def fail() -> None:
            try:
                await self._ending.end_by_journal(
                    restore, RestoreState.FAILED, error, context.end_in
                )
            except BaseException:
                context.not_ended()
                raise

        await through_outage(fail)

    def _end_claimed(self, job: Job) -> EndJob:
        async def end(conn: Connection, state: JobState, *, error: JobError | None) -> None:
            if await self._jobs.finish_in(conn, job, state, error=error) is None:
                raise JobLost(job.id)

        return end


async def _run_with_channels(course: Course) -> None:
    items = course.items
    rows = items.writes
    addresses = course.addresses(np.flatnonzero(np.isin(items.skip, (Skip.NONE, Skip.EQUAL))))
    addresses += filter(None, (items.readback_addresses[row] for row in rows.tolist()))
    addresses += filter(None, (items.done_address(row) for row in rows.tolist()))
    async with course.channels.use(addresses):
        try:
            await _run(course)
        except (asyncio.CancelledError, JobLost):
            # nobody waits for them any more: what has not begun shall not begin
            await course.channels.renew(course.addresses(course.execution.unanswered))
            raise


async def _write_stages(course: Course, writer: Writer, verifier: Verifier) -> None:
    """Stage by stage; what a gate wants of one holds before the next begins."""
    if len(course.execution.pending):
        await course.advance(RestoreState.WRITING)
    for rows in course.items.stages:
        await writer.write_stage(rows)
        if course.is_stopping() or course.cut_short is not None:
            return
        most = course.rules.most_failed(int(course.items.stage[rows[0]]))
        if most is None:
            continue
        await verifier.judge(rows[course.execution.sent_time[rows] != 0])
        failed = course.execution.failed(rows)
        if len(failed) > most:
            course.cut_short = gate_not_met(course.items, rows, failed, most)
            return


async def _run(course: Course) -> None:
    if course.is_stopping():
        await course.end(RestoreState.ABORTED)
        return
    try:
        await StartCheck(course).run()
    except DreyError as error:
        await course.end(RestoreState.FAILED, error)
        return
    writer, verifier = Writer(course), Verifier(course)
    if not course.is_stopping():
        await _write_stages(course, writer, verifier)
    await writer.withdraw()
    if course.execution.anything_sent:
        await verifier.run()
    course.execution.close()
    if course.is_stopping():
        await course.end(RestoreState.ABORTED)
    elif course.cut_short is not None:
        await course.end(RestoreState.INTERRUPTED, course.cut_short)
    else:
        write_timeout_s = course.restore.write_timeout_ns / 1e9
        await course.end(
            *shortfall(
                items=course.items, execution=course.execution, write_timeout_s=write_timeout_s
            )
        )
