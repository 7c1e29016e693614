from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from drey_core.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from drey_runtime.clock import new_id
from drey_runtime.database import Database
from drey_runtime.jobs import (
    ClaimVerdict,
    Job,
    JobChanges,
    JobContext,
    JobEnd,
    JobFilter,
    JobKind,
    JobLost,
    JobState,
    JobStore,
    JobWorker,
    NewJob,
)

from .conftest import running, until

KINDS = ["snapshot", "restore"]


@pytest.fixture
def store(db: Database) -> JobStore:
    return JobStore(db)


async def create(db: Database, store: JobStore, **fields: Any) -> Job:
    given = {"kind": "snapshot", "principal": "ann", "role": "operator", "payload": b"p"}
    async with db.begin_transaction() as conn:
        return await store.create_job(conn, NewJob(**{**given, **fields}))


def worker(store: JobStore, kind: JobKind | Callable[..., Any], **options: Any) -> JobWorker:
    made = kind if isinstance(kind, JobKind) else JobKind(kind)
    settings = {"owner": "w1", "lease_s": 1.0, "sweep_s": 0.1}
    return JobWorker(store, dict.fromkeys(KINDS, made), **{**settings, **options})


async def noop(context: JobContext) -> str:
    return "snapshots/1"


async def expire(db: Database, job: Job) -> None:
    async with db.acquire_connection() as conn:
        await conn.execute("UPDATE jobs.job SET lease_until_ns = 1 WHERE id = $1", job.id)


async def listening(db: Database) -> list[int]:
    """Sessions that have listened for a while: what was missed before has been looked for."""
    async with db.acquire_connection() as conn:
        rows = await conn.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'drey-jobs'"
            " AND datname = current_database() AND state = 'idle' AND query = 'SELECT 1'"
        )
        return [row["pid"] for row in rows]


async def until_listening(db: Database, sessions: int = 1) -> None:
    async def enough() -> bool:
        return len(await listening(db)) == sessions

    await until(enough, 60)


# ---------------------------------------------------------------- the store


async def test_of_many_claims_one_wins(db: Database, store: JobStore) -> None:
    job = await create(db, store)
    claims = await asyncio.gather(*(store.claim_job(job.id, f"w{n}", 60, KINDS) for n in range(10)))
    verdicts = [claim.verdict for claim in claims]
    assert verdicts.count(ClaimVerdict.RUN) == 1
    assert verdicts.count(ClaimVerdict.BUSY) == 9


