"""Snapshots and their jobs: from the image within the call, else by a worker."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from drey.snapshot.v1.snapshot_service_pb2 import TakeSnapshotRequest
from drey_core.errors import DreyError, NotFound, Reason, Unavailable
from drey_runtime.auth import Principal
from drey_runtime.clock import new_id, now_ns
from drey_runtime.database import Connection, Database
from drey_runtime.idempotency import find_answer, run_once
from drey_runtime.jobs import (
    Job,
    JobCancelled,
    JobContext,
    JobError,
    JobKind,
    JobState,
    JobStore,
    NewJob,
    record_job,
)
from drey_runtime.waiting import Turns
from drey_snapshot.catalog.usecases.grants import require_granted_rows
from drey_snapshot.snapshots.adapters.store import SnapshotStore
from drey_snapshot.snapshots.domain.gates import CoverageRefusal, MissingPv
from drey_snapshot.snapshots.domain.order import TakeOrder
from drey_snapshot.snapshots.domain.records import Record, Source
from drey_snapshot.snapshots.mapping import (
    JOB_KIND,
    queued_order,
    queued_payload,
    refusal_detail,
    refusal_of,
    take_order,
)
from drey_snapshot.snapshots.usecases.take import Maker, Scope, Taker

log = logging.getLogger(__name__)

METHOD = "/drey.snapshot.v1.SnapshotService/TakeSnapshot"
PERMISSION = "snapshot.snapshots.take"
_RESULT = "snapshots/"
_AT_ONCE = 4
"""Snapshots from the image at a time, of one key its share: each holds all values in memory."""


@dataclass(frozen=True, slots=True)
class TakeOutcome:
    """A job, and the snapshot where it has made one."""

    job: Job
    record: Record | None


class _Repeated(Exception):
    """Another call with the same `request_id` has made the job meanwhile."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id


