"""The log of events: an event that has been read is never followed by one before it."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack

import pytest

from drey_core.errors import Internal
from drey_runtime.audit import AuditedAct, append_entry
from drey_runtime.clock import now_ns
from drey_runtime.database import Connection, Database
from drey_runtime.event_log import (
    CHANNEL,
    EventKind,
    EventPage,
    Position,
    Resource,
    ResourceChange,
    forget_events,
    read_events,
    record_events,
)
from drey_runtime.jobs import JobEnd, JobState, JobStore, NewJob, record_job
from drey_runtime.listening import NoticeListener
from drey_stack import Postgres

from .conftest import TEMPLATE, make_database, running, until

HOUR_NS = 3600 * 10**9


def change_of(name: str) -> ResourceChange:
    return ResourceChange(Resource.PV, EventKind.UPDATED, name, name)


async def tell(conn: Connection, *names: str, time_ns: int | None = None) -> None:
    await record_events(
        conn,
        [change_of(name) for name in names],
        principal="ann",
        role="editor",
        time_ns=now_ns() if time_ns is None else time_ns,
    )


async def tell_at_once(db: Database, *names: str, time_ns: int | None = None) -> None:
    async with db.begin_transaction() as conn:
        await tell(conn, *names, time_ns=time_ns)


async def read(db: Database, after: Position | None, limit: int = 100) -> EventPage:
    async with db.acquire_connection() as conn:
        return await read_events(conn, after, limit)


async def begin(db: Database) -> Position:
    return (await read(db, None)).position


def names(page: EventPage) -> list[str]:
    return [event.change.id for event in page.events]


async def test_an_event_goes_with_its_transaction(db: Database) -> None:
    start = await begin(db)
    with pytest.raises(ZeroDivisionError):
        async with db.begin_transaction() as conn:
            await tell(conn, "undone")
            raise ZeroDivisionError
    await tell_at_once(db, "a", "b")
    page = await read(db, start)
    assert names(page) == ["a", "b"]
    assert page.events[0].principal == "ann"
    assert page.events[0].change == change_of("a")
    async with db.acquire_connection() as conn:
        with pytest.raises(Internal):
            await tell(conn, "outside")


async def test_one_that_began_first_and_commits_last_is_not_missed(db: Database) -> None:
    """The interleaving that a keyset over a sequence loses."""
    start = await begin(db)
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(db.acquire_connection())
        transaction = slow.transaction()
        await transaction.start()
        await tell(slow, "slow")
        await tell_at_once(db, "fast")
        before = await read(db, start)
        assert names(before) == []  # fast is committed, and may not be read before slow is decided
        assert before.unsettled
        await transaction.commit()
    after = await read(db, before.position)
    assert names(after) == ["slow", "fast"]
    assert not after.unsettled
    assert names(await read(db, after.position)) == []


async def test_one_that_is_undone_holds_the_others_up_no_longer(db: Database) -> None:
    start = await begin(db)
    async with db.acquire_connection() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await tell(slow, "undone")
        await tell_at_once(db, "fast")
        assert names(await read(db, start)) == []
        await transaction.rollback()
    assert names(await read(db, start)) == ["fast"]


async def test_many_writers_with_a_reader_lose_and_repeat_nothing(db: Database) -> None:
    start, seen, writers, each = await begin(db), [], 6, 25

    async def write(writer: int) -> None:
        for number in range(each):
            async with db.begin_transaction() as conn:
                await tell(conn, f"{writer}.{number}.0")
                await asyncio.sleep(0.001 * (writer % 3))  # commits come in another order
                await tell(conn, f"{writer}.{number}.1")

    async with asyncio.TaskGroup() as group:
        writing = [group.create_task(write(writer)) for writer in range(writers)]
        position = start
        while not all(task.done() for task in writing) or len(seen) < 2 * each * writers:
            page = await read(db, position, limit=7)
            assert page.position >= position
            seen += names(page)
            position = page.position
    assert len(seen) == len(set(seen)) == 2 * each * writers
    assert seen == names(await read(db, start, limit=10_000))


async def test_positions_page_through_one_transaction(db: Database) -> None:
    position = await begin(db)
    await tell_at_once(db, *"abcde")
    seen = []
    for _ in range(4):
        page = await read(db, position, limit=2)
        seen.append(names(page))
        position = page.position
    assert seen == [["a", "b"], ["c", "d"], ["e"], []]


async def test_old_events_are_forgotten_and_that_is_known(db: Database) -> None:
    start = await begin(db)
    now = now_ns()
    await tell_at_once(db, "old", time_ns=now - 5 * HOUR_NS)
    between = await begin(db)
    await tell_at_once(db, "young", time_ns=now)
    async with db.begin_transaction() as conn:
        assert await forget_events(conn, now_ns=now, keep_ns=2 * HOUR_NS) == 1
        assert await forget_events(conn, now_ns=now, keep_ns=2 * HOUR_NS) == 0
    page = await read(db, start)
    assert names(page) == ["young"]
    assert page.forgotten >= start.transaction  # who stands there has missed one
    assert page.forgotten < between.transaction
    # an hour is kept, whoever asks
    async with db.begin_transaction() as conn:
        assert await forget_events(conn, now_ns=now + 100 * HOUR_NS, keep_ns=0) == 0


async def test_an_event_that_is_not_decided_yet_is_not_forgotten(db: Database) -> None:
    start = await begin(db)
    async with db.acquire_connection() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await tell(slow, "slow", time_ns=1)
        await tell_at_once(db, "fast", time_ns=1)
        async with db.begin_transaction() as conn:
            assert await forget_events(conn, now_ns=now_ns(), keep_ns=HOUR_NS) == 0
        await transaction.commit()
    assert names(await read(db, start)) == ["slow", "fast"]


async def test_events_of_another_timeline_are_not_read(db: Database) -> None:
    """After a restore from a dump numbers of transactions begin elsewhere."""
    start = await begin(db)
    async with db.begin_transaction() as conn:
        await conn.execute(
            "INSERT INTO event_log.event (transaction, timeline, at_ns, kind, resource, id)"
            " VALUES (1::bigint << 60, 'another', 1, 'created', 'pv', 'elsewhere')"
        )
    await tell_at_once(db, "here")
    page = await read(db, start)
    assert names(page) == ["here"]
    assert not page.unsettled
    assert page.timeline != "another"
    ahead = Position(1 << 60, 0)
    assert (await read(db, ahead)).position < ahead  # a place that this log never gave


async def test_a_table_or_database_that_was_made_again_has_another_timeline(
    db: Database, postgres: Postgres
) -> None:
    """Brought back from a dump it would tell other events under the same numbers."""
    before = await read(db, await begin(db))
    other_url = await make_database(postgres.url, f"t_{uuid.uuid4().hex}", TEMPLATE)
    async with Database(other_url) as other:
        assert (await read(other, None)).timeline != before.timeline
    await tell_at_once(db, "kept")
    async with db.begin_transaction() as conn:
        await conn.execute(
            "ALTER TABLE event_log.event RENAME TO old;"
            "CREATE TABLE event_log.event (LIKE event_log.old INCLUDING ALL);"
            "INSERT INTO event_log.event OVERRIDING SYSTEM VALUE SELECT * FROM event_log.old"
        )
    after = await read(db, before.position)
    assert after.timeline != before.timeline
    assert names(after) == []


async def test_a_resource_of_a_later_version_is_read(db: Database) -> None:
    start = await begin(db)
    async with db.begin_transaction() as conn:
        await conn.execute(
            "INSERT INTO event_log.event (at_ns, kind, resource) VALUES (1, 'created', 'schedule')"
        )
    (event,) = (await read(db, start)).events
    assert event.change.resource is Resource.UNKNOWN


async def test_a_commit_is_heard(db: Database) -> None:
    heard: list[str] = []
    connected = asyncio.Event()
    listener = NoticeListener(
        db.url,
        CHANNEL,
        name="test",
        on_notice=lambda _, payload: heard.append(payload),
        on_connected=connected.set,
    )
    async with running(listener):
        await connected.wait()
        async with db.begin_transaction() as conn:
            await tell(conn, "a", "b")
        await until(lambda: len(heard) == 1)
        async with db.begin_transaction() as conn:
            await append_entry(
                conn, AuditedAct(actor="a", role="", action="x", object="", at_ns=1), events=()
            )
        await until(lambda: len(heard) == 2)


async def test_a_job_tells_of_its_states_and_not_of_its_progress(db: Database) -> None:
    store = JobStore(db)
    start = await begin(db)
    async with db.begin_transaction() as conn:
        job = await store.create_job(
            conn, NewJob(kind="restore", principal="ann", role="restorer", payload=b"")
        )
    claim = await store.claim_job(job.id, "w1", 5.0, ["restore"])
    assert claim.job is not None
    running_job = await store.store_progress(claim.job, 5.0, 1, 2, "writing")
    async with db.begin_transaction() as conn:
        await store.request_cancel(conn, job.id, "enough")
    await store.finish_job(running_job, JobEnd(JobState.CANCELLED))
    async with db.begin_transaction() as conn:
        done = await record_job(
            conn,
            NewJob(kind="import", principal="bob", role="editor", total=1, result=""),
            begin_ns=1,
        )
    told = [
        (event.principal, event.change.id, event.change.kind, event.change.name, event.change.state)
        for event in (await read(db, start)).events
    ]
    assert told == [
        ("ann", job.id, EventKind.CREATED, "restore", "queued"),
        ("ann", job.id, EventKind.STATE_CHANGED, "restore", "running"),
        ("ann", job.id, EventKind.UPDATED, "restore", "running"),
        ("ann", job.id, EventKind.STATE_CHANGED, "restore", "cancelled"),
        ("bob", done.id, EventKind.CREATED, "import", "succeeded"),
    ]
    assert all(event.change.resource is Resource.JOB for event in (await read(db, start)).events)
