from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from drey_core.errors import Unavailable
from drey_runtime.database import Database
from drey_runtime.lease import LeaseLost
from drey_runtime.lease_postgres import PostgresLease, lock_key, session_name
from drey_runtime.migrate import apply_migrations
from drey_stack import Postgres
from drey_testing.lease import LeaseSuite

from .conftest import until

HOLDER = """
import asyncio, sys
from drey_runtime.lease_postgres import PostgresLease
from drey_testing.lease import say_whether_valid
asyncio.run(say_whether_valid(PostgresLease(sys.argv[1], owner="child"), sys.argv[2]))
"""


class PostgresSite:
    """A server of its own, since it is killed."""

    stopped_is_followed = False

    def __init__(self, part: Postgres) -> None:
        self._part = part
        self.intruder: asyncpg.Connection[asyncpg.Record] | None = None

    def lease(self, owner: str) -> PostgresLease:
        return lease(self._part.url, owner)

    def program(self, name: str) -> Sequence[str]:
        return [sys.executable, "-c", HOLDER, self._part.url, name]

    async def wipe(self) -> None:
        connection = await asyncpg.connect(self._part.url)
        await connection.execute(
            "ALTER TABLE lease.epoch DISABLE TRIGGER USER; DELETE FROM lease.epoch;"
            " ALTER TABLE lease.epoch ENABLE TRIGGER USER"
        )
        await connection.close()

    async def take_from(self, name: str) -> None:
        """Somebody else has the lock before the holder can take it again."""
        connection = await asyncpg.connect(self._part.url)
        await connection.execute("SET statement_timeout = '60s'")
        waiting = asyncio.create_task(
            connection.fetchval("SELECT pg_advisory_lock($1)", lock_key(name))
        )
        watcher = await asyncpg.connect(self._part.url)
        async with asyncio.timeout(60):
            while not await watcher.fetchval("SELECT bool_or(NOT granted) FROM pg_locks"):
                await asyncio.sleep(0.01)
        await watcher.close()
        await terminate_holder(self._part.url)
        await waiting
        self.intruder = connection

    async def away(self) -> None:
        await self._part.kill()

    async def back(self) -> None:
        await self._part.start()


@pytest.fixture
async def site(own_postgres: Postgres) -> AsyncIterator[PostgresSite]:
    await apply_migrations(own_postgres.url, ["drey_runtime"])
    made = PostgresSite(own_postgres)
    yield made
    if made.intruder is not None:
        await made.intruder.close()


class TestPostgresLease(LeaseSuite):
    pass


def lease(url: str, owner: str, **options: object) -> PostgresLease:
    settings = {"poll_s": 0.05, "ping_s": 0.05, **options}
    return PostgresLease(url, owner=owner, **settings)


async def terminate_holder(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks"
        " WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    await connection.close()


async def test_keep_takes_it_again_under_a_new_epoch(url: str) -> None:
    async with lease(url, "a").held("shard-0") as term:
        await terminate_holder(url)
        async with asyncio.timeout(60):
            await term.changed.wait()
        assert term.epoch == 2
        assert not term.lost.is_set()


async def test_keep_is_lost_where_another_was_faster(url: str, db: Database) -> None:
    taken = asyncio.Event()
    release = asyncio.Event()

    async def other() -> None:
        async with lease(url, "b", poll_s=0.005).held("shard-0") as term:
            assert term.epoch == 2
            taken.set()
            await release.wait()

    with pytest.raises(LeaseLost):
        async with lease(url, "a", ping_s=5).held("shard-0"):
            task = asyncio.create_task(other())
            async with asyncio.timeout(60):
                while not await sessions(db, "b"):
                    await asyncio.sleep(0.01)
            await terminate_holder(url)
            await taken.wait()
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
    release.set()
    await task


async def test_stop_is_lost_with_its_session(url: str) -> None:
    """Nobody else wants it, and it could be had again."""
    with pytest.raises(LeaseLost):
        async with lease(url, "a", on_database_lost="stop").held("shard-0"):
            await terminate_holder(url)
            async with asyncio.timeout(60):
                await asyncio.Event().wait()


async def test_our_own_cut_off_session_does_not_stand_in_the_way(url: str) -> None:
    """The network is cut without the server noticing: its old session holds the lock still."""
    async with lease(url, "a").held("shard-0") as term:
        connection = await asyncpg.connect(
            url, server_settings={"application_name": "drey-lease a"}
        )
        await terminate_holder(url)
        with suppress(asyncpg.PostgresError):
            await connection.fetchval("SELECT pg_advisory_lock($1)", lock_key("shard-0"))
        async with asyncio.timeout(60):
            await term.changed.wait()
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=1)
        assert not term.lost.is_set()


