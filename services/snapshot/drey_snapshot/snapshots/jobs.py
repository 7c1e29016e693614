"""Snapshots as jobs: made with the request, begun at once, elsewhere if this process dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from drey.snapshot.v1.snapshot_service_pb2 import TakeSnapshotRequest
from drey_core.errors import DreyError
from drey_runtime.auth import Principal
from drey_runtime.database import Connection, Database
from drey_runtime.idempotency import once
from drey_runtime.jobs import (
    Holder,
    Job,
    JobCancelled,
    JobContext,
    JobState,
    JobStore,
    JobWorker,
    Kind,
    Place,
)
from drey_snapshot.snapshots.domain.order import TakeOrder
from drey_snapshot.snapshots.domain.records import Record, Source
from drey_snapshot.snapshots.mapping import JOB_KIND, refusal_of, take_order
from drey_snapshot.snapshots.usecases.take import Maker, Reading, Scope, Taker

METHOD = "/drey.snapshot.v1.SnapshotService/TakeSnapshot"
_RESULT = "snapshots/"
_LOOK_S = 1.0
"""How often the row of a job is looked at while nothing is heard of it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A job, and the snapshot where it has made one."""

    job: Job
    record: Record | None


Outcome = Taken | Record | DreyError
"""What a handler says of its job: the whole where it ended it itself, else what it came to."""


class SnapshotJobs:
    """Makes jobs of requests, and is their handler."""

    def __init__(self, db: Database, store: JobStore, taker: Taker) -> None:
        self._db, self._store, self._taker = db, store, taker
        self._worker: JobWorker | None = None
        # Outcomes of jobs that somebody in this process waits for: they say more than the row.
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        # Values that are read while the job that will store them is made.
        self._readings: dict[str, asyncio.Future[Reading]] = {}

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
        checked = await self._check(order)
        if isinstance(checked, DreyError) and not request.request_id:
            raise checked
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        early = None
        if isinstance(checked, Scope) and order.source == Source.IMAGE and wait_s > 0:
            early = asyncio.ensure_future(self._taker.read(order, checked))
        job_id = ""
        try:
            job_id, begun = await self._make(request, principal, checked, early, outcome)
            return await self._finished(job_id, outcome if begun else None, wait_s)
        finally:
            self._waiting.pop(job_id, None)
            unused = self._readings.pop(job_id, None)
            if early is not None and (not job_id or not begun or unused is not None):
                await _cancel(early)

    async def _make(
        self,
        request: TakeSnapshotRequest,
        principal: Principal,
        checked: Scope | DreyError,
        early: asyncio.Future[Reading] | None,
        outcome: asyncio.Future[Outcome],
    ) -> tuple[str, bool]:
        """The id of the job, and whether it was begun here by this call."""
        with self._place() as place:
            holder = place.holder if place else None
            job_id, job = await self._create(request, principal, checked, holder)
            if job is None or place is None:
                return job_id, False
            place.begin(job)
            self._waiting[job_id] = outcome
            if early is not None:
                self._readings[job_id] = early
            return job_id, True

    def _place(self) -> AbstractContextManager[Place | None]:
        return nullcontext() if self._worker is None else self._worker.place()

    async def _finished(
        self, job_id: str, outcome: asyncio.Future[Outcome] | None, wait_s: float
    ) -> Taken:
        """The job once it has ended, or as it is after `wait_s`.

        Of one that runs here the handler tells; the row is looked at in case it never does.
        """
        deadline = time.monotonic() + wait_s
        said: Outcome | None = None
        while outcome is not None and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait({outcome}, timeout=min(_LOOK_S, left))
            if outcome.done():
                said = outcome.result()
                break
            job = await self._store.get(job_id)
            if job.state.ended:
                return await self._taken(job, None)
        if isinstance(said, Taken):
            return said
        job = await self._store.wait(job_id, max(deadline - time.monotonic(), 0))
        return await self._taken(job, said)

    async def _check(self, order: TakeOrder) -> Scope | DreyError:
        """A refusal is not raised at once: a repeat is answered as the first call was."""
        try:
            return await self._taker.check(order)
        except DreyError as error:
            return error

    async def _create(
        self,
        request: TakeSnapshotRequest,
        principal: Principal,
        checked: Scope | DreyError,
        holder: Holder | None,
    ) -> tuple[str, Job | None]:
        """The id of the job, and the job where it is a new one."""
        essential = TakeSnapshotRequest()
        essential.CopyFrom(request)
        essential.ClearField("wait")
        payload = essential.SerializeToString(deterministic=True)
        async with (
            self._db.transaction() as conn,
            once(conn, METHOD, principal.name, request.request_id, payload) as slot,
        ):
            if slot.seen is not None:
                return slot.seen.decode(), None
            if isinstance(checked, DreyError):
                raise checked
            job = await self._store.create(
                conn,
                kind=JOB_KIND,
                principal=principal.name,
                role=principal.roles_text,
                payload=payload,
                total=len(checked.rows),
                holder=holder,
            )
            slot.response = job.id.encode()
        return job.id, job

    async def _taken(self, job: Job, outcome: Record | DreyError | None) -> Taken:
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
        self._tell(job.id, Taken(context.ended, record) if context.ended else record)
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
        taking = asyncio.ensure_future(self._take(context, order, maker))
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

    async def _take(self, context: JobContext, order: TakeOrder, maker: Maker) -> Record:
        progress = self._progress(context, loud=order.source != Source.IMAGE)
        total = context.total
        early = self._readings.pop(context.job.id, None)
        if early is None:
            scope = await self._taker.scope(order)
            total = len(scope.rows)
            progress(0, total, "reading")
            reading = await self._taker.read(order, scope)
        else:
            reading = await early
        progress(total, total, "storing")

        async def finish(conn: Connection, snapshot_id: str) -> None:
            await context.succeed_in(conn, _RESULT + snapshot_id)

        return await self._taker.store(order, reading, maker, finish)

    @staticmethod
    def _progress(context: JobContext, loud: bool) -> Callable[[int, int, str], None]:
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


async def _cancel(task: asyncio.Future[Any]) -> None:
    """Cancel, and wait for the end, whatever that is."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # looked at: nobody else will
