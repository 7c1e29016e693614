"""Runs one claimed job: its handler, its lease, its progress, its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from drey_core.errors import DreyError, Internal, Reason, Unavailable
from drey_runtime import telemetry
from drey_runtime.database import Connection
from drey_runtime.jobs.context import JobCancelled, JobContext
from drey_runtime.jobs.model import Job, JobEnd, JobError, JobLost, JobState
from drey_runtime.jobs.store import JobStore
from drey_runtime.retrying import backoff_delay

_log = logging.getLogger(__name__)
_PROGRESS_S = 0.1
_SHUTDOWN_S = 5.0
_RETRY_FIRST_S = 1.0
_RETRY_CAP_S = 30.0

Handler = Callable[[JobContext], Awaitable[str]]
OnInterrupted = Callable[[Job], Awaitable[None]]


@dataclass(frozen=True)
class JobKind:
    """How jobs of a kind are run.

    `handler` does the work and returns the result's name (`snapshots/{id}`). It must bear being
    begun again by another process, unless its jobs are created with `rerun=False`. Then, where
    its worker died or it crashed, `on_interrupted` is called (again, if that dies too) before
    the job ends as interrupted.
    """

    handler: Handler
    on_interrupted: OnInterrupted | None = None


class JobRunner:
    """One run of one job: `job` is the claim, asked for at `claimed_at` (monotonic seconds)."""

    def __init__(
        self, store: JobStore, kind: JobKind, job: Job, lease_s: float, claimed_at: float
    ) -> None:
        self._store = store
        self._kind = kind
        self._job = job
        self._lease_s = lease_s
        self._lease_end = claimed_at + lease_s
        self._nudged = asyncio.Event()
        self._lost = False
        # our own writes are announced to us as those of others are
        self._beating = self._concluding = False
        self._announced = 0
        self._context = JobContext(job, self._nudged.set, self._finish_in, lambda: self._lease_end)

    async def run(self) -> None:
        """Run the handler and end the job; when cancelled, give the job back within 5 s.

        Returns without a trace where the job was lost to somebody else. Raises only defects of
        this library and errors of the database that no waiting cures.
        """
        with (
            telemetry.start_span(f"job {self._job.kind}", {"traceparent": self._job.traceparent}),
            self._store.changes.listen_to_job(self._job.id, self._on_change),
        ):
            body = asyncio.ensure_future(self._kind.handler(self._context))
            keeper = asyncio.create_task(self._keep_lease())
            try:
                await asyncio.wait({body, keeper}, return_when=asyncio.FIRST_COMPLETED)
                if keeper.done():
                    await self._stop_task(body)
                    await keeper
                    return
                await self._conclude_job(body)
            except asyncio.CancelledError:
                await self._stop_task(body)
                await self._give_back(body)
                raise
            finally:
                await self._stop_task(keeper)

    async def interrupted(self) -> None:
        """End a job whose worker died and which must not run again. May raise `Unavailable`."""
        await self._tell_interrupted()
        await self._store.finish_job(
            self._job,
            JobEnd(
                JobState.INTERRUPTED,
                error=JobError.error_of_exception(
                    Internal("its worker stopped in the middle; it is not repeated on its own")
                ),
            ),
        )

    async def _tell_interrupted(self) -> None:
        if self._kind.on_interrupted is None:
            return
        try:
            await self._kind.on_interrupted(self._job)
        except Unavailable:
            raise
        except Exception as error:
            # a foreign callback; the job stays as it is, and is tried again after its lease
            _log.exception("on_interrupted failed", extra={"job": self._job.id})
            raise Unavailable(
                f"job {self._job.id} could not be ended as interrupted: {error}",
                reason=Reason.INTERNAL,
            ) from error

    @staticmethod
    async def _stop_task(task: asyncio.Future[Any]) -> None:
        task.cancel()
        await asyncio.wait({task})

    # ---- its end

    async def _conclude_job(self, body: asyncio.Future[str]) -> None:
        """Write the outcome, again and again while Postgres is away and the lease lasts."""
        self._concluding = True
        for attempt in range(1_000_000):
            try:
                await self._write_outcome(body)
                return
            except JobLost:
                _log.warning("job was lost before its end", extra={"job": self._job.id})
                return
            except Unavailable as error:
                if self._lost or time.monotonic() > self._lease_end:
                    _log.error(
                        "the end of a job could not be stored",
                        extra={"job": self._job.id, "error": error.message},
                    )
                    return
            await asyncio.sleep(backoff_delay(attempt))

    async def _write_outcome(self, body: asyncio.Future[str]) -> None:
        if body.cancelled():
            await self._retry_crashed("its handler cancelled itself")
            return
        error = body.exception()
        if error is None and self._context.ended is not None:
            return
        if error is None:
            await self._finish_job(JobState.SUCCEEDED, result=body.result())
        elif isinstance(error, JobLost):
            raise error
        elif isinstance(error, Exception) and not self._job.rerun:
            # its own row says how it ended: only who writes that row may end it
            _log.error("a job's handler crashed", extra={"job": self._job.id}, exc_info=error)
            await self.interrupted()
        elif isinstance(error, JobCancelled):
            await self._finish_job(JobState.CANCELLED)
        elif isinstance(error, DreyError):
            await self._finish_job(JobState.FAILED, error=JobError.error_of_exception(error))
        elif isinstance(error, Exception):
            _log.error("a job's handler crashed", extra={"job": self._job.id}, exc_info=error)
            await self._retry_crashed(f"{type(error).__name__}: {error}")
        else:
            raise error

    async def _finish_job(
        self, state: JobState, *, result: str = "", error: JobError | None = None
    ) -> None:
        await self._store.finish_job(self._job, self._end_as(state, result, error))

    async def _finish_in(
        self, conn: Connection, state: JobState, result: str, error: JobError | None
    ) -> Job | None:
        return await self._store.finish_in(conn, self._job, self._end_as(state, result, error))

    def _end_as(self, state: JobState, result: str, error: JobError | None) -> JobEnd:
        context = self._context
        return JobEnd(
            state, result or context.result, error, context.done, context.total, context.phase
        )

    async def _retry_crashed(self, why: str) -> None:
        """A defect in the handler: again later, a bounded number of times, where that is safe."""
        if not self._job.rerun:
            await self.interrupted()
        elif self._job.attempts >= self._job.max_attempts:
            error = Internal(f"given up after {self._job.attempts} attempts; the last: {why}")
            await self._finish_job(JobState.FAILED, error=JobError.error_of_exception(error))
        else:
            delay = backoff_delay(
                self._job.attempts - 1, first_s=_RETRY_FIRST_S, cap_s=_RETRY_CAP_S
            )
            await self._store.release_job(self._job, delay_s=delay, count=True)

    async def _give_back(self, body: asyncio.Future[str]) -> None:
        """This process stops: somebody else shall go on at once, without waiting for the lease."""
        self._concluding = True
        try:
            async with asyncio.timeout(_SHUTDOWN_S):
                if not body.cancelled():
                    await self._write_outcome(body)
                elif self._job.rerun:
                    await self._store.release_job(self._job, delay_s=0, count=False)
                else:
                    await self.interrupted()
        except (JobLost, Unavailable, TimeoutError) as error:
            _log.warning(
                "a job was not given back; its lease will run out",
                extra={"job": self._job.id, "error": str(error)},
            )

    # ---- its lease

    def _on_change(self, revision: int) -> None:
        self._announced = max(self._announced, revision)
        if revision > self._job.revision and not (self._beating or self._concluding):
            self._nudged.set()

    async def _keep_lease(self) -> None:
        """Renew the lease and store progress; returns when the job is no longer ours.

        Looks for a wish to cancel whenever the job changed, and at least each fifth of the lease.
        Once the handler ends the job in its own transaction the row is locked, which is more than
        a lease, and then ended: neither is the loss of it.
        """
        failures = 0
        while True:
            await self._nudge_or(min(1.0, self._lease_s / 5))
            self._nudged.clear()
            if self._is_ending():
                continue
            try:
                await self._store_heartbeat()
                failures = 0
            except JobLost:
                if self._is_ending() or self._concluding:
                    return await _for_ever()
                _log.warning("job was taken by somebody else", extra={"job": self._job.id})
                self._lost = True
                return
            except Unavailable:
                if time.monotonic() > self._lease_end:
                    _log.error("lease of a job ran out", extra={"job": self._job.id})
                    self._lost = True
                    return
                failures += 1
            await asyncio.sleep(max(_PROGRESS_S, backoff_delay(failures) if failures else 0))

    def _is_ending(self) -> bool:
        return self._context.ending

    async def _nudge_or(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        except TimeoutError:
            return

    async def _store_heartbeat(self) -> None:
        begun = time.monotonic()
        context = self._context
        self._beating, self._announced = True, 0
        try:
            job = await self._store.store_progress(
                self._job, self._lease_s, context.done, context.total, context.phase, context.result
            )
        finally:
            self._beating = False
        self._job = job
        if self._announced > job.revision:
            self._nudged.set()
        self._lease_end = begun + self._lease_s
        if job.cancel_requested:
            context.cancelled.set()


async def _for_ever() -> None:
    """Until cancelled."""
    await asyncio.Event().wait()