async def test_only_the_session_that_has_the_lock_is_ended_as_our_former_one(url: str) -> None:
    """Not one of the same process with another lock, nor one of another site at the server."""
    named = {"application_name": session_name("a")}
    elsewhere = urlunsplit(urlsplit(url)._replace(path="/postgres"))
    async with AsyncExitStack() as stack:
        former, other, foreign = [
            await stack.enter_async_context(
                closed_at_the_end(await asyncpg.connect(at, server_settings=named))
            )
            for at in (url, url, elsewhere)
        ]
        await other.fetchval("SELECT pg_advisory_lock($1)", lock_key("shard-1"))
        await foreign.fetchval("SELECT pg_advisory_lock($1)", lock_key("shard-0"))
        async with lease(url, "a").held("shard-0") as term:
            waiting = asyncio.create_task(
                former.fetchval("SELECT pg_advisory_lock($1)", lock_key("shard-0"))
            )
            async with asyncio.timeout(60):
                while not await other.fetchval("SELECT bool_or(NOT granted) FROM pg_locks"):
                    await asyncio.sleep(0.01)
            beside = [connection.get_server_pid() for connection in (former, other, foreign)]
            await other.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = $1 AND pid <> ALL($2)",
                *(session_name("a"), beside),
            )
            async with asyncio.timeout(60):
                await term.changed.wait()
            await asyncio.gather(waiting, return_exceptions=True)
            assert former.is_closed()
            assert await other.fetchval("SELECT 1") == await foreign.fetchval("SELECT 1") == 1


@asynccontextmanager
async def closed_at_the_end(
    connection: asyncpg.Connection[asyncpg.Record],
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    try:
        yield connection
    finally:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=1)


async def test_through_a_restart_of_postgres(tmp_path: Path) -> None:
    async with Postgres(tmp_path / "pg", fsync=False) as part:
        await apply_migrations(part.url, ["drey_runtime"])
        async with lease(part.url, "a").held("shard-0") as term:
            await part.kill()
            await asyncio.sleep(0.5)
            assert not term.lost.is_set()
            await part.start()
            async with asyncio.timeout(60):
                await term.changed.wait()
            assert term.epoch == 2


async def test_each_holder_is_recorded(url: str, db: Database) -> None:
    rows = []
    for owner in ("me", "you"):
        async with lease(url, owner).held("shard-0"), db.acquire_connection() as conn:
            rows.extend(await conn.fetch("SELECT * FROM lease.epoch"))
    found = [(row["name"], row["holder"], row["epoch"]) for row in rows]
    assert found == [("shard-0", "me", 1), ("shard-0", "you", 2)]
    assert rows[0]["acquire_time_ns"] < rows[1]["acquire_time_ns"]


async def sessions(db: Database, owner: str = "%") -> int:
    async with db.acquire_connection() as conn:
        found: int = await conn.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1"
            " AND datname = current_database()",
            f"drey-lease {owner}",
        )
        return found


async def test_many_leases_need_one_connection_a_process(url: str, db: Database) -> None:
    """64 shards and two monitors once took 128 connections, of a server's hundred."""
    names = [f"shard-{number}" for number in range(64)]
    first, second = lease(url, "a"), lease(url, "b")
    terms: dict[str, str] = {}

    async def own(of: PostgresLease, owner: str, name: str) -> None:
        async with of.held(name):
            terms[name] = owner
            await asyncio.Event().wait()

    one = [asyncio.create_task(own(first, "a", name)) for name in names]
    await until(lambda: len(terms) == 64, 60)
    two = [asyncio.create_task(own(second, "b", name)) for name in names]

    async def both_there() -> bool:
        return await sessions(db) == 2

    await until(both_there, 60)
    assert set(terms.values()) == {"a"}
    one[7].cancel()
    await until(lambda: terms["shard-7"] == "b", 60)
    assert sorted(terms.values()).count("b") == 1
    for task in one:
        task.cancel()
    await asyncio.wait(one)
    await until(lambda: set(terms.values()) == {"b"}, 60)
    for task in two:
        task.cancel()
    await asyncio.wait(two)

    async def none_left() -> bool:
        return await sessions(db) == 0

    await until(none_left, 60)


