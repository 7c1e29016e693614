"""Jobs that end in their handler's transaction, or are noted in that of the work itself."""

from __future__ import annotations

import asyncio

import pytest

from drey_core.errors import FailedPrecondition, NotFound
from drey_runtime.clock import new_id
from drey_runtime.database import Database
from drey_runtime.jobs import (
    ClaimVerdict,
    JobContext,
    JobKind,
    JobLost,
    JobState,
    JobStore,
    JobWorker,
    NewJob,
    record_job,
)
from drey_runtime.jobs.runner import Handler

from .conftest import running
from .test_jobs import create, expire

KINDS = ["snapshot"]
LEASE_S = 2.0


@pytest.fixture
async def store(db: Database) -> JobStore:
    async with db.acquire_connection() as conn:
        await conn.execute("CREATE TABLE made (job_id text)")
    return JobStore(db)


def worker(store: JobStore, handler: Handler) -> JobWorker:
    return JobWorker(
        store, {"snapshot": JobKind(handler)}, owner="w1", lease_s=LEASE_S, sweep_s=0.1
    )


async def made(db: Database) -> int:
    async with db.acquire_connection() as conn:
        return await conn.fetchval("SELECT count(*) FROM made")


async def test_work_that_is_done_is_noted_with_it(db: Database, store: JobStore) -> None:
    fields = {"kind": "snapshot", "principal": "ann", "role": "operator"}
    with pytest.raises(ZeroDivisionError):
        async with db.begin_transaction() as conn:
            undone = await record_job(
                conn, NewJob(total=7, result="snapshots/1", **fields), begin_ns=5
            )
            raise ZeroDivisionError
    with pytest.raises(NotFound):
        await store.get_job(undone.id)
    async with db.begin_transaction() as conn:
        made = await record_job(
            conn, NewJob(total=7, result="snapshots/2", job_id=new_id(), **fields), begin_ns=5
        )
    assert await store.get_job(made.id) == made
    assert (made.state, made.attempts, made.result) == (JobState.SUCCEEDED, 1, "snapshots/2")
    assert (made.done, made.total, made.start_time_ns) == (7, 7, 5)
    assert made.end_time_ns > made.create_time_ns == 5
    assert (await store.claim_job(made.id, "w", 60, KINDS)).verdict is ClaimVerdict.OVER


async def test_work_and_end_are_committed_together(db: Database, store: JobStore) -> None:
    """Also while the transaction lasts longer than the lease, and beats and claims go on."""

    async def handler(context: JobContext) -> str:
        async with db.begin_transaction() as conn:
            await conn.execute("INSERT INTO made VALUES ($1)", context.job.id)
            context.report_progress(1, 2, "storing")
            ended = await context.succeed_in(conn, "snapshots/1")
            assert ended.state is JobState.SUCCEEDED
            await asyncio.sleep(1.5 * LEASE_S)
            assert (await store.get_job(context.job.id)).state is JobState.RUNNING
        return "snapshots/1"

    one = worker(store, handler)
    async with running(one):
        ended = await store.wait((await create(db, store)).id, 60)
    assert (ended.state, ended.attempts) == (JobState.SUCCEEDED, 1)
    assert (ended.result, ended.done, ended.phase) == ("snapshots/1", 1, "storing")
    assert await made(db) == 1


async def test_what_is_rolled_back_has_not_succeeded(db: Database, store: JobStore) -> None:
    async def handler(context: JobContext) -> str:
        async with db.begin_transaction() as conn:
            await conn.execute("INSERT INTO made VALUES ($1)", context.job.id)
            await context.succeed_in(conn, "snapshots/1")
            raise FailedPrecondition("changed its mind")

    one = worker(store, handler)
    async with running(one):
        ended = await store.wait((await create(db, store)).id, 60)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.message == "changed its mind"
    assert (ended.result, await made(db)) == ("", 0)


async def test_who_lost_the_job_stores_nothing(db: Database, store: JobStore) -> None:
    ready, go_on, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(context: JobContext) -> str:
        ready.set()
        await go_on.wait()
        try:
            async with db.begin_transaction() as conn:
                await conn.execute("INSERT INTO made VALUES ($1)", context.job.id)
                with pytest.raises(JobLost):
                    await context.succeed_in(conn, "snapshots/1")
                raise JobLost(context.job.id)
        finally:
            over.set()

    one = JobWorker(store, {"snapshot": JobKind(handler)}, owner="w1", lease_s=60, sweep_s=60)
    async with running(one):
        job_id = (await create(db, store)).id
        await ready.wait()
        await expire(db, await store.get_job(job_id))
        taken = await store.claim_job(job_id, "w2", 60, KINDS)
        assert taken.verdict is ClaimVerdict.RUN
        go_on.set()
        await over.wait()
        assert (await store.get_job(job_id)).owner == "w2"
    assert await made(db) == 0
