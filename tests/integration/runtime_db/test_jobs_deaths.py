"""What happens to a job when a process or a server dies under it."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from drey_runtime.bus import Bus
from drey_runtime.database import Database
from drey_runtime.jobs import Job, JobContext, JobState, JobStore, JobWorker, Kind, OutboxRelay
from drey_runtime.migrate import apply
from drey_stack import Nats, Postgres

from .conftest import running, until
from .test_jobs import create, worker

SCRIPT = str(Path(__file__).with_name("worker_process.py"))


@asynccontextmanager
async def worker_process(
    url: str, nats: Nats, bus: Bus
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, url, nats.url, bus.namespace, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("rerun", [True, False])
async def test_kill_of_a_worker_in_mid_job(
    url: str, db: Database, nats_part: Nats, bus: Bus, rerun: bool
) -> None:
    store = JobStore(db, bus)
    kind = "snapshot" if rerun else "restore"
    job = await create(db, store, kind=kind, rerun=rerun)
    began: list[Job] = []
    told: list[Job] = []

    async def handler(context: JobContext) -> str:
        began.append(context.job)
        return "snapshots/2"

    async def interrupted(job: Job) -> None:
        told.append(job)

    async with worker_process(url, nats_part, bus) as (process, lines):
        async with asyncio.timeout(20):
            assert (await lines.readline()).split() == [job.id.encode(), b"1"]
        others = [
            worker(JobStore(db, bus), bus, Kind(handler, interrupted), owner=owner)
            for owner in ("w1", "w2")
        ]
        async with running(*others, OutboxRelay(db, bus)):
            await asyncio.sleep(1.5)
            assert (await store.get(job.id)).owner.startswith("pid-")
            process.kill()
            ended = await store.wait(job.id, 10)
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


async def test_postgres_away_in_mid_job(own_postgres: Postgres, bus: Bus) -> None:
    """The end is stored when Postgres is back within the lease; nothing runs twice."""
    await apply(own_postgres.url, ["drey_runtime"])
    begun, go_on = asyncio.Event(), asyncio.Event()
    runs = 0

    async def handler(context: JobContext) -> str:
        nonlocal runs
        runs += 1
        begun.set()
        await go_on.wait()
        return "snapshots/1"

    async with Database(own_postgres.url) as database:
        store = JobStore(database, bus)
        one = worker(store, bus, handler, lease_s=20)
        async with running(one, OutboxRelay(database, bus)):
            await asyncio.sleep(0)
            job = await create(database, store)
            one.kick(job.id)
            await begun.wait()
            await own_postgres.kill()
            go_on.set()
            await asyncio.sleep(0.5)
            await own_postgres.start()
            ended = await store.wait(job.id, 10)
    assert (ended.state, ended.attempts, runs) == (JobState.SUCCEEDED, 1, 1)


async def test_a_lease_that_runs_out_stops_the_handler(own_postgres: Postgres, bus: Bus) -> None:
    await apply(own_postgres.url, ["drey_runtime"])
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def handler(context: JobContext) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    async with Database(own_postgres.url) as database:
        store = JobStore(database, bus)
        one = worker(store, bus, handler, lease_s=0.5)
        async with running(one):
            await asyncio.sleep(0)
            job = await create(database, store)
            one.kick(job.id)
            await begun.wait()
            await own_postgres.kill()
            async with asyncio.timeout(10):
                await stopped.wait()


async def test_a_restart_of_nats_loses_nothing(db: Database, tmp_path: Path) -> None:
    async with Nats(tmp_path / "nats") as part:
        bus = Bus(part.url, "ns", "test")
        store = JobStore(db, bus)

        async def handler(context: JobContext) -> str:
            return ""

        slow = JobWorker(store, bus, {"snapshot": Kind(handler)}, owner="w", sweep_s=60)
        async with running(bus, slow, OutboxRelay(db, bus, poll_s=0.05)):
            await bus.wait_connected(10)
            first = await create(db, store)
            assert (await store.wait(first.id, 10)).state is JobState.SUCCEEDED
            await part.kill()
            await until(lambda: not bus.connected)
            second = await create(db, store)
            await asyncio.sleep(0.3)
            await part.start()
            begun = time.perf_counter()
            assert (await store.wait(second.id, 20)).state is JobState.SUCCEEDED
            print(f"delivered {time.perf_counter() - begun:.1f} s after NATS came back")


@pytest.mark.serial
async def test_overhead_of_a_job(tmp_path: Path, bus: Bus) -> None:
    """Create, commit, run nothing, end, all of it fsync'd: printed, and far from slow."""

    async def handler(context: JobContext) -> str:
        return ""

    async with Postgres(tmp_path / "pg") as part:
        await apply(part.url, ["drey_runtime"])
        async with Database(part.url, min_size=4) as database:
            store = JobStore(database, bus)
            one = worker(store, bus, handler, sweep_s=60, lease_s=30)
            async with running(database, one, OutboxRelay(database, bus)):
                await database.wait_ready(10)
                times = [await timed(database, store, one) for _ in range(60)]
    median = statistics.median(times[10:])
    print(f"create + kick + end of a job: median {median * 1e3:.1f} ms, worst {max(times):.3f} s")
    assert median < 0.2


async def timed(database: Database, store: JobStore, one: JobWorker) -> float:
    begun = time.perf_counter()
    job = await create(database, store)
    one.kick(job.id)
    ended = await store.wait(job.id, 10)
    assert ended.state is JobState.SUCCEEDED
    return time.perf_counter() - begun
