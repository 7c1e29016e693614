"""JobService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import grpc

from drey.job.v1 import job_pb2
from drey.job.v1 import job_service_pb2 as pb
from drey_core.errors import InvalidArgument
from drey_core.token import decode_page_token, query_hash
from drey_runtime import audit
from drey_runtime.auth import current_principal
from drey_runtime.clock import now_ns
from drey_runtime.database import Database
from drey_runtime.jobs import JobFilter, JobState, JobStore
from drey_runtime.mapping.common import time_bound
from drey_runtime.mapping.job import job_kind, job_to_proto
from drey_runtime.paging import check_page_size, cut_page
from drey_runtime.waiting import repeat_last

Context = grpc.aio.ServicerContext[Any, Any]
_MAX_WAIT_S = 60.0
_MOST_COUNTED = 10_000


class JobServicer:
    """Background work of every kind."""

    def __init__(self, store: JobStore, db: Database) -> None:
        self._store, self._db = store, db

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """See the contract."""
        wait = request.wait.ToNanoseconds() / 1e9
        if not 0 <= wait <= _MAX_WAIT_S:
            raise InvalidArgument("wait: is to be between 0 and a minute", field="wait")
        if wait > 0:
            job = await self._store.wait(request.id, wait)
        else:
            job = await self._store.get_job(request.id)
        return pb.GetJobResponse(job=job_to_proto(job))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """See the contract."""
        chosen = JobFilter(
            kind=job_kind(request.kind),
            states=tuple(sorted({_to_state(code) for code in request.states if code})),
            principal=request.principal,
            from_ns=time_bound(request, "from_time"),
            to_ns=time_bound(request, "to_time"),
        )
        query = query_hash(chosen)
        position = decode_page_token("jobs", query, request.page_token, (UUID,))
        before = str(position[0]) if position else None
        size = check_page_size(request.page_size)
        jobs = await self._store.list_jobs(chosen, before=before, limit=size + 1)
        page, token = cut_page("jobs", query, jobs, size, job_to_proto, lambda job: [job.id])
        total = 0
        if before is None:
            total = await self._store.count_jobs(chosen, _MOST_COUNTED) if token else len(page)
        return pb.ListJobsResponse(jobs=page, next_page_token=token, total_size=total)

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchJobResponse]:
        """See the contract."""
        async with aclosing(repeat_last(self._store.watch_job(request.id))) as jobs:
            async for job in jobs:
                yield pb.WatchJobResponse(job=job_to_proto(job))

    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """See the contract."""
        principal = current_principal.get()
        asked = (await self._store.get_job(request.id)).principal
        if principal.name != asked:
            principal.require_permission(
                "job.jobs.cancel_any", f"the job is {asked}'s; cancelling it"
            )
        async with self._db.begin_transaction() as conn:
            job = await self._store.request_cancel(conn, request.id, request.reason)
            await audit.append_entry(
                conn,
                audit.AuditedAct(
                    actor=principal.name,
                    role=principal.roles_text,
                    action="job.cancel",
                    object=f"jobs/{job.id}",
                    after={"kind": job.kind, "reason": request.reason},
                    at_ns=now_ns(),
                    request_id=principal.request_id,
                ),
                events=(),
            )
        return pb.CancelJobResponse(job=job_to_proto(job))


def _to_state(code: int) -> JobState:
    return JobState[job_pb2.JobState.Name(code).removeprefix("JOB_STATE_")]  # type: ignore[arg-type]
