"""Finite background work: rows in Postgres that say who runs what.

`JobStore` keeps the rows, `JobChanges` hears of them, `JobWorker` runs.
"""

from drey_runtime.jobs.changes import JobChanges
from drey_runtime.jobs.context import JobCancelled, JobContext
from drey_runtime.jobs.model import Claim, ImportResult, Job, JobError, JobLost, JobState, Verdict
from drey_runtime.jobs.store import LEASE_HELD, JobFilter, JobStore, record_job
from drey_runtime.jobs.worker import JobWorker, Kind

__all__ = [
    "LEASE_HELD",
    "Claim",
    "ImportResult",
    "Job",
    "JobCancelled",
    "JobChanges",
    "JobContext",
    "JobError",
    "JobFilter",
    "JobLost",
    "JobState",
    "JobStore",
    "JobWorker",
    "Kind",
    "Verdict",
    "record_job",
]
