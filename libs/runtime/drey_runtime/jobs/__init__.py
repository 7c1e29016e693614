"""Finite background work: rows in Postgres that say who runs what, JetStream that delivers.

`JobStore` keeps the rows, `OutboxRelay` publishes what a transaction announced, `JobWorker` runs.
"""

from drey_runtime.jobs.context import JobCancelled, JobContext
from drey_runtime.jobs.model import Claim, Holder, Job, JobError, JobLost, JobState, Verdict
from drey_runtime.jobs.outbox import OutboxRelay, enqueue
from drey_runtime.jobs.store import LEASE_HELD, JobStore, record_job
from drey_runtime.jobs.worker import JobWorker, Kind, Place

__all__ = [
    "LEASE_HELD",
    "Claim",
    "Holder",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobError",
    "JobLost",
    "JobState",
    "JobStore",
    "JobWorker",
    "Kind",
    "OutboxRelay",
    "Place",
    "Verdict",
    "enqueue",
    "record_job",
]
