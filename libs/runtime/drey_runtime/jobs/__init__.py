"""Finite background work: rows in Postgres that say who runs what.

`JobStore` keeps the rows, `JobChanges` hears of them, `JobWorker` runs.
"""

from drey_runtime.jobs.changes import JobChanges
from drey_runtime.jobs.context import JobCancelled, JobContext
from drey_runtime.jobs.model import (
    Claim,
    ClaimVerdict,
    ImportResult,
    Job,
    JobEnd,
    JobError,
    JobLost,
    JobState,
    NewJob,
)
from drey_runtime.jobs.store import LEASE_HELD, JobFilter, JobStore, record_job
from drey_runtime.jobs.worker import JobKind, JobWorker

__all__ = [
    "LEASE_HELD",
    "Claim",
    "ClaimVerdict",
    "ImportResult",
    "Job",
    "JobCancelled",
    "JobChanges",
    "JobContext",
    "JobEnd",
    "JobError",
    "JobFilter",
    "JobKind",
    "JobLost",
    "JobState",
    "JobStore",
    "JobWorker",
    "NewJob",
    "record_job",
]
