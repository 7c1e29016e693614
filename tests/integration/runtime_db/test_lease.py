from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import asyncpg
import pytest

from drey_runtime.database import Database
from drey_runtime.lease import LeaseLost, PostgresLease, lock_key, session_name
from drey_runtime.migrate import apply
from drey_stack import Postgres

from .conftest import until

HOLDER = """
import asyncio, sys
from drey_runtime.lease import PostgresLease
async def main():
    async with PostgresLease(sys.argv[1], owner="child").held("shard-0") as term:
        print(term.epoch, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def lease(url: str, owner: str, **options: object) -> PostgresLease:
    settings = {"poll_s": 0.05, "ping_s": 0.05, **options}
    return PostgresLease(url, owner=owner, **settings)


async def test_epochs_only_grow(url: str) -> None:
    epochs = []
    for _ in range(3):
        async with lease(url, "a").held("shard-0") as term:
            epochs.append(term.epoch)
    assert epochs == [1, 2, 3]

    async def seen_in_image() -> int:
        return 41

    async with lease(url, "a").held("shard-0", floor=seen_in_image) as term:
        assert term.epoch == 42
    async with lease(url, "a").held("shard-0") as term:
        assert term.epoch == 43


async def test_one_holder_and_names_apart(url: str) -> None:
    inside = 0
    most = 0

    async def compete(owner: str) -> None:
        nonlocal inside, most
        async with lease(url, owner).held("shard-0"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.02)
            inside -= 1

    async with lease(url, "x").held("shard-1"):
        await asyncio.gather(*(compete(f"w{n}") for n in range(5)))
    assert most == 1


async def test_a_killed_holder_is_followed_soon(url: str) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, url, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"1\n"
    got = asyncio.get_running_loop().create_future()

    async def standby() -> None:
        async with PostgresLease(url, owner="standby").held("shard-0") as term:
            got.set_result(term.epoch)

    task = asyncio.create_task(standby())
    await asyncio.sleep(0.5)
    assert not got.done()
    child.send_signal(signal.SIGKILL)
    epoch = await asyncio.wait_for(got, 60)
    await asyncio.gather(task, child.wait())
    assert epoch == 2


async def terminate_holder(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks"
        " WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    await connection.close()


async def test_stop_cancels_the_body(url: str) -> None:
    with pytest.raises(LeaseLost):
        async with lease(url, "a", on_database_lost="stop").held("shard-0") as term:
            await terminate_holder(url)
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
    assert term.lost.is_set()
    # the task itself is not left cancelled
    await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_keep_takes_it_again_under_a_new_epoch(url: str) -> None:
    async with lease(url, "a").held("shard-0") as term:
        await terminate_holder(url)
        async with asyncio.timeout(60):
            await term.changed.wait()
        assert term.epoch == 2
        assert not term.lost.is_set()


async def test_keep_is_lost_where_another_was_faster(url: str) -> None:
    taken = asyncio.Event()
    release = asyncio.Event()

    async def other() -> None:
        async with lease(url, "b", poll_s=0.005).held("shard-0") as term:
            assert term.epoch == 2
            taken.set()
            await release.wait()

    with pytest.raises(LeaseLost):
        async with lease(url, "a", ping_s=1).held("shard-0"):
            task = asyncio.create_task(other())
            await asyncio.sleep(0.1)
            await terminate_holder(url)
            await taken.wait()
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
    release.set()
    await task


async def test_a_cancel_from_outside_stays_a_cancel(url: str) -> None:
    inside = asyncio.Event()

    async def body() -> None:
        async with lease(url, "a").held("shard-0"):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60), lease(url, "b").held("shard-0") as term:
        assert term.epoch == 2


async def test_an_error_in_the_body_passes_and_frees(url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with lease(url, "a").held("shard-0"):
            raise ZeroDivisionError
    async with asyncio.timeout(60), lease(url, "b").held("shard-0"):
        pass


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


async def test_through_a_restart_of_postgres(tmp_path: Path) -> None:
    async with Postgres(tmp_path / "pg", fsync=False) as part:
        await apply(part.url, ["drey_runtime"])
        async with lease(part.url, "a").held("shard-0") as term:
            await part.kill()
            await asyncio.sleep(0.5)
            assert not term.lost.is_set()
            await part.start()
            async with asyncio.timeout(60):
                await term.changed.wait()
            assert term.epoch == 2


async def test_it_waits_for_a_postgres_that_is_away(tmp_path: Path) -> None:
    async with Postgres(tmp_path / "pg", fsync=False) as part:
        await apply(part.url, ["drey_runtime"])
        await part.stop()
        got = asyncio.Event()

        async def body() -> None:
            async with lease(part.url, "a").held("shard-0"):
                got.set()

        task = asyncio.create_task(body())
        await asyncio.sleep(0.2)
        assert not got.is_set()
        await part.start()
        await asyncio.wait_for(task, 10)


async def test_the_holder_is_recorded(url: str, db: Database) -> None:
    async with lease(url, "me").held("shard-0"), db.acquire() as conn:
        row = await conn.fetchrow("SELECT * FROM lease.epoch")
    assert row is not None
    assert (row["name"], row["holder"], row["epoch"]) == ("shard-0", "me", 1)


async def sessions(db: Database) -> int:
    async with db.acquire() as conn:
        found: int = await conn.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'drey-lease %'"
            " AND datname = current_database()"
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
    await until(lambda: len(terms) == 64, 20)
    two = [asyncio.create_task(own(second, "b", name)) for name in names]

    async def both_there() -> bool:
        return await sessions(db) == 2

    await until(both_there, 20)
    assert set(terms.values()) == {"a"}
    one[7].cancel()
    await until(lambda: terms["shard-7"] == "b", 20)
    assert sorted(terms.values()).count("b") == 1
    for task in one:
        task.cancel()
    await asyncio.wait(one)
    await until(lambda: set(terms.values()) == {"b"}, 20)
    for task in two:
        task.cancel()
    await asyncio.wait(two)

    async def none_left() -> bool:
        return await sessions(db) == 0

    await until(none_left, 20)


async def test_a_lost_session_is_noticed_by_each_of_its_leases(url: str, db: Database) -> None:
    of = lease(url, "a")
    async with AsyncExitStack() as stack:
        terms = [await stack.enter_async_context(of.held(f"shard-{n}")) for n in range(5)]
        async with db.acquire() as conn:
            await conn.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'drey-lease a'"
            )
        for term in terms:
            async with asyncio.timeout(20):
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
            async with asyncio.timeout(20), holder.held(f"free-{number}"):
                pass


async def _enter(of: PostgresLease, name: str) -> None:
    async with of.held(name):
        pass


def test_names_of_sessions_are_distinct_and_short_enough() -> None:
    long = "host." * 30
    names = {session_name(owner) for owner in (long + "1", long + "2", "a", "monitör", "monitor")}
    assert len(names) == 5
    assert all(len(name.encode()) <= 63 and name.isascii() for name in names)
    assert session_name("host:1") == "drey-lease host:1"
