"""Jobs as messages: one mapping for every service that shows them."""

from __future__ import annotations

from typing import cast

from drey.common.v1 import errors_pb2
from drey.job.v1 import job_pb2
from drey_runtime.jobs import Job
from drey_runtime.mapping.actor import actor

_KINDS = {
    "snapshot": job_pb2.JOB_KIND_SNAPSHOT,
    "restore": job_pb2.JOB_KIND_RESTORE,
    "import": job_pb2.JOB_KIND_IMPORT,
}


def job_kind(number: int) -> str:
    """The kind as the job table has it; empty for unspecified."""
    return next((name for name, code in _KINDS.items() if code == number), "")


def job_to_proto(job: Job) -> job_pb2.Job:
    """A job as it is in the table."""
    message = job_pb2.Job(
        id=job.id,
        kind=_KINDS.get(job.kind, job_pb2.JOB_KIND_UNSPECIFIED),
        state=job_pb2.JobState.Value(f"JOB_STATE_{job.state.name}"),
        actor=actor(job.principal, job.role),
        done=max(job.done, 0),
        total=max(job.total, 0),
        phase=job.phase,
        result=job.result,
        attempts=job.attempts,
        create_time_ns=job.create_time_ns,
        start_time_ns=job.start_time_ns,
        end_time_ns=job.end_time_ns,
        trace_id=job.trace_id,
    )
    if job.error is not None:
        message.error.CopyFrom(
            errors_pb2.ItemError(
                reason=cast("errors_pb2.ErrorReason.ValueType", int(job.error.reason)),
                field=job.error.field,
                message=job.error.message,
            )
        )
    return message
