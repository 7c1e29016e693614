"""What happens to a job when a process or a server dies under it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from drey_runtime.database import Database
from drey_runtime.jobs import Job, JobContext, JobKind, JobState, JobStore
from drey_runtime.migrate import apply_migrations
from drey_stack import Postgres

from .conftest import running, until
from .test_jobs import create, listening, until_listening, worker
from .worker_process import LEASE_S

SCRIPT = str(Path(__file__).with_name("worker_process.py"))


@asynccontextmanager
async def worker_process(
    url: str,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("rerun", [True, False])
async def test_kill_of_a_worker_in_mid_job(url: str, db: Database, rerun: bool) -> None:
    store = JobStore(db)
    kind = "snapshot" if rerun else "restore"
    job = await create(db, store, kind=kind, rerun=rerun)
    began: list[Job] = []
    told: list[Job] = []

    async def handler(context: JobContext) -> str:
        began.append(context.job)
        return "snapshots/2"

    async def interrupted(job: Job) -> None:
        told.append(job)

    async with worker_process(url) as (process, lines):
        async with asyncio.timeout(60):
            assert (await lines.readline()).split() == [job.id.encode(), b"1"]
        others = [
            worker(JobStore(db), JobKind(handler, interrupted), owner=owner)
            for owner in ("w1", "w2")
        ]
        async with running(*others):
            await asyncio.sleep(1.5 * LEASE_S)
            assert (await store.get_job(job.id)).owner.startswith("pid-")
            process.kill()
            ended = await store.wait(job.id, 60)
    if rerun:
        assert (ended.state, ended.result, ended.attempts) == (
            JobState.SUCCEEDED,
            "snapshots/2",
            2,
        )
        assert (len(began), told) == (1, [])
    else:
        assert (ended.state, ended.attempts) == (JobState.INTERRUPTED, 1)
        assert (began, [job.id for job in told]) == ([], [job.id])


async def test_postgres_away_in_mid_job(own_postgres: Postgres) -> None:
    """The end is stored when Postgres is back within the lease; nothing runs twice."""
    await apply_migrations(own_postgres.url, ["drey_runtime"])
    begun, go_on = asyncio.Event(), asyncio.Event()
    runs = 0

    async def handler(context: JobContext) -> str:
        nonlocal runs
        runs += 1
        begun.set()
        await go_on.wait()
        return "snapshots/1"

    async with Database(own_postgres.url) as database:
        store = JobStore(database)
        one = worker(store, handler, lease_s=60)
        async with running(one):
            job = await create(database, store)
            await begun.wait()
            await own_postgres.kill()
            go_on.set()
            await asyncio.sleep(0.5)
            await own_postgres.start()
            ended = await store.wait(job.id, 60)
    assert (ended.state, ended.attempts, runs) == (JobState.SUCCEEDED, 1, 1)


async def test_a_lease_that_runs_out_stops_the_handler(own_postgres: Postgres) -> None:
    await apply_migrations(own_postgres.url, ["drey_runtime"])
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def handler(context: JobContext) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    async with Database(own_postgres.url) as database:
        store = JobStore(database)
        one = worker(store, handler, lease_s=0.5)
        async with running(one):
            await create(database, store)
            await begun.wait()
            await own_postgres.kill()
            async with asyncio.timeout(60):
                await stopped.wait()


async def another_listens(database: Database, than: int) -> bool:
    return bool(set(await listening(database)) - {than})


@pytest.mark.parametrize("how", ["ended", "stands still", "server restarts"])
async def test_a_connection_that_listens_is_made_anew(own_postgres: Postgres, how: str) -> None:
    """The worker looks at the table when it listens again, and not on its own."""
    await apply_migrations(own_postgres.url, ["drey_runtime"])

    async def handler(context: JobContext) -> str:
        return ""

    async with Database(own_postgres.url) as database:
        store = JobStore(database)
        async with running(worker(store, handler, sweep_s=3600)):
            await until_listening(database)
            [session] = await listening(database)
            if how == "ended":
                await database.pool.execute("SELECT pg_terminate_backend($1)", session)
            elif how == "stands still":
                os.kill(session, signal.SIGSTOP)
            else:
                await own_postgres.kill()
                await own_postgres.start()
            try:
                missed = await create(database, store)
                assert (await store.wait(missed.id, 60)).state is JobState.SUCCEEDED
                await until(lambda: another_listens(database, session), 60)
                heard = await create(database, store)
                assert (await store.wait(heard.id, 60)).state is JobState.SUCCEEDED
            finally:
                if how == "stands still":
                    os.kill(session, signal.SIGCONT)
