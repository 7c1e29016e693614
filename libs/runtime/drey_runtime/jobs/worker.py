"""Claims jobs that are queued or left by the dead, and runs them.

The row in Postgres decides who runs a job. A worker hears of it with the commit that queued it
(`JobChanges`), and looks at the table from time to time for what nobody was told of: a worker was
killed, a delay is over, the connection that listens was lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from drey_core.errors import Unavailable
from drey_runtime.jobs.changes import JobNotice
from drey_runtime.jobs.model import ClaimVerdict, Job, JobLost
from drey_runtime.jobs.runner import JobKind, JobRunner
from drey_runtime.jobs.store import JobStore
from drey_runtime.listening import wait_for_event

__all__ = ["JobKind", "JobWorker"]

_log = logging.getLogger(__name__)


class JobWorker:
    """Runs at most `concurrency` jobs of its kinds at a time.

    `owner` names this process in the rows. A job whose worker died is begun again elsewhere after
    at most `lease_s` and `sweep_s` seconds. What finds all places taken is not queued here: it
    stays in the table, and is taken from there as soon as a place is free.
    """

    def __init__(
        self,
        store: JobStore,
        kinds: Mapping[str, JobKind],
        *,
        owner: str,
        concurrency: int = 4,
        lease_s: float = 10.0,
        sweep_s: float = 2.0,
    ) -> None:
        self._store = store
        self._kinds = dict(kinds)
        self._owner = owner
        self._free = concurrency
        self._lease_s = lease_s
        self._sweep_s = sweep_s
        self._group: asyncio.TaskGroup | None = None
        self._sweep_now = asyncio.Event()
        self._turned_away = False

    async def run(self) -> None:
        """Work until cancelled; running jobs are given back then, within five seconds."""
        changes = self._store.changes
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                with changes.listen_to_queue(self._on_queued):
                    group.create_task(changes.run())
                    await self._sweep_jobs()
        finally:
            self._group = None

    # ---- places

    def _begin_job(self, job_id: str) -> bool:
        if self._group is None or self._free <= 0:
            self._turned_away = True
            return False
        self._free -= 1
        self._group.create_task(self._work_on(job_id), name=f"job {job_id}")
        return True

    async def _work_on(self, job_id: str) -> None:
        try:
            await self._try_job(job_id)
        finally:
            self._free += 1
            if self._turned_away:
                self._sweep_now.set()

    # ---- one job

    async def _try_job(self, job_id: str) -> None:
        """Claim and run. What cannot be claimed now is found in the table once it can."""
        begun = time.monotonic()
        try:
            claim = await self._store.claim_job(
                job_id, self._owner, self._lease_s, list(self._kinds)
            )
            if claim.job is not None:
                await self._run_claimed(claim.verdict, claim.job, begun)
        except Unavailable as error:
            _log.warning("job put off", extra={"job": job_id, "error": error.message})
        except JobLost:
            # our lease ran out while we ended an interrupted job: whoever has it now ends it
            _log.warning("job was lost to another claim", extra={"job": job_id})

    async def _run_claimed(self, verdict: ClaimVerdict, job: Job, begun: float) -> None:
        runner = JobRunner(self._store, self._kinds[job.kind], job, self._lease_s, begun)
        if verdict is ClaimVerdict.INTERRUPTED:
            await runner.interrupted()
        else:
            await runner.run()

    # ---- hearing of one

    def _on_queued(self, notice: JobNotice | None) -> None:
        if notice is None:
            self._sweep_now.set()
        elif notice.kind in self._kinds:
            self._begin_job(notice.job_id)

    async def _sweep_jobs(self) -> None:
        """Look at the table for what nobody works on."""
        while True:
            self._turned_away = False
            try:
                if self._free > 0:
                    await self._sweep_once()
            except Unavailable as error:
                _log.debug("jobs not looked for: %s", error.message)
            await wait_for_event(self._sweep_now, self._sweep_s)
            self._sweep_now.clear()

    async def _sweep_once(self) -> None:
        # one more than there are places: it is turned away, and looked for once one is free
        for job_id in await self._store.claimable_jobs(list(self._kinds), self._free + 1):
            if not self._begin_job(job_id):
                return
