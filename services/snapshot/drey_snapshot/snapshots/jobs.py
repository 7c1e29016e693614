"""Snapshots as jobs: made with the request, begun at once, elsewhere if this process dies."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from drey.snapshot.v1.snapshot_service_pb2 import TakeSnapshotRequest
from drey_core.errors import DreyError
from drey_runtime.auth import Principal
from drey_runtime.database import Database
from drey_runtime.idempotency import once
from drey_runtime.jobs import Job, JobCancelled, JobContext, JobState, JobStore, JobWorker, Kind
from drey_snapshot.snapshots.domain.order import TakeOrder
from drey_snapshot.snapshots.domain.records import Record, Source
from drey_snapshot.snapshots.mapping import JOB_KIND, refusal_of, take_order
from drey_snapshot.snapshots.usecases.take import Maker, Progress, Taker

METHOD = "/drey.snapshot.v1.SnapshotService/TakeSnapshot"
_RESULT = "snapshots/"
_LOOK_S = 1.0
"""How often the row of a job is looked at while nothing is heard of it."""
Outcome = Record | DreyError


@dataclass(frozen=True, slots=True)
class Taken:
    """A job, and the snapshot where it has made one."""

    job: Job
    record: Record | None


class SnapshotJobs:
    """Makes jobs of requests, and is their handler."""

    def __init__(self, db: Database, store: JobStore, taker: Taker) -> None:
        self._db, self._store, self._taker = db, store, taker
        self._worker: JobWorker | None = None
        # Outcomes of jobs that somebody in this process waits for: they say more than the row.
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}

    def kind(self) -> Kind:
        """How the worker runs jobs of this kind."""
        return Kind(self.handle)

    def attach(self, worker: JobWorker) -> None:
        """Begin jobs here at once, by this worker."""
        self._worker = worker

    async def submit(
        self, request: TakeSnapshotRequest, principal: Principal, wait_s: float
    ) -> Taken:
        """Make the job (once a `request_id`), begin it, and wait for its end up to `wait_s`.

        Raises what the job was refused for.
        """
        order = take_order(request)
        refusal, pvs = await self._check(order)
        if refusal is not None and not request.request_id:
            raise refusal
        job_id, is_new = await self._create(request, principal, refusal, pvs)
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[job_id] = outcome
        try:
            begun = is_new and self._worker is not None and self._worker.kick(job_id)
            job = await self._ended(job_id, outcome if begun else None, wait_s)
        finally:
            self._waiting.pop(job_id, None)
        return await self._taken(job, outcome.result() if outcome.done() else None)

    async def _ended(
        self, job_id: str, outcome: asyncio.Future[Outcome] | None, wait_s: float
    ) -> Job:
        """The job once it has ended, or as it is after `wait_s`.

        One that runs here is looked up when it is through, not at each of its steps.
        """
        if outcome is None:
            return await self._store.wait(job_id, wait_s)
        deadline = time.monotonic() + wait_s
        changed = asyncio.Event()
        with self._store.changes.listen(job_id, lambda _revision: changed.set()):
            while not outcome.done() and (left := deadline - time.monotonic()) > 0:
                await asyncio.wait({outcome}, timeout=min(_LOOK_S, left))
                if not outcome.done() and (await self._store.get(job_id)).state.ended:
                    break  # somebody else was quicker to take it
            changed.clear()
            if outcome.done():
                await _wait(changed, min(_LOOK_S, deadline - time.monotonic()))
                job = await self._store.get(job_id)
                if job.state.ended:
                    return job
        return await self._store.wait(job_id, max(deadline - time.monotonic(), 0))

    async def _check(self, order: TakeOrder) -> tuple[DreyError | None, int]:
        """A refusal is not raised at once: a repeat is answered as the first call was."""
        try:
            return None, await self._taker.check(order)
        except DreyError as error:
            return error, 0

    async def _create(
        self,
        request: TakeSnapshotRequest,
        principal: Principal,
        refusal: DreyError | None,
        pvs: int,
    ) -> tuple[str, bool]:
        essential = TakeSnapshotRequest()
        essential.CopyFrom(request)
        essential.ClearField("wait")
        payload = essential.SerializeToString(deterministic=True)
        async with (
            self._db.transaction() as conn,
            once(conn, METHOD, principal.name, request.request_id, payload) as slot,
        ):
            if slot.seen is not None:
                return slot.seen.decode(), False
            if refusal is not None:
                raise refusal
            job = await self._store.create(
                conn,
                kind=JOB_KIND,
                principal=principal.name,
                role=principal.role.name.lower(),
                payload=payload,
                total=pvs,
            )
            slot.response = job.id.encode()
        return job.id, True

    async def _taken(self, job: Job, outcome: Outcome | None) -> Taken:
        if job.state is JobState.SUCCEEDED:
            record = outcome if isinstance(outcome, Record) else await self._taker.made_by(job.id)
            return Taken(job, record)
        if job.state is JobState.CANCELLED:
            raise JobCancelled(f"job {job.id} was cancelled: {job.cancel_reason or 'no reason'}")
        if job.state.ended:
            if isinstance(outcome, DreyError):
                raise outcome
            if job.error is not None:
                raise refusal_of(job.error)
        return Taken(job, None)

    async def handle(self, context: JobContext) -> str:
        """Run one job; the snapshot's name. Begun again after a death, it makes no second one."""
        job = context.job
        try:
            record = await self._run(context)
        except DreyError as error:
            self._tell(job.id, error)
            raise
        self._tell(job.id, record)
        return _RESULT + record.facts.id

    async def _run(self, context: JobContext) -> Record:
        job = context.job
        if job.attempts > 1:
            made = await self._taker.made_by(job.id)
            if made is not None:
                return made
        request = TakeSnapshotRequest.FromString(context.payload)
        maker = Maker(job.id, job.principal, job.role, request.request_id)
        order = take_order(request)
        progress = self._progress(context, loud=order.source != Source.IMAGE)
        taking = asyncio.ensure_future(self._taker.take(order, maker, progress))
        cancelled = asyncio.ensure_future(context.cancelled.wait())
        try:
            await asyncio.wait({taking, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                return taking.result()
            context.check()
            raise AssertionError("unreachable: check() raises when it was cancelled")
        finally:
            for task in (taking, cancelled):
                task.cancel()
            await asyncio.wait({taking, cancelled})

    @staticmethod
    def _progress(context: JobContext, loud: bool) -> Progress:
        """Each report is a write to the database: what takes milliseconds reports at its end."""
        if loud:
            return context.progress

        def note(done: int, total: int, phase: str) -> None:
            context.done, context.total, context.phase = done, total, phase

        return note

    def _tell(self, job_id: str, outcome: Outcome) -> None:
        waiting = self._waiting.get(job_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event, or so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
