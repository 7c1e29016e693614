"""A job, and what can happen to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from drey_core.errors import DreyError, Reason

_REASONS = frozenset(int(reason) for reason in Reason)
_IMPORT = "import/"


class JobState(StrEnum):
    """Where a job stands; the values are those of the table."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        """Whether nothing further happens to the job."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed."""

    reason: Reason
    message: str
    field: str = ""

    @classmethod
    def error_of_exception(cls, error: DreyError) -> JobError:
        """From a refusal."""
        return cls(error.reason, error.message, error.field)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is to be made.

    `rerun=False` is for work that must not be begun twice, and that has a row of its own which
    says how it ended. Such a job ends `interrupted` when its worker dies. It ends in no other
    way without its handler, which is called for one that was cancelled in the queue too, and
    looks at the start deadline itself. Any other job that is not begun within
    `start_within_s` fails with DEADLINE_EXCEEDED instead of firing late.
    """

    kind: str
    principal: str
    role: str
    payload: bytes = b""
    job_id: str | None = None
    total: int = 0
    result: str = ""
    rerun: bool = True
    max_attempts: int = 5
    start_within_s: float | None = None


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ends. An empty `result`, and what is None, leave what the row says."""

    state: JobState
    result: str = ""
    error: JobError | None = None
    done: int | None = None
    total: int | None = None
    phase: str | None = None


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did, in rows of its file and in PVs; kept in `Job.result` as text."""

    rows: int
    added: int
    changed: int
    unchanged: int

    def to_text(self) -> str:
        """As `Job.result` keeps it."""
        return f"{_IMPORT}{self.rows},{self.added},{self.changed},{self.unchanged}"

    @classmethod
    def from_text(cls, result: str) -> ImportResult | None:
        """Inverse of `to_text`; None for the result of anything else."""
        if not result.startswith(_IMPORT):
            return None
        return cls(*map(int, result.removeprefix(_IMPORT).split(",")))


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `jobs.job` as it was read. Times in nanoseconds since 1970 UTC, 0: not yet.

    `attempts` counts how often a worker has begun it; `term` grows with each claim and fences
    the writes of whoever had it before; `revision` grows with each change that can be seen.
    `result` is `snapshots/{id}`, `restores/{id}`, an `ImportResult` as text, or empty.
    """

    id: str
    kind: str
    state: JobState
    principal: str
    role: str
    payload: bytes
    done: int
    total: int
    phase: str
    result: str
    error: JobError | None
    attempts: int
    max_attempts: int
    rerun: bool
    owner: str
    term: int
    lease_until_ns: int
    not_before_ns: int
    start_by_ns: int
    cancel_requested: bool
    cancel_reason: str
    revision: int
    create_time_ns: int
    start_time_ns: int
    end_time_ns: int
    trace_id: str
    traceparent: str

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Job:
        """From a whole row."""
        fields = dict(row)
        reason = fields.pop("error_reason")
        message, field = fields.pop("error_message"), fields.pop("error_field")
        if reason not in _REASONS:  # written by a later version
            reason = Reason.INTERNAL
        fields["error"] = JobError(Reason(reason), message, field) if reason else None
        fields["state"] = JobState(fields["state"])
        return cls(**fields)


class ClaimVerdict(Enum):
    """What a claim came to."""

    RUN = "run it"
    INTERRUPTED = "its worker died and it must not be run again: end it as interrupted"
    BUSY = "not now: somebody has it, or it is not time yet"
    OVER = "nothing to do: it has ended, is unknown, or not of these kinds"


@dataclass(frozen=True, slots=True)
class Claim:
    """Answer to a claim: the job is there with RUN and INTERRUPTED, and is the caller's then."""

    verdict: ClaimVerdict
    job: Job | None = None


class JobLost(Exception):
    """Somebody else has the job now, or it has ended: the caller must stop working on it."""
