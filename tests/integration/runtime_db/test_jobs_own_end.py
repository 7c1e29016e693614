"""Jobs that are claimed as they are created, and that end in their handler's transaction."""

from __future__ import annotations

import asyncio

import pytest

from drey_core.errors import FailedPrecondition
from drey_runtime.database import Database
from drey_runtime.jobs import JobContext, JobLost, JobState, JobStore, JobWorker, Kind, Verdict
from drey_runtime.jobs.runner import Handler

from .conftest import running
from .test_jobs import create, expire

KINDS = ["snapshot"]


@pytest.fixture
async def store(db: Database) -> JobStore:
    async with db.acquire() as conn:
        await conn.execute("CREATE TABLE made (job_id text)")
    return JobStore(db)


def worker(store: JobStore, handler: Handler, *, concurrency: int = 4) -> JobWorker:
    return JobWorker(
        store,
        {"snapshot": Kind(handler)},
        owner="w1",
        lease_s=0.5,
        sweep_s=0.1,
        concurrency=concurrency,
    )


async def made(db: Database) -> int:
    async with db.acquire() as conn:
        return await conn.fetchval("SELECT count(*) FROM made")


async def begin(db: Database, store: JobStore, one: JobWorker) -> str:
    with one.place() as place:
        assert place is not None
        job = await create(db, store, holder=place.holder)
        assert (job.state, job.attempts, job.term) == (JobState.RUNNING, 1, 1)
        place.begin(job)
        return job.id


async def test_a_job_with_a_holder_is_nobody_elses(db: Database, store: JobStore) -> None:
    go_on = asyncio.Event()

    async def handler(context: JobContext) -> str:
        await go_on.wait()
        return "snapshots/1"

    one = worker(store, handler)
    async with running(one):
        await asyncio.sleep(0)
        job_id = await begin(db, store, one)
        assert (await store.claim(job_id, "w2", 5, KINDS)).verdict is Verdict.BUSY
        go_on.set()
        ended = await store.wait(job_id, 5)
    assert (ended.state, ended.attempts, ended.owner) == (JobState.SUCCEEDED, 1, "w1")
    assert ended.start_time_ns >= ended.create_time_ns > 0


async def test_a_holder_that_dies_is_followed_by_another(db: Database, store: JobStore):
    async def handler(context: JobContext) -> str:
        return "snapshots/1"

    one = worker(store, handler)
    async with running(one):
        await asyncio.sleep(0)
        with one.place() as place:
            assert place is not None
            job = await create(db, store, holder=place.holder)  # and dies before it begins
        ended = await store.wait(job.id, 10)
    assert (ended.state, ended.attempts) == (JobState.SUCCEEDED, 2)


async def test_a_place_that_is_not_used_is_free_again(db: Database, store: JobStore) -> None:
    async def handler(context: JobContext) -> str:
        return ""

    one = worker(store, handler, concurrency=1)
    with one.place() as place:
        assert place is None  # it does not run yet
    async with running(one):
        await asyncio.sleep(0)
        with pytest.raises(ZeroDivisionError), one.place() as place:
            assert place is not None
            with one.place() as second:
                assert second is None
            raise ZeroDivisionError
        ended = await store.wait(await begin(db, store, one), 5)
    assert ended.state is JobState.SUCCEEDED


async def test_work_and_end_are_committed_together(db: Database, store: JobStore) -> None:
    """Also while the transaction lasts longer than the lease, and beats and claims go on."""

    async def handler(context: JobContext) -> str:
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO made VALUES ($1)", context.job.id)
            context.progress(1, 2, "storing")
            ended = await context.succeed_in(conn, "snapshots/1")
            assert ended.state is JobState.SUCCEEDED
            await asyncio.sleep(1.2)
            assert (await store.get(context.job.id)).state is JobState.RUNNING
        return "snapshots/1"

    one = worker(store, handler)
    async with running(one):
        await asyncio.sleep(0)
        ended = await store.wait(await begin(db, store, one), 10)
    assert (ended.state, ended.attempts) == (JobState.SUCCEEDED, 1)
    assert (ended.result, ended.done, ended.phase) == ("snapshots/1", 1, "storing")
    assert await made(db) == 1


async def test_what_is_rolled_back_has_not_succeeded(db: Database, store: JobStore) -> None:
    async def handler(context: JobContext) -> str:
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO made VALUES ($1)", context.job.id)
            await context.succeed_in(conn, "snapshots/1")
            raise FailedPrecondition("changed its mind")

    one = worker(store, handler)
    async with running(one):
        await asyncio.sleep(0)
        ended = await store.wait(await begin(db, store, one), 5)
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
            async with db.transaction() as conn:
                await conn.execute("INSERT INTO made VALUES ($1)", context.job.id)
                with pytest.raises(JobLost):
                    await context.succeed_in(conn, "snapshots/1")
                raise JobLost(context.job.id)
        finally:
            over.set()

    one = JobWorker(store, {"snapshot": Kind(handler)}, owner="w1", lease_s=60, sweep_s=60)
    async with running(one):
        await asyncio.sleep(0)
        job_id = await begin(db, store, one)
        await ready.wait()
        await expire(db, await store.get(job_id))
        taken = await store.claim(job_id, "w2", 60, KINDS)
        assert taken.verdict is Verdict.RUN
        go_on.set()
        await over.wait()
        assert (await store.get(job_id)).owner == "w2"
    assert await made(db) == 0