async def test_a_rolled_back_creation_leaves_nothing(db: Database, store: JobStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.begin_transaction() as conn:
            job = await store.create_job(
                conn, NewJob(kind="snapshot", principal="a", role="b", payload=b"")
            )
            raise ZeroDivisionError
    with pytest.raises(NotFound):
        await store.get_job(job.id)


async def test_an_expired_lease_is_taken_and_fences_the_former_owner(
    db: Database, store: JobStore
) -> None:
    job = await create(db, store)
    first = (await store.claim_job(job.id, "w1", 60, KINDS)).job
    assert first is not None
    await expire(db, job)
    second = (await store.claim_job(job.id, "w1", 60, KINDS)).job
    assert second is not None
    assert (second.attempts, second.term) == (2, 2)
    with pytest.raises(JobLost):
        await store.store_progress(first, 5, 1, 2, "reading")
    with pytest.raises(JobLost):
        await store.finish_job(first, JobEnd(JobState.SUCCEEDED))
    done = await store.finish_job(second, JobEnd(JobState.SUCCEEDED, result="snapshots/7"))
    assert (done.state, done.result, done.error) == (JobState.SUCCEEDED, "snapshots/7", None)
    assert (await store.finish_job(second, JobEnd(JobState.SUCCEEDED))).revision == done.revision


async def test_attempts_are_bounded_and_the_end_says_why(db: Database, store: JobStore) -> None:
    job = await create(db, store, max_attempts=2)
    for _ in range(2):
        assert (await store.claim_job(job.id, "w", 60, KINDS)).verdict is ClaimVerdict.RUN
        await expire(db, job)
    claim = await store.claim_job(job.id, "w", 60, KINDS)
    assert claim.verdict is ClaimVerdict.OVER
    ended = await store.get_job(job.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.reason == Reason.INTERNAL
    assert "2 attempts" in ended.error.message


async def test_past_its_start_deadline_it_does_not_fire(db: Database, store: JobStore) -> None:
    job = await create(db, store, start_within_s=0.01)
    await asyncio.sleep(0.02)
    assert (await store.claim_job(job.id, "w", 60, KINDS)).verdict is ClaimVerdict.OVER
    ended = await store.get_job(job.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.reason == Reason.DEADLINE_EXCEEDED


async def test_kinds_of_others_and_unknown_ids_are_left_alone(
    db: Database, store: JobStore
) -> None:
    job = await create(db, store, kind="import")
    assert (await store.claim_job(job.id, "w", 60, KINDS)).verdict is ClaimVerdict.OVER
    assert (await store.claim_job(new_id(), "w", 60, KINDS)).verdict is ClaimVerdict.OVER
    assert (await store.get_job(job.id)).state is JobState.QUEUED


async def test_lists_are_newest_first_and_paged(db: Database, store: JobStore) -> None:
    made = [await create(db, store, kind="snapshot" if n % 2 else "restore") for n in range(6)]
    ids = [job.id for job in reversed(made)]
    first = await store.list_jobs(JobFilter(), limit=4)
    second = await store.list_jobs(JobFilter(), limit=4, before=first[-1].id)
    assert [job.id for job in first + second] == ids
    assert len(await store.list_jobs(JobFilter(kind="restore"))) == 3
    await store.claim_job(ids[0], "w", 60, KINDS)
    running_jobs = await store.list_jobs(JobFilter(states=[JobState.RUNNING, JobState.FAILED]))
    assert [job.id for job in running_jobs] == ids[:1]


async def test_cancel(db: Database, store: JobStore) -> None:
    queued, taken, done = [await create(db, store) for _ in range(3)]
    await store.claim_job(taken.id, "w", 60, KINDS)
    held = (await store.claim_job(done.id, "w", 60, KINDS)).job
    assert held is not None
    await store.finish_job(held, JobEnd(JobState.SUCCEEDED))
    async with db.begin_transaction() as conn:
        assert (await store.request_cancel(conn, queued.id, "x")).state is JobState.CANCELLED
        assert (await store.request_cancel(conn, queued.id, "x")).state is JobState.CANCELLED
        asked = await store.request_cancel(conn, taken.id, "nul \0 here")
        assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
        with pytest.raises(FailedPrecondition):
            await store.request_cancel(conn, done.id, "x")
        with pytest.raises(NotFound):
            await store.request_cancel(conn, new_id(), "x")
    await expire(db, taken)
    assert (await store.claim_job(taken.id, "w2", 60, KINDS)).verdict is ClaimVerdict.OVER
    assert (await store.get_job(taken.id)).state is JobState.CANCELLED


@pytest.mark.parametrize("heard", [True, False])
async def test_watch_shows_each_state_to_the_end(
    db: Database, store: JobStore, heard: bool
) -> None:
    other = JobStore(db)
    job = await create(db, store)
    seen: list[tuple[JobState, int]] = []

    async def follow() -> None:
        async for change in store.watch_job(job.id, poll_s=60 if heard else 0.02):
            seen.append((change.state, change.done))

    async with running(*([store.changes] if heard else [])):
        task = asyncio.create_task(follow())
        await until(lambda: len(seen) == 1)
        held = (await other.claim_job(job.id, "w", 60, KINDS)).job
        assert held is not None
        await until(lambda: len(seen) == 2)
        held = await other.store_progress(held, 5, 3, 10, "reading")
        await until(lambda: len(seen) == 3)
        await other.finish_job(held, JobEnd(JobState.SUCCEEDED))
        async with asyncio.timeout(60):
            await task
    assert seen == [
        (JobState.QUEUED, 0),
        (JobState.RUNNING, 0),
        (JobState.RUNNING, 3),
        (JobState.SUCCEEDED, 3),
    ]


# ---------------------------------------------------------------- the worker


async def test_the_commit_that_queues_it_tells_the_workers(db: Database, store: JobStore) -> None:
    async with running(worker(JobStore(db), noop, sweep_s=3600)):
        # what was queued before the worker listened, it finds by looking
        for job in [await create(db, store) for _ in range(3)]:
            ended = await store.wait(job.id, 60)
            assert (ended.state, ended.result) == (JobState.SUCCEEDED, "snapshots/1")
        await until_listening(db)
        # it does not look again for an hour: what it runs, it was told of
        for job in [await create(db, store) for _ in range(3)]:
            assert (await store.wait(job.id, 60)).state is JobState.SUCCEEDED


async def test_notices_that_come_many_times_run_it_once(db: Database, store: JobStore) -> None:
    ran = 0

    async def handler(context: JobContext) -> str:
        nonlocal ran
        ran += 1
        await asyncio.sleep(0.2)
        return ""

    workers = [worker(JobStore(db), handler, owner=f"w{n}") for n in range(3)]
    async with running(*workers):
        await until_listening(db, 3)
        job = await create(db, store)
        async with db.acquire_connection() as conn:
            for _ in range(5):
                text = f"{job.id} 1 queued snapshot"
                await conn.execute("SELECT pg_notify('drey_jobs', $1)", text)
        assert (await store.wait(job.id, 60)).attempts == 1
    assert ran == 1


async def test_who_hears_nothing_finds_them_by_looking(
    db: Database, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobChanges, "run", lambda _: asyncio.Event().wait())
    async with running(worker(store, noop)):
        for _ in range(2):
            job = await create(db, store)
            assert (await store.wait(job.id, 60)).state is JobState.SUCCEEDED


async def test_more_jobs_than_places(db: Database, store: JobStore) -> None:
    now_running, most, both = 0, 0, asyncio.Event()

    async def handler(context: JobContext) -> str:
        nonlocal now_running, most
        now_running += 1
        most = max(most, now_running)
        if now_running == 2:
            both.set()
        await both.wait()  # the first waits for a second beside it, however late that comes
        await asyncio.sleep(0.02)
        now_running -= 1
        return ""

    one = worker(store, handler, concurrency=2)
    async with running(one):
        jobs = [await create(db, store) for _ in range(10)]
        for job in jobs:
            assert (await store.wait(job.id, 60)).state is JobState.SUCCEEDED
    assert most == 2


async def test_who_queues_many_keeps_nobody_waiting_for_all(db: Database, store: JobStore) -> None:
    many = [await create(db, store) for _ in range(5)]
    other = await create(db, store, principal="bob")
    assert await store.claimable_jobs(KINDS, 3) == [many[0].id, other.id, many[1].id]


async def test_refusals_and_crashes_show_in_the_job(
    db: Database, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drey_runtime.jobs.runner._RETRY_FIRST_S", 0.01)

    async def handler(context: JobContext) -> str:
        if context.payload == b"refuse":
            raise InvalidArgument("no PV named X", field="names[0]")
        raise ZeroDivisionError("oh")

    one = worker(store, handler)
    async with running(one):
        refused = await create(db, store, payload=b"refuse")
        crashed = await create(db, store, payload=b"crash", max_attempts=3)
        error = (await store.wait(refused.id, 60)).error
        assert error is not None
        assert (error.reason, error.field) == (Reason.INVALID_FIELD, "names[0]")
        ended = await store.wait(crashed.id, 60)
        assert (ended.state, ended.attempts) == (JobState.FAILED, 3)
        assert ended.error is not None
        assert "ZeroDivisionError: oh" in ended.error.message


async def test_cancel_reaches_a_running_handler(db: Database, store: JobStore) -> None:
    begun = asyncio.Event()

    async def handler(context: JobContext) -> str:
        context.result = "restores/9"
        begun.set()
        await context.cancelled.wait()
        context.check_cancelled()
        return "never"

    # heard by the notification: the lease is not looked at within this test
    one = worker(store, handler, lease_s=3600)
    async with running(one):
        job = await create(db, store)
        await begun.wait()
        async with db.begin_transaction() as conn:
            await store.request_cancel(conn, job.id, "enough")
        ended = await store.wait(job.id, 60)
        assert (ended.state, ended.result) == (JobState.CANCELLED, "restores/9")
        assert ended.cancel_reason == "enough"


async def test_progress_is_throttled_and_the_last_is_kept(db: Database, store: JobStore) -> None:
    async def handler(context: JobContext) -> str:
        for n in range(1, 501):
            context.report_progress(n, 500, "reading")
            await asyncio.sleep(0.001)
        return ""

    one = worker(store, handler)
    async with running(one):
        job = await create(db, store)
        ended = await store.wait(job.id, 60)
    assert (ended.done, ended.total, ended.phase) == (500, 500, "reading")
    assert 3 < ended.revision < 20


async def test_its_own_end_is_no_loss(
    db: Database, store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The notice of it may come before the answer of the statement that made it."""
    async with running(worker(store, noop)):
        for _ in range(30):
            job = await create(db, store)
            assert (await store.wait(job.id, 60)).state is JobState.SUCCEEDED
    assert not [r for r in caplog.records if "taken by somebody else" in r.message]


async def test_stopping_a_worker_gives_the_job_to_another(db: Database, store: JobStore) -> None:
    begun = asyncio.Event()

    async def forever(context: JobContext) -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    first = worker(store, forever, lease_s=60)
    job = await create(db, store)
    async with running(first):
        await begun.wait()
    given_back = await store.get_job(job.id)
    assert (given_back.state, given_back.attempts) == (JobState.QUEUED, 0)
    async with running(worker(store, noop, owner="w2")):
        assert (await store.wait(job.id, 60)).state is JobState.SUCCEEDED


async def test_what_must_not_run_again_ends_interrupted(db: Database, store: JobStore) -> None:
    told: list[str] = []
    begun = asyncio.Event()

    async def forever(context: JobContext) -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    async def interrupted(job: Job) -> None:
        told.append(job.id)

    kind = JobKind(forever, on_interrupted=interrupted)
    stopped = await create(db, store, kind="restore", rerun=False)
    async with running(worker(store, kind)):
        await begun.wait()
    assert (await store.get_job(stopped.id)).state is JobState.INTERRUPTED
    dead = await create(db, store, kind="restore", rerun=False)
    await store.claim_job(dead.id, "dead", 0.01, KINDS)
    async with running(worker(store, kind)):
        ended = await store.wait(dead.id, 60)
    assert (ended.state, ended.attempts) == (JobState.INTERRUPTED, 1)
    assert told == [stopped.id, dead.id]


async def test_an_interruption_that_another_claims_meanwhile_does_not_end_the_worker(
    db: Database, store: JobStore
) -> None:
    claims = 0

    async def interrupted(job: Job) -> None:
        nonlocal claims
        claims += 1
        if claims == 1:  # as if ending it took longer than the lease
            await expire(db, job)
            await store.claim_job(job.id, "another", 0.01, KINDS)

    dead = await create(db, store, kind="restore", rerun=False)
    await store.claim_job(dead.id, "dead", 0.01, KINDS)
    async with running(worker(store, JobKind(noop, on_interrupted=interrupted))):
        assert (await store.wait(dead.id, 60)).state is JobState.INTERRUPTED
        later = await create(db, store)
        assert (await store.wait(later.id, 60)).state is JobState.SUCCEEDED
    assert claims >= 2


async def test_a_crash_of_what_must_not_run_again_is_an_interruption(
    db: Database, store: JobStore
) -> None:
    async def crash(context: JobContext) -> str:
        raise ZeroDivisionError

    job = await create(db, store, kind="restore", rerun=False)
    async with running(worker(store, crash)):
        assert (await store.wait(job.id, 60)).state is JobState.INTERRUPTED


async def test_a_long_job_keeps_its_lease(db: Database, store: JobStore) -> None:
    ran, lease_s = 0, 3.0

    async def handler(context: JobContext) -> str:
        nonlocal ran
        ran += 1
        await asyncio.sleep(2 * lease_s)
        return ""

    workers = [worker(JobStore(db), handler, owner=f"w{n}", lease_s=lease_s) for n in "ab"]
    async with running(*workers):
        job = await create(db, store)
        assert (await store.wait(job.id, 60)).attempts == 1
    assert ran == 1
