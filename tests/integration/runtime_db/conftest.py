"""A real Postgres and NATS for the module, a fresh migrated database for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from drey_runtime.bus import Bus
from drey_runtime.database import Database
from drey_runtime.migrate import apply_migrations
from drey_stack import Nats, Postgres

TEMPLATE = "drey_template"


class Loop(Protocol):
    async def run(self) -> None: ...


@asynccontextmanager
async def running(*loops: Loop) -> AsyncIterator[None]:
    """Run loops beside the body; one that fails fails the test."""
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 60) -> None:
    """Wait for a condition that has no event of its own."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


def with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def make_database(server_url: str, name: str, template: str | None = None) -> str:
    connection = await asyncpg.connect(server_url)
    try:
        suffix = f' TEMPLATE "{template}"' if template else ""
        await connection.execute(f'CREATE DATABASE "{name}"{suffix}')
    finally:
        await connection.close()
    return with_database(server_url, name)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    part = Postgres(tmp_path_factory.mktemp("postgres"), fsync=False)

    async def begin() -> None:
        await part.start()
        url = await make_database(part.url, TEMPLATE)
        await apply_migrations(url, ["drey_runtime"])

    # a part lives on the loop that started it: one for the session, apart from those of the tests
    with asyncio.Runner() as runner:
        runner.run(begin())
        yield part
        runner.run(part.stop())


@pytest.fixture(scope="session")
def nats_part(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    part = Nats(tmp_path_factory.mktemp("nats"))
    with asyncio.Runner() as runner:
        runner.run(part.start())
        yield part
        runner.run(part.stop())


@pytest.fixture
async def url(postgres: Postgres) -> str:
    """A database of this test's own, migrated."""
    return await make_database(postgres.url, f"t_{uuid.uuid4().hex}", TEMPLATE)


@pytest.fixture
async def empty_url(postgres: Postgres) -> str:
    return await make_database(postgres.url, f"t_{uuid.uuid4().hex}")


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    async with Database(url, max_size=20) as database:
        yield database


@pytest.fixture
async def own_postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    """A server that a test may kill."""
    async with Postgres(tmp_path / "pg", fsync=False) as part:
        yield part


@pytest.fixture
async def bus(nats_part: Nats) -> AsyncIterator[Bus]:
    """A connection in a namespace of this test's own."""
    made = Bus(nats_part.url, f"t{uuid.uuid4().hex}", "test")
    async with running(made):
        await made.wait_connected(60)
        yield made
