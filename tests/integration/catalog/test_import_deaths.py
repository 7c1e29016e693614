"""What a large import stands on dies or stands still in the middle of it: all of it, or nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import psutil
import pytest

from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from drey_runtime.migrate import apply_migrations
from drey_runtime.status import reason_of
from drey_stack import Nats, Postgres, Valkey
from drey_stack.part import Part
from drey_testing.fixtures_catalog import Keys, until_serving
from tests.integration.catalog.conftest import connect, make_settings
from tests.integration.catalog.helpers import import_
from tests.integration.catalog.test_process import CatalogOfProcess
from tests.integration.snapshot.conftest import process_of

PVS = 40_000
"""Their channels are written in two statements."""
FIRST, SECOND, LAST = "pv 0", "channel 50000", "entry 0"
"""Before the first statement, in the midst of them, and before the last: the act."""
WAIT_THERE = """
CREATE FUNCTION catalog.wait_there() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(
        hashtext(TG_TABLE_NAME || ' ' || (SELECT count(*) % 80000 FROM catalog.channel)));
    RETURN NULL;
END $$;
CREATE TRIGGER wait_there BEFORE INSERT ON catalog.pv EXECUTE FUNCTION catalog.wait_there();
CREATE TRIGGER wait_there BEFORE INSERT ON catalog.channel EXECUTE FUNCTION catalog.wait_there();
CREATE TRIGGER wait_there BEFORE INSERT ON audit.entry EXECUTE FUNCTION catalog.wait_there();
"""
_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
_OPEN = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'"
)


class World:
    """Parts of its own, and the service as a process."""

    def __init__(self, postgres: Postgres, nats: Nats, valkey: Valkey, keys: Keys) -> None:
        self.postgres, self.nats, self.valkey, self._keys = postgres, nats, valkey, keys
        self.settings = make_settings(self, keys, postgres.url)
        self.imports = 0
        self.process: Any = None
        self.catalog: Any = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with (
            process_of(self.settings) as self.process,
            connect(self.settings, self._keys) as channel,
        ):
            await until_serving(channel, 60)
            self.catalog = CatalogOfProcess(CatalogServiceStub(channel))
            yield

    def new_import(self) -> Callable[[], asyncio.Task[Any]]:
        """Begins one of PVs that are not there yet; each time with the same request id."""
        self.imports += 1
        rows = (b"S%d:%d,R%d:%d\n" % (self.imports, n, self.imports, n) for n in range(PVS))
        content, request_id = b"Setpoint,Readback\n" + b"".join(rows), str(uuid.uuid4())
        return lambda: asyncio.create_task(
            import_(self.catalog, content, chunk=1 << 20, request_id=request_id)
        )

    async def require_whole(self, begin: Callable[[], asyncio.Task[Any]]) -> None:
        """Nothing is half there, the retry has the one result, and nothing is held."""
        async with self.asking() as conn:
            found = await conn.fetchval("SELECT count(*) FROM catalog.pv")
            channels = await conn.fetchval("SELECT count(*) FROM catalog.channel")
            assert found in ((self.imports - 1) * PVS, self.imports * PVS)
            assert channels == 2 * found
            rows, summary = await asyncio.wait_for(begin(), 60)
            assert (summary.added, summary.applied, len(rows)) == (PVS, True, PVS)
            acts = "SELECT count(*) FROM audit.entry WHERE action = 'pv.import'"
            assert await conn.fetchval(acts) == self.imports
            listed = await self.catalog.catalog.ListPvs(rpc.ListPvsRequest(page_size=1))
            assert listed.total_size == self.imports * PVS
            async with asyncio.timeout(60):
                while await conn.fetchval(_OPEN):
                    await asyncio.sleep(0.02)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[asyncpg.Connection]:
        conn = await asyncpg.connect(self.postgres.url)
        try:
            yield conn
        finally:
            await conn.close(timeout=10)


@pytest.fixture
async def world(tmp_path: Path, keys: Keys) -> AsyncIterator[World]:
    parts: tuple[Postgres, Nats, Valkey] = (
        Postgres(tmp_path / "pg", fsync=False),
        Nats(tmp_path / "nats"),
        Valkey(tmp_path / "valkey"),
    )
    await asyncio.gather(*(part.start() for part in parts))
    try:
        await apply_migrations(parts[0].url, ["drey_runtime", "drey_snapshot"])
        world = World(*parts, keys)
        async with world.asking() as conn:
            await conn.execute(WAIT_THERE)
        yield world
    finally:
        for part in parts:
            if part.running:
                await part.stop()


async def until_waiting(conn: asyncpg.Connection, running: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(60):
        while not await conn.fetchval(_WAITING):
            assert not running.done(), running.result()
            await asyncio.sleep(0.01)


def require_refused(running: asyncio.Task[Any], *reasons: str) -> None:
    """It ended with a status that says what to do."""
    error = running.exception()
    assert isinstance(error, grpc.aio.AioRpcError), running.result()
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(error)[0] in reasons, error.details()


async def test_postgres_is_killed(world: World) -> None:
    async with world.serving():
        for place in (SECOND, LAST):
            begin = world.new_import()
            async with world.asking() as conn:
                await conn.execute("SELECT pg_advisory_lock(hashtext($1))", place)
                running = begin()
                await until_waiting(conn, running)
                await world.postgres.kill()
                await asyncio.wait([running], timeout=60)
            require_refused(running, "DATABASE_UNAVAILABLE")
            await world.postgres.start()
            await world.require_whole(begin)


async def test_postgres_stands_still(world: World) -> None:
    """Its sessions too. Nobody can know then whether the last word was heard: it is asked again."""
    async with world.serving():
        begin = world.new_import()
        async with world.asking() as conn:
            await conn.execute("SELECT pg_advisory_lock(hashtext($1))", SECOND)
            running = begin()
            await until_waiting(conn, running)
            assert world.postgres.pid is not None
            server = psutil.Process(world.postgres.pid)
            stopped = [server, *server.children(recursive=True)]
            for each in stopped:
                each.suspend()
            running.cancel()  # its client's patience is over
            with suppress(asyncio.CancelledError):
                await running
            for each in stopped:
                each.resume()
        await world.require_whole(begin)


@pytest.mark.parametrize("place", [FIRST, SECOND])
async def test_the_service_is_killed(world: World, place: str) -> None:
    async with world.serving():
        begin = world.new_import()
        async with world.asking() as conn:
            await conn.execute("SELECT pg_advisory_lock(hashtext($1))", place)
            running = begin()
            await until_waiting(conn, running)
            world.process.send_signal(signal.SIGKILL)
            await world.process.wait()
            await asyncio.wait([running], timeout=60)
        require_refused(running, "")
    async with world.serving():
        await world.require_whole(begin)


async def test_the_service_stands_still(world: World) -> None:
    """It goes on where it was; where Postgres has ended its session meanwhile, it says so."""
    async with world.serving():
        for place, ended in ((SECOND, False), (LAST, True)):
            begin = world.new_import()
            async with world.asking() as conn:
                await conn.execute("SELECT pg_advisory_lock(hashtext($1))", place)
                running = begin()
                await until_waiting(conn, running)
                os.kill(world.process.pid, signal.SIGSTOP)
                if ended:
                    await conn.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_locks"
                        " WHERE locktype = 'advisory' AND NOT granted"
                    )
                await conn.execute("SELECT pg_advisory_unlock_all()")
                os.kill(world.process.pid, signal.SIGCONT)
                await asyncio.wait([running], timeout=60)
            if ended:
                require_refused(running, "DATABASE_UNAVAILABLE")
            else:
                assert running.result()[1].applied
            await world.require_whole(begin)


@pytest.mark.parametrize("which", ["nats", "valkey"])
async def test_the_bus_or_the_image_is_away(world: World, which: str) -> None:
    """Neither is needed: what cannot be announced is found by those who follow."""
    part: Part = getattr(world, which)
    async with world.serving():
        for killed in (False, True):
            begin = world.new_import()
            async with world.asking() as conn:
                await conn.execute("SELECT pg_advisory_lock(hashtext($1))", SECOND)
                running = begin()
                await until_waiting(conn, running)
                assert part.pid is not None
                process = psutil.Process(part.pid)
                if killed:
                    await part.kill()
                else:
                    process.suspend()
                await conn.execute("SELECT pg_advisory_unlock_all()")
                await asyncio.wait([running], timeout=60)
                if killed:
                    await part.start()
                else:
                    process.resume()
            assert running.result()[1].applied
            await world.require_whole(begin)


async def test_the_caller_leaves(world: World) -> None:
    """As where the gateway is killed, or the person loses patience."""
    async with world.serving():
        for place in (SECOND, LAST):
            begin = world.new_import()
            async with world.asking() as conn:
                await conn.execute("SELECT pg_advisory_lock(hashtext($1))", place)
                running = begin()
                await until_waiting(conn, running)
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running
            await world.require_whole(begin)
