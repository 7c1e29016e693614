"""What a handler sees of the job it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from drey_core.errors import FailedPrecondition
from drey_runtime.database import Connection
from drey_runtime.jobs.model import Job, JobError, JobLost, JobState

Finish = Callable[[Connection, JobState, str, JobError | None], Awaitable[Job | None]]


class JobCancelled(FailedPrecondition):
    """The handler stopped because somebody asked for it."""


class JobContext:
    """Handed to a handler. Use on the event loop that runs the handler.

    `cancelled` is set when somebody asked the job to stop; the handler chooses a safe point.
    `result` may be set as soon as it is known, and is seen while the job runs. `ended` is the job
    as `succeed_in` or `end_in` ended it.
    """

    def __init__(
        self,
        job: Job,
        nudge: Callable[[], None],
        finish: Finish,
        lease_end: Callable[[], float],
    ) -> None:
        self.job = job
        self.cancelled = asyncio.Event()
        if job.cancel_requested:
            self.cancelled.set()
        self.done, self.total, self.phase = job.done, job.total, job.phase
        self._result = job.result
        self._nudge = nudge
        self._finish = finish
        self._lease_end = lease_end
        self.ending = False
        self.ended: Job | None = None

    @property
    def payload(self) -> bytes:
        """What the job was created with."""
        return self.job.payload

    @property
    def result(self) -> str:
        """Resource that it makes or works on: `snapshots/{id}`."""
        return self._result

    @result.setter
    def result(self, value: str) -> None:
        self._result = value
        self._nudge()

    def report_progress(self, done: int, total: int, phase: str = "") -> None:
        """Note where it stands. Never blocks: the latest is stored, at most ten times a second.

        An empty `phase` leaves the phase as it was.
        """
        self.done, self.total = done, total
        self.phase = phase or self.phase
        self._nudge()

    async def succeed_in(self, conn: Connection, result: str) -> Job:
        """End the job as succeeded in the handler's own transaction: both happen, or neither.

        The handler must return `result` once it is committed, and raise where it was not. From
        here to the commit nobody else can claim the job, as its row is locked. Raises JobLost,
        which must roll the transaction back, where somebody else has it already.
        """
        return await self.end_in(conn, JobState.SUCCEEDED, result=result)

    async def end_in(
        self,
        conn: Connection,
        state: JobState,
        *,
        result: str = "",
        error: JobError | None = None,
    ) -> Job:
        """End the job in any way, as `succeed_in` does.

        A handler whose transaction failed, and that tries again, calls `not_ended` in between.
        """
        self.ending = True
        ended = await self._finish(conn, state, result, error)
        if ended is None:
            raise JobLost(self.job.id)
        self.ended = ended
        return ended

    def not_ended(self) -> None:
        """The transaction of `end_in` failed: the lease is kept, and the job goes on."""
        self.ending, self.ended = False, None
        self._nudge()

    def check_lease(self) -> None:
        """Raise JobLost where the lease may be over: somebody else may have the job by now.

        By this host's monotonic clock, which goes on while the process is stopped, so it must be
        asked right before each act that nobody can take back. The statement that announces such
        an act asks the database too: see `LEASE_HELD`.
        """
        if time.monotonic() >= self._lease_end():
            raise JobLost(self.job.id)

    def check_cancelled(self) -> None:
        """Raise JobCancelled if somebody asked the job to stop."""
        if self.cancelled.is_set():
            raise JobCancelled(f"job {self.job.id} was cancelled")
