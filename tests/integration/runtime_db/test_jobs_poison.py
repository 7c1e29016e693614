"""What cannot be what it should be is counted, logged and thrown away; nothing ends over it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from drey_runtime.clock import new_id
from drey_runtime.database import Database
from drey_runtime.jobs import JobContext, JobKind, JobState, JobStore, JobWorker, NewJob

from .conftest import running, until
from .test_jobs import until_listening

NO_NOTICES = [
    "",
    " ",
    "{}",
    "x" * 7999,
    "not-an-id 1 queued mine",
    "1 1 queued mine",
    "'; DROP TABLE jobs.job 1 queued mine",
    f"{new_id()} 1 queued",
    f"{new_id()} one queued mine",
    f"{new_id()} {'9' * 5000} queued mine",
    f"{new_id()}\t1\tqueued\tmine",
    "\ufffd\u2028 \U0001f600 queued mine",
]


async def say(db: Database, *payloads: str) -> None:
    async with db.acquire_connection() as conn:
        for payload in payloads:
            await conn.execute("SELECT pg_notify('drey_jobs', $1)", payload)


async def test_poison_among_notices_ends_nobody(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    async def handler(context: JobContext) -> str:
        done.append(context.job.id)
        return ""

    store = JobStore(db)
    fields = {"principal": "p", "role": "r", "payload": b""}
    # it does not look at the table again, so what it runs, it was told of
    worker = JobWorker(store, {"mine": JobKind(handler)}, owner="w", sweep_s=3600)
    async with running(worker):
        await until_listening(db)
        async with db.begin_transaction() as conn:
            other = await store.create_job(conn, NewJob(kind="other", **fields))
        unknown = f"{new_id()} 1 queued mine"
        wrong_kind = f"{other.id} 1 queued mine"
        # of a version that says more, has another state, or other kinds
        later = [f"{other.id} 1 queued mine and more", f"{other.id} 1 paused mine"]
        with caplog.at_level(logging.ERROR):
            await say(db, *NO_NOTICES, unknown, wrong_kind, *later)
            async with db.begin_transaction() as conn:
                job = await store.create_job(conn, NewJob(kind="mine", **fields))
            await until(lambda: done == [job.id], 60)
    assert sum("thrown away" in record.message for record in caplog.records) == len(NO_NOTICES)
    assert (await store.get_job(other.id)).state is JobState.QUEUED


async def test_a_revision_that_never_was_ends_nobody(db: Database) -> None:
    store = JobStore(db)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(context: JobContext) -> str:
        begun.set()
        await go_on.wait()
        return ""

    seen: list[int] = []
    async with running(JobWorker(store, {"k": JobKind(handler)}, owner="w")):
        async with db.begin_transaction() as conn:
            job = await store.create_job(
                conn, NewJob(kind="k", principal="p", role="r", payload=b"")
            )
        await begun.wait()
        with store.changes.listen_to_job(job.id, seen.append):
            await say(db, f"{job.id} {2**70} running k", f"{job.id} -1 running k")
            await until(lambda: seen[-2:] == [2**70, -1])
        go_on.set()
        assert (await store.wait(job.id, 60)).state is JobState.SUCCEEDED


async def test_what_postgres_cannot_hold_does_not_end_a_worker(db: Database) -> None:
    async def handler(context: JobContext) -> str:
        context.report_progress(2**70, -(2**70), "phase\0 \udcff")
        context.result = "result\0"
        await asyncio.sleep(0.3)
        return "made\0\udcff"

    store = JobStore(db)
    async with running(JobWorker(store, {"k": JobKind(handler)}, owner="w", sweep_s=0.05)):
        async with db.begin_transaction() as conn:
            job = await store.create_job(
                conn, NewJob(kind="k", principal="p", role="r", payload=b"")
            )
        ended = await store.wait(job.id, 60)
    assert ended.state is JobState.SUCCEEDED
    assert (ended.done, ended.total) == (2**63 - 1, -(2**63))


async def test_a_reason_of_a_later_version_can_be_read(db: Database) -> None:
    store = JobStore(db)
    async with db.begin_transaction() as conn:
        job = await store.create_job(conn, NewJob(kind="k", principal="p", role="r", payload=b""))
        await conn.execute(
            "UPDATE jobs.job SET state = 'failed', error_reason = 9999, error_message = 'why'"
        )
    error = (await store.get_job(job.id)).error
    assert error is not None and error.message == "why"