class SnapshotJobs:
    """Takes what is asked for, and is the handler of the jobs that a worker runs."""

    def __init__(
        self, db: Database, store: JobStore, snapshots: SnapshotStore, taker: Taker, share: float
    ) -> None:
        self._db, self._store, self._snapshots, self._taker = db, store, snapshots, taker
        self._turns = Turns(_AT_ONCE, share)
        # Refusals of jobs that somebody in this process waits for: they say more than the row.
        self._refusals: dict[str, DreyError | None] = {}

    def kind(self) -> JobKind:
        """How the worker runs jobs of this kind."""
        return JobKind(self.run_take)

    async def submit_take(
        self, request: TakeSnapshotRequest, principal: Principal, wait_s: float
    ) -> TakeOutcome:
        """Take it from the image, or make a job and wait for its end up to `wait_s`.

        Once for a `request_id`. Raises what it was refused for.
        """
        order = take_order(request.spec)
        payload = queued_payload(request)
        if request.request_id:
            async with self._db.acquire_connection() as conn:
                seen = await find_answer(conn, METHOD, principal.name, request.request_id, payload)
            if seen is not None:
                return await self._wait_finished(seen.decode(), wait_s)
        try:
            if order.source != Source.IMAGE:
                return await self._queue_job(order, payload, principal, request.request_id, wait_s)
            async with self._turns.take_turn(principal.holder):
                return await self._take_now(order, payload, principal, request.request_id)
        except CoverageRefusal as refusal:
            if not refusal.details:
                await self._keep_refusal(refusal, new_id())
            raise
        except _Repeated as repeated:
            return await self._wait_finished(repeated.job_id, wait_s)

    async def _take_now(
        self, order: TakeOrder, payload: bytes, principal: Principal, request_id: str
    ) -> TakeOutcome:
        """All within the call: the job, the snapshot and its audit in one transaction."""
        maker = Maker(new_id(), principal.name, principal.roles_text, request_id)
        begin_ns = now_ns()
        scope = await self._check_scope(order, principal)
        reading = await self._taker.gather_values(order, scope)
        job: Job | None = None

        async def finish_take(conn: Connection, snapshot_id: str) -> None:
            nonlocal job
            async with run_once(conn, METHOD, principal.name, request_id, payload) as slot:
                if slot.seen is not None:
                    raise _Repeated(slot.seen.decode())
                job = await record_job(
                    conn,
                    NewJob(
                        job_id=maker.job_id,
                        kind=JOB_KIND,
                        principal=maker.principal,
                        role=maker.role,
                        total=len(scope.rows),
                        result=_RESULT + snapshot_id,
                    ),
                    begin_ns=begin_ns,
                )
                slot.response = job.id.encode()

        record = await self._taker.store_reading(order, reading, maker, finish_take)
        assert job is not None
        return TakeOutcome(job, record)

    async def _check_scope(self, order: TakeOrder, principal: Principal) -> Scope:
        """What will be taken; refused where the caller may take some PVs, and not all of these."""
        scope = await self._taker.check_order(order)
        require_granted_rows(principal, PERMISSION, scope.view, scope.rows, "taking this snapshot")
        return scope

    async def _queue_job(
        self,
        order: TakeOrder,
        payload: bytes,
        principal: Principal,
        request_id: str,
        wait_s: float,
    ) -> TakeOutcome:
        """By a worker, of this process or of another: it takes as long as the channels do."""
        scope = await self._check_scope(order, principal)
        job_id = new_id()
        self._refusals[job_id] = None
        try:
            async with (
                self._db.begin_transaction() as conn,
                run_once(conn, METHOD, principal.name, request_id, payload) as slot,
            ):
                if slot.seen is not None:
                    raise _Repeated(slot.seen.decode())
                await self._store.create_job(
                    conn,
                    NewJob(
                        kind=JOB_KIND,
                        principal=principal.name,
                        role=principal.roles_text,
                        payload=payload,
                        job_id=job_id,
                        total=len(scope.rows),
                    ),
                )
                slot.response = job_id.encode()
            return await self._wait_finished(job_id, wait_s)
        finally:
            del self._refusals[job_id]

    async def _wait_finished(self, job_id: str, wait_s: float) -> TakeOutcome:
        """The job once it has ended, or as it is after `wait_s`."""
        job = await self._store.wait(job_id, wait_s)
        if job.state is JobState.SUCCEEDED:
            return TakeOutcome(job, await self._taker.made_by(job.id))
        if job.state is JobState.CANCELLED:
            raise JobCancelled(f"job {job.id} was cancelled: {job.cancel_reason or 'no reason'}")
        if job.state.ended:
            refusal = self._refusals.get(job.id)
            if refusal is None and job.error is not None:
                refusal = await self._refusal_of(job.id, job.error)
            if refusal is not None:
                raise refusal
        return TakeOutcome(job, None)

    async def read_refusal(self, refusal_id: str) -> list[MissingPv]:
        """What was missing where a gate refused. Raises `NotFound`."""
        missing = await self._snapshots.read_refusal(refusal_id)
        if missing is None:
            raise NotFound(
                f"id: there is no refusal {refusal_id}, or it is not kept any more",
                field="id",
                metadata={"resource": "refusal", "id": refusal_id},
            )
        return missing

    async def _keep_refusal(self, refusal: CoverageRefusal, refusal_id: str) -> None:
        """Store what is missing, and say in the refusal where it is read."""
        try:
            await self._snapshots.add_refusal(refusal_id, refusal.missing)
        except Unavailable as error:
            log.warning("what is missing of a snapshot is not kept: %s", error.message)
            refusal_id = ""
        refusal.details = (refusal_detail(refusal.missing, refusal_id),)

    async def _refusal_of(self, job_id: str, error: JobError) -> DreyError:
        """What refused a job that another process ran, or that ended before somebody asked."""
        refusal = refusal_of(error)
        if error.reason is Reason.COVERAGE_TOO_SMALL:
            missing = await self._snapshots.read_refusal(job_id)
            if missing is not None:
                refusal.details = (refusal_detail(missing, job_id),)
        return refusal

    async def run_take(self, context: JobContext) -> str:
        """Run one job; the snapshot's name. Begun again after a death, it makes no second one."""
        try:
            record = await self._run_job(context)
        except DreyError as error:
            if isinstance(error, CoverageRefusal):
                await self._keep_refusal(error, context.job.id)
            if context.job.id in self._refusals:
                self._refusals[context.job.id] = error
            raise
        return _RESULT + record.facts.id

    async def _run_job(self, context: JobContext) -> Record:
        job = context.job
        if job.attempts > 1:
            made = await self._taker.made_by(job.id)
            if made is not None:
                return made
        order, request_id = queued_order(context.payload)
        maker = Maker(job.id, job.principal, job.role, request_id)
        taking = asyncio.ensure_future(self._take_snapshot(context, order, maker))
        cancelled = asyncio.ensure_future(context.cancelled.wait())
        try:
            await asyncio.wait({taking, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                return taking.result()
            context.check_cancelled()
            raise AssertionError("unreachable: check() raises when it was cancelled")
        finally:
            for task in (taking, cancelled):
                task.cancel()
            await asyncio.wait({taking, cancelled})

    async def _take_snapshot(self, context: JobContext, order: TakeOrder, maker: Maker) -> Record:
        scope = await self._taker.order_scope(order)
        total = len(scope.rows)
        context.report_progress(0, total, "reading")
        reading = await self._taker.gather_values(order, scope)
        context.report_progress(total, total, "storing")

        async def finish_take(conn: Connection, snapshot_id: str) -> None:
            await context.succeed_in(conn, _RESULT + snapshot_id)

        return await self._taker.store_reading(order, reading, maker, finish_take)
