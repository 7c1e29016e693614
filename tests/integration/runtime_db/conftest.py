"""A real Postgres and NATS for the module, a fresh migrated database for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from drey_cli.stack import Nats, Postgres
from drey_runtime.database import Database
from drey_runtime.migrate import apply

TEMPLATE = "drey_template"


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
        await apply(url, ["drey_runtime"])

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
