"""The job table. Each call is one statement or one short transaction.

`Unavailable` comes from every call while Postgres is away. Times of leases are the database's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from drey_core.errors import (
    DeadlineExceeded,
    DreyError,
    FailedPrecondition,
    Internal,
    NotFound,
    Unavailable,
)
from drey_runtime import telemetry
from drey_runtime.clock import new_id, now_ns
from drey_runtime.database import Connection, Database, Record
from drey_runtime.jobs.changes import JobChanges
from drey_runtime.jobs.model import (
    Claim,
    ClaimVerdict,
    Job,
    JobEnd,
    JobError,
    JobLost,
    JobState,
    NewJob,
)
from drey_runtime.listening import wait_for_event

_POLL_S = 1.0
_LATEST_NS = 2**63 - 1
_ID_SLACK_NS = 86_400 * 10**9
"""By how much the time in a job's id may differ from when it was made, with room: no more than the
work lasted that was recorded at its end."""

_CREATE = """
INSERT INTO jobs.job (id, kind, state, principal, role, payload, total, result, rerun,
    max_attempts, start_by_ns, create_time_ns, trace_id, traceparent)
VALUES ($1, $2, 'queued', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
RETURNING *
"""
_RECORD = """
INSERT INTO jobs.job (id, kind, state, principal, role, payload, done, total, result, attempts,
    create_time_ns, start_time_ns, end_time_ns, trace_id, traceparent)
VALUES ($1, $2, 'succeeded', $3, $4, '', $5, $5, $6, 1, $7, $7, $8, $9, $10)
RETURNING *
"""
# the ordinary case of a claim; everything else is looked at under a row lock
_CLAIM = """
UPDATE jobs.job SET state = 'running', attempts = attempts + 1, owner = $2, term = term + 1,
    lease_until_ns = jobs.now_ns() + $3, revision = revision + 1, not_before_ns = 0,
    start_time_ns = CASE WHEN start_time_ns = 0 THEN $4 ELSE start_time_ns END
WHERE id = $1 AND kind = ANY($5::text[])
    AND (NOT rerun AND state = 'queued' OR NOT cancel_requested AND attempts < max_attempts
        AND ((state = 'queued' AND not_before_ns <= jobs.now_ns()
              AND (start_by_ns = 0 OR start_by_ns >= $4))
          OR (state = 'running' AND rerun AND lease_until_ns < jobs.now_ns())))
RETURNING *
"""
_TAKE_OVER = """
UPDATE jobs.job SET owner = $2, term = term + 1, lease_until_ns = jobs.now_ns() + $3
WHERE id = $1 RETURNING *
"""
_BEAT = """
UPDATE jobs.job SET lease_until_ns = jobs.now_ns() + $4, done = $5, total = $6, phase = $7,
    result = $8,
    revision = revision + ((done, total, phase, result) IS DISTINCT FROM ($5, $6, $7, $8))::int
WHERE id = $1 AND owner = $2 AND term = $3 AND state = 'running' RETURNING *
"""
_FINISH = """
UPDATE jobs.job SET state = $4, result = CASE WHEN $5 = '' THEN result ELSE $5 END,
    error_reason = $6, error_field = $7, error_message = $8, end_time_ns = $9,
    lease_until_ns = 0, revision = revision + 1, done = $10, total = $11, phase = $12
WHERE id = $1 AND owner = $2 AND term = $3 AND state = 'running' RETURNING *
"""
_RELEASE = """
UPDATE jobs.job SET state = 'queued', lease_until_ns = 0, revision = revision + 1,
    not_before_ns = jobs.now_ns() + $4, attempts = attempts - $5
WHERE id = $1 AND owner = $2 AND term = $3 AND state = 'running' RETURNING *
"""
_END = """
UPDATE jobs.job SET state = $2, error_reason = $3, error_message = $4, end_time_ns = $5,
    lease_until_ns = 0, revision = revision + 1
WHERE id = $1
"""
_CANCEL = """
UPDATE jobs.job SET cancel_requested = true, cancel_reason = $2, revision = revision + 1,
    state = CASE WHEN state = 'queued' AND rerun THEN 'cancelled' ELSE state END,
    end_time_ns = CASE WHEN state = 'queued' AND rerun THEN $3::bigint ELSE 0 END
WHERE id = $1 RETURNING *
"""
_END_QUEUED = """
UPDATE jobs.job SET state = $2, error_reason = $3, error_field = $4, error_message = $5,
    end_time_ns = $6, revision = revision + 1
WHERE id = $1 AND state = 'queued'
"""
# An id begins with the time at which it was made, which bounds the rows that are looked at.
_CHOSEN = """
WHERE ($1::uuid IS NULL OR id < $1) AND ($2 = '' OR kind = $2)
    AND (cardinality($3::text[]) = 0 OR state = ANY($3)) AND ($4 = '' OR principal = $4)
    AND ($5::uuid IS NULL OR id >= $5) AND ($6::uuid IS NULL OR id < $6)
    AND create_time_ns >= $7 AND create_time_ns < $8
"""
_LIST = f"SELECT * FROM jobs.job {_CHOSEN} ORDER BY id DESC LIMIT $9"
_COUNT = f"SELECT count(*) FROM (SELECT FROM jobs.job {_CHOSEN} LIMIT $9) AS chosen"
# everybody's first, then everybody's second: who queues a thousand keeps others waiting for one
_CLAIMABLE = """
SELECT id FROM (
    SELECT id, row_number() OVER (PARTITION BY principal ORDER BY id) AS turn FROM jobs.job
    WHERE kind = ANY($1::text[]) AND state IN ('queued', 'running')
        AND ((state = 'queued' AND not_before_ns <= jobs.now_ns())
          OR (state = 'running' AND lease_until_ns < jobs.now_ns()))) AS open_job
ORDER BY turn, id LIMIT $2
"""


LEASE_HELD = (
    "job.owner = {owner} AND job.term = {term} AND job.state = 'running'"
    " AND job.lease_until_ns >= jobs.now_ns()"
)
"""For a statement that must do nothing once somebody else has the job: true of a row `job` of
`jobs.job` while this claim of it holds. Lock the row too (FOR SHARE), so that it stays true."""


async def record_job(conn: Connection, job: NewJob, *, begin_ns: int) -> Job:
    """Note work that is done in the caller's transaction as a job that has succeeded.

    For work that its caller waits for in any case: nobody sees it before it is done, and where
    it fails there is no job. `begin_ns` is when it began.
    """
    row = await conn.fetchrow(
        _RECORD,
        job.job_id or new_id(),
        job.kind,
        job.principal,
        job.role,
        job.total,
        job.result,
        begin_ns,
        now_ns(),
        telemetry.trace_id(),
        telemetry.trace_headers().get("traceparent", ""),
    )
    return _to_job(row)


def _to_ns(seconds: float) -> int:
    return int(seconds * 1e9)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list shows. What is empty lets everything pass; None is no bound."""

    kind: str = ""
    states: Sequence[JobState] = ()
    principal: str = ""
    from_ns: int | None = None
    to_ns: int | None = None

    def query_arguments(self, before: str | None) -> tuple[object, ...]:
        """What `_CHOSEN` takes, by number."""
        from_ns = max(self.from_ns or 0, 0)
        to_ns = _LATEST_NS if self.to_ns is None else max(self.to_ns, 0)
        return (
            *(before, self.kind, [str(state) for state in self.states], self.principal),
            None if self.from_ns is None else _first_id(from_ns - _ID_SLACK_NS),
            None if self.to_ns is None else _first_id(to_ns + _ID_SLACK_NS),
            *(min(from_ns, _LATEST_NS), min(to_ns, _LATEST_NS)),
        )


def _first_id(time_ns: int) -> str:
    """The lowest id that a job made at a time can have."""
    milliseconds = min(max(time_ns, 0) // 1_000_000, 2**48 - 1)
    return str(UUID(int=milliseconds << 80))


class JobStore:
    """Jobs in Postgres. Run `changes` to hear of them at once: a worker does, who only looks must.

    Without it changes are seen by looking, each second.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.changes = JobChanges(database.url)

    async def create_job(self, conn: Connection, job: NewJob) -> Job:
        """Add a queued job in the caller's transaction; its commit tells the workers."""
        now = now_ns()
        start_by_ns = 0 if job.start_within_s is None else now + _to_ns(job.start_within_s)
        row = await conn.fetchrow(
            _CREATE,
            job.job_id or new_id(),
            job.kind,
            job.principal,
            job.role,
            job.payload,
            job.total,
            job.result,
            job.rerun,
            job.max_attempts,
            start_by_ns,
            now,
            telemetry.trace_id(),
            telemetry.trace_headers().get("traceparent", ""),
        )
        return _to_job(row)

    async def get_job(self, job_id: str) -> Job:
        """One job; NotFound where there is none. The id must be a UUID."""

        async def fetch_job(conn: Connection) -> Record | None:
            return await conn.fetchrow("SELECT * FROM jobs.job WHERE id = $1", job_id)

        row = await self._database.run_reading(fetch_job)
        if row is None:
            raise NotFound(f"no job {job_id}", field="id")
        return _to_job(row)

    async def list_jobs(
        self, chosen: JobFilter, *, before: str | None = None, limit: int = 100
    ) -> list[Job]:
        """Jobs, newest first: those older than the id `before`, the last one of the page before."""

        async def fetch_jobs(conn: Connection) -> Sequence[Record]:
            return await conn.fetch(_LIST, *chosen.query_arguments(before), limit)

        return [_to_job(row) for row in await self._database.run_reading(fetch_jobs)]

    async def count_jobs(self, chosen: JobFilter, most: int) -> int:
        """How many there are, `most` where there are more."""

        async def fetch_count(conn: Connection) -> int:
            count: int = await conn.fetchval(_COUNT, *chosen.query_arguments(None), most)
            return count

        return await self._database.run_reading(fetch_count)

    async def claimable_jobs(self, kinds: Sequence[str], limit: int) -> list[str]:
        """Ids of open jobs that nobody works on, oldest first, each principal's in turn."""

        async def fetch_ids(conn: Connection) -> Sequence[Record]:
            return await conn.fetch(_CLAIMABLE, list(kinds), limit)

        return [row["id"] for row in await self._database.run_reading(fetch_ids)]

    async def claim_job(
        self, job_id: str, owner: str, lease_s: float, kinds: Sequence[str]
    ) -> Claim:
        """Take a job that is queued, or whose worker's lease is over, for `lease_s` seconds.

        Of any number of callers one gets it. Too many attempts, a start deadline that is over
        and a wish to cancel end the job here. `owner` names the process, for people.
        """
        async with self._database.acquire_connection() as conn:
            row = await conn.fetchrow(_CLAIM, job_id, owner, _to_ns(lease_s), now_ns(), list(kinds))
            if row is not None:
                return Claim(ClaimVerdict.RUN, _to_job(row))
            async with conn.transaction():
                return await _claim_otherwise(conn, job_id, owner, lease_s, kinds)

    async def store_progress(
        self, job: Job, lease_s: float, done: int, total: int, phase: str, result: str = ""
    ) -> Job:
        """Renew the lease and store where it stands. Raises JobLost where it is not ours."""
        async with self._database.acquire_connection() as conn:
            row = await conn.fetchrow(
                _BEAT,
                job.id,
                job.owner,
                job.term,
                _to_ns(lease_s),
                _clip_count(done),
                _clip_count(total),
                _clean_text(phase),
                _clean_text(result),
            )
        if row is None:
            raise JobLost(job.id)
        return _to_job(row)

    async def finish_job(self, job: Job, end: JobEnd) -> Job:
        """End a job that we hold. Repeating it after a lost connection is harmless. JobLost."""
        async with self._database.acquire_connection() as conn:
            ended = await self.finish_in(conn, job, end)
        return ended or await self._finished_before(job)

    async def finish_in(self, conn: Connection, job: Job, end: JobEnd) -> Job | None:
        """As `finish`, in the caller's transaction; None where the job is not ours any more."""
        if not end.state.ended:
            raise Internal(f"{end.state} is no end of a job")
        error = end.error
        row = await conn.fetchrow(
            _FINISH,
            job.id,
            job.owner,
            job.term,
            str(end.state),
            _clean_text(end.result),
            int(error.reason) if error else 0,
            _clean_text(error.field) if error else "",
            _clean_text(error.message) if error else "",
            now_ns(),
            job.done if end.done is None else _clip_count(end.done),
            job.total if end.total is None else _clip_count(end.total),
            job.phase if end.phase is None else _clean_text(end.phase),
        )
        return None if row is None else _to_job(row)

    async def end_queued(
        self, conn: Connection, job_id: str, state: JobState, error: JobError | None = None
    ) -> bool:
        """End a job that nobody has begun, in the caller's transaction; False where somebody has.

        Nobody begins it before that transaction is over.
        """
        status = await conn.execute(
            _END_QUEUED,
            *(job_id, str(state), int(error.reason) if error else 0),
            *(
                _clean_text(error.field) if error else "",
                _clean_text(error.message) if error else "",
            ),
            now_ns(),
        )
        return status == "UPDATE 1"

    async def _finished_before(self, job: Job) -> Job:
        """The job, if it was this very claim that ended it; else JobLost."""
        stored_job = await self.get_job(job.id)
        if stored_job.state.ended and (stored_job.owner, stored_job.term) == (job.owner, job.term):
            return stored_job
        raise JobLost(job.id)

    async def release_job(self, job: Job, *, delay_s: float, count: bool) -> Job:
        """Put a job that we hold back into the queue; `count` says if the attempt counts."""
        async with self._database.acquire_connection() as conn:
            row = await conn.fetchrow(
                _RELEASE, job.id, job.owner, job.term, _to_ns(delay_s), 0 if count else 1
            )
        if row is None:
            raise JobLost(job.id)
        return _to_job(row)

    async def request_cancel(self, conn: Connection, job_id: str, reason: str) -> Job:
        """Ask a job to stop, in the caller's transaction; its commit tells who runs it.

        A queued one is cancelled at once, unless its handler ends it (`rerun=False`). Again: the
        same answer. NotFound; WRONG_STATE where it ended in another way.
        """
        row = await conn.fetchrow("SELECT * FROM jobs.job WHERE id = $1 FOR UPDATE", job_id)
        if row is None:
            raise NotFound(f"no job {job_id}", field="id")
        job = _to_job(row)
        if job.state is JobState.CANCELLED or (job.cancel_requested and not job.state.ended):
            return job
        if job.state.ended:
            raise FailedPrecondition(f"job {job_id} has {job.state} already", field="id")
        return _to_job(await conn.fetchrow(_CANCEL, job_id, _clean_text(reason), now_ns()))

    async def watch_job(self, job_id: str, *, poll_s: float = _POLL_S) -> AsyncGenerator[Job, None]:
        """The job now, then after changes (those between two looks merged), until it has ended.

        NotFound for an unknown job. While Postgres is away it waits, after the first answer.
        """
        changed = asyncio.Event()
        with self.changes.listen_to_job(job_id, lambda _revision: changed.set()):
            job = await self.get_job(job_id)
            yield job
            while not job.state.ended:
                await wait_for_event(changed, poll_s)
                changed.clear()
                try:
                    fresh = await self.get_job(job_id)
                except Unavailable:
                    continue
                if fresh.revision != job.revision:
                    job = fresh
                    yield job

    async def wait(self, job_id: str, timeout: float) -> Job:
        """The job once it has ended, or as it is after `timeout` seconds."""
        job = await self.get_job(job_id)
        try:
            async with asyncio.timeout(timeout), aclosing(self.watch_job(job_id)) as jobs:
                async for fresh in jobs:
                    job = fresh
        except TimeoutError:
            return job
        return job


async def _claim_otherwise(
    conn: Connection, job_id: str, owner: str, lease_s: float, kinds: Sequence[str]
) -> Claim:
    """Decide about a job that cannot simply be run, under its row lock."""
    row = await conn.fetchrow(
        "SELECT *, jobs.now_ns() AS now FROM jobs.job WHERE id = $1 FOR UPDATE", job_id
    )
    if row is None:
        return Claim(ClaimVerdict.OVER)
    fields = dict(row)
    now = fields.pop("now")
    job = Job.from_row(fields)
    if job.state.ended or job.kind not in kinds:
        return Claim(ClaimVerdict.OVER)
    if job.state is JobState.RUNNING:
        if job.lease_until_ns >= now:
            return Claim(ClaimVerdict.BUSY)
        if not job.rerun:
            taken = await conn.fetchrow(_TAKE_OVER, job_id, owner, _to_ns(lease_s))
            return Claim(ClaimVerdict.INTERRUPTED, _to_job(taken))
    elif job.not_before_ns > now:
        return Claim(ClaimVerdict.BUSY)
    refusal = _refusal_of(job)
    if refusal is None:
        # it became free between the two looks
        return Claim(ClaimVerdict.BUSY)
    state, error = refusal
    await conn.execute(
        _END,
        job_id,
        str(state),
        int(error.reason) if error else 0,
        error.message if error else "",
        now_ns(),
    )
    return Claim(ClaimVerdict.OVER)


def _refusal_of(job: Job) -> tuple[JobState, DreyError | None] | None:
    """Why a free job is ended rather than run."""
    if job.cancel_requested:
        return JobState.CANCELLED, None
    if job.attempts >= job.max_attempts:
        return JobState.FAILED, Internal(
            f"given up after {job.attempts} attempts: its worker died or failed each time"
        )
    if job.state is JobState.QUEUED and job.start_by_ns and job.start_by_ns < now_ns():
        return JobState.FAILED, DeadlineExceeded(
            "it waited past its start deadline, and does not fire late"
        )
    return None


def _to_job(row: Record | None) -> Job:
    if row is None:
        raise Internal("a statement on jobs.job returned no row")
    return Job.from_row(dict(row))


def _clip_count(number: int) -> int:
    """A number that Postgres can hold."""
    return max(-(2**63), min(number, 2**63 - 1))


def _clean_text(text: str) -> str:
    """Text that Postgres can hold."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()