async def test_a_lost_session_is_noticed_by_each_of_its_leases(url: str, db: Database) -> None:
    of = lease(url, "a")
    async with AsyncExitStack() as stack:
        terms = [await stack.enter_async_context(of.held(f"shard-{n}")) for n in range(5)]
        async with db.acquire_connection() as conn:
            await conn.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'drey-lease a'"
            )
        for term in terms:
            async with asyncio.timeout(60):
                await term.changed.wait()
        assert [term.epoch for term in terms] == [2] * 5
        assert await sessions(db) == 1


async def test_one_that_waits_and_gives_up_leaves_no_lock(url: str) -> None:
    holder, other = lease(url, "a"), lease(url, "b")
    async with holder.held("kept"), other.held("other"):
        for _ in range(20):
            waiting = asyncio.create_task(_enter(other, "kept"))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait({waiting})
        # cancelled in the middle of taking a lock that is free
        for number in range(20):
            taking = asyncio.create_task(_enter(other, f"free-{number}"))
            await asyncio.sleep(0.0005 * number)
            taking.cancel()
            await asyncio.wait({taking})
            async with asyncio.timeout(60), holder.held(f"free-{number}"):
                pass


async def test_one_that_is_cancelled_while_it_gives_back_keeps_nobody_out(url: str) -> None:
    """The session lives on for another lease, and with it a lock that nobody has would."""
    first, second = lease(url, "a"), lease(url, "b")
    entered = asyncio.Event()

    async def own() -> None:
        async with first.held("shard-0"):
            entered.set()
            await asyncio.Event().wait()

    async with first.held("shard-1"):
        owning = asyncio.create_task(own())
        async with asyncio.timeout(60):
            await entered.wait()
        async with first._session._gate:  # somebody else uses the connection just then
            for _ in range(2):
                owning.cancel()
                for _ in range(100):
                    await asyncio.sleep(0)
            assert owning.done()
        async with asyncio.timeout(60), second.held("shard-0"):
            pass


async def test_a_lock_of_a_session_that_went_is_no_ownership(url: str, db: Database) -> None:
    """It goes between lock and epoch, and another lease of the process has connected again."""
    of, killed = lease(url, "a", ping_s=5), False

    async def floor() -> int:
        nonlocal killed
        if not killed:
            killed = True
            await terminate_holder(url)
            for _ in range(2):
                with suppress(Unavailable):
                    async with of._session.use_connection() as connection:
                        await connection.fetchval("SELECT 1")
        return 0

    async with of.held("shard-0", floor=floor), db.acquire_connection() as conn:
        locks = await conn.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert killed and locks == 1


async def test_taken_again_its_epoch_is_greater_though_the_memory_was_wiped(url: str) -> None:
    async with lease(url, "a").held("shard-0") as term:
        before = term.epoch
        connection = await asyncpg.connect(url)
        await connection.execute(
            "ALTER TABLE lease.epoch DISABLE TRIGGER USER; DELETE FROM lease.epoch;"
            " ALTER TABLE lease.epoch ENABLE TRIGGER USER"
        )
        await connection.close()
        await terminate_holder(url)
        async with asyncio.timeout(60):
            await term.changed.wait()
        assert term.epoch > before


async def _enter(of: PostgresLease, name: str) -> None:
    async with of.held(name):
        pass


def test_names_of_sessions_are_distinct_and_short_enough() -> None:
    long = "host." * 30
    names = {session_name(owner) for owner in (long + "1", long + "2", "a", "monitör", "monitor")}
    assert len(names) == 5
    assert all(len(name.encode()) <= 63 and name.isascii() for name in names)
    assert session_name("host:1") == "drey-lease host:1"
