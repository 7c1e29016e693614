from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from drey_core.errors import Reason, Unavailable
from drey_runtime.database import Connection, Database, guard_connection, open_pool
from drey_runtime.waiting import current_holder
from drey_stack import Postgres, free_port

from .conftest import until


async def test_uuids_are_text(url: str) -> None:
    async with open_pool(url) as pool:
        text = str(uuid.uuid4())
        assert await pool.fetchval("SELECT $1::uuid", text) == text
        assert await pool.fetchval("SELECT ARRAY[$1::uuid]", text) == [text]


async def test_the_search_path_is_set(url: str) -> None:
    async with open_pool(url, schema_search=["jobs", "public"]) as pool:
        assert await pool.fetchval("SELECT count(*) FROM job") == 0


async def test_nobody_listening_is_unavailable() -> None:
    url = f"postgresql://drey@127.0.0.1:{free_port()}/drey"
    with pytest.raises(Unavailable) as caught:
        async with open_pool(url):
            pass
    assert caught.value.reason == Reason.DATABASE_UNAVAILABLE


async def test_a_command_over_its_time_is_unavailable(url: str) -> None:
    async with open_pool(url, command_timeout=0.2) as pool:
        with pytest.raises(Unavailable), guard_connection():
            await pool.fetchval("SELECT pg_sleep(5)")


async def test_errors_of_ours_pass_untranslated(db: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with db.acquire_connection() as connection:
            await connection.fetch("SELECT * FROM nothing_here")


async def test_no_free_connection_is_unavailable(url: str) -> None:
    async with (
        Database(url, max_size=1, connect_timeout=3) as database,
        database.acquire_connection(),
    ):
        with pytest.raises(Unavailable):
            async with database.acquire_connection():
                pass


async def test_one_key_leaves_connections_to_others(url: str) -> None:
    """It waits for its own; a call that has one, and the work for all, wait for nobody."""
    release, held = asyncio.Event(), list[int]()

    async def hold_connection(number: int) -> None:
        current_holder.set("greedy")
        async with database.acquire_connection(), database.acquire_connection():
            held.append(number)
            await release.wait()

    async with Database(url, max_size=8, share=0.25) as database:
        greedy = [asyncio.create_task(hold_connection(number)) for number in range(6)]
        await until(lambda: len(held) == 2)
        for holder in ("modest", ""):
            current_holder.set(holder)
            async with database.acquire_connection() as connection:
                assert await connection.fetchval("SELECT 1") == 1
        current_holder.set("greedy")
        async with database.acquire_connection(for_all=True) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        assert len(held) == 2
        release.set()
        await asyncio.gather(*greedy)
    assert sorted(held) == list(range(6))


async def test_a_key_that_has_used_up_its_share_is_told_so(url: str) -> None:
    current_holder.set("greedy")
    release, held = asyncio.Event(), list[int]()

    async def hold_connection(number: int) -> None:
        async with database.acquire_connection():
            held.append(number)
            await release.wait()

    async with Database(url, max_size=4, share=0.5, connect_timeout=0.3) as database:
        greedy = [asyncio.create_task(hold_connection(number)) for number in range(2)]
        await until(lambda: len(held) == 2)
        with pytest.raises(Unavailable) as caught:
            await hold_connection(2)
        release.set()
        await asyncio.gather(*greedy)
    assert caught.value.reason == Reason.DATABASE_UNAVAILABLE
    assert "this key" in caught.value.message


async def test_a_use_costs_no_round_trip_beside_its_own_and_leaves_nothing_open(url: str) -> None:
    """What a session did last stands in the server's list."""
    async with Database(url, max_size=1) as database:
        async with database.acquire_connection() as connection:
            session = await connection.fetchval("SELECT pg_backend_pid()")
            await connection.execute("BEGIN; CREATE TABLE never_committed (n int)")
        async with database.acquire_connection() as connection:
            found = await connection.fetchval("SELECT to_regclass('never_committed')")
            assert found is None
            assert await connection.fetchval("SELECT 42 AS asked") == 42
        async with open_pool(url) as other:
            query = "SELECT state, query FROM pg_stat_activity WHERE pid = $1"
            assert tuple(await other.fetchrow(query, session)) == ("idle", "SELECT 42 AS asked")


async def test_a_transaction_that_postgres_undid_over_another_says_so(db: Database) -> None:
    async with db.acquire_connection() as connection:
        await connection.execute("CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)")
    add_one = "UPDATE counter SET n = n + 1"
    with pytest.raises(Unavailable, match="try again"):
        async with db.begin_transaction() as late:
            await late.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await late.fetchval("SELECT n FROM counter")
            async with db.begin_transaction() as early:
                await early.execute(add_one)
            await late.execute(add_one)
    async with db.acquire_connection() as connection:
        assert await connection.fetchval("SELECT n FROM counter") == 1


async def test_it_starts_without_postgres_and_is_ready_later(tmp_path: Path) -> None:
    part = Postgres(tmp_path / "pg", fsync=False)
    await part.start()
    await part.stop()
    async with Database(part.url, ping_s=0.05, min_size=3) as database:
        loop = asyncio.create_task(database.run())
        with pytest.raises(Unavailable):
            await database.wait_ready(0.3)
        assert not database.ready
        await part.start()
        try:
            await database.wait_ready(60)
            await until(lambda: database.pool.get_size() >= 3)
        finally:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop
            await part.stop()


async def test_the_pool_survives_kill_and_restart(own_postgres: Postgres) -> None:
    async with Database(own_postgres.url, ping_s=0.05, min_size=2) as database:
        loop = asyncio.create_task(database.run())
        await database.wait_ready(60)
        await own_postgres.kill()
        with pytest.raises(Unavailable):
            async with database.acquire_connection() as connection:
                await connection.fetchval("SELECT 1")
        await until(lambda: not database.ready)
        await own_postgres.start()
        await database.wait_ready(60)
        assert await database.run_reading(lambda c: c.fetchval("SELECT 1")) == 1
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop


async def test_a_failing_check_ends_the_loop(url: str) -> None:
    async def refuse(connection: Connection) -> None:
        raise RuntimeError("not mine")

    async with Database(url, checks=[refuse]) as database:
        with pytest.raises(RuntimeError, match="not mine"):
            async with asyncio.timeout(60):
                await database.run()
        assert not database.ready
