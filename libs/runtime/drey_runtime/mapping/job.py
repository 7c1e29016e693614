"""Jobs as messages: one mapping for every service that shows them."""

from __future__ import annotations

from typing import cast

from drey.common.v1 import errors_pb2
from drey.job.v1 import job_pb2
from drey_runtime.jobs import ImportResult, Job
from drey_runtime.mapping.common import actor, timestamp_message

_KINDS = {
    "snapshot": job_pb2.JOB_KIND_SNAPSHOT,
    "restore": job_pb2.JOB_KIND_RESTORE,
    "import": job_pb2.JOB_KIND_IMPORT,
}
_RESULTS = {"snapshots": "snapshot_id", "restores": "restore_id"}
_NO_KIND = "none"


def job_kind(number: int) -> str:
    """The kind as the job table has it; empty for unspecified.

    One of which no jobs are made yet is a kind that no job has.
    """
    if not number:
        return ""
    return next((name for name, code in _KINDS.items() if code == number), _NO_KIND)


def job_to_proto(job: Job) -> job_pb2.Job:
    message = job_pb2.Job(
        id=job.id,
        kind=_KINDS.get(job.kind, job_pb2.JOB_KIND_UNSPECIFIED),
        state=job_pb2.JobState.Value(f"JOB_STATE_{job.state.name}"),
        actor=actor(job.principal, job.role),
        done=max(job.done, 0),
        total=max(job.total, 0),
        phase=job.phase,
        attempts=job.attempts,
        create_time=timestamp_message(job.create_time_ns),
        start_time=timestamp_message(job.start_time_ns),
        end_time=timestamp_message(job.end_time_ns),
        trace_id=job.trace_id,
    )
    _set_result(message, job.result)
    if job.error is not None:
        message.error.CopyFrom(
            errors_pb2.ItemError(
                reason=cast("errors_pb2.ErrorReason.ValueType", int(job.error.reason)),
                field=job.error.field,
                message=job.error.message,
            )
        )
    return message


def _set_result(message: job_pb2.Job, result: str) -> None:
    imported = ImportResult.from_text(result)
    if imported is not None:
        message.import_summary.rows = imported.rows
        message.import_summary.added = imported.added
        message.import_summary.changed = imported.changed
        message.import_summary.unchanged = imported.unchanged
        return
    collection, _, identity = result.partition("/")
    if collection in _RESULTS:
        setattr(message, _RESULTS[collection], identity)
