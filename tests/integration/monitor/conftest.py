"""One Postgres for the session; NATS, Valkey and monitors of each test's own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from drey_runtime.migrate import apply_migrations
from drey_stack import Postgres
from drey_testing import leaks
from drey_testing.ca.ioc import Ioc, use_loopback
from drey_testing.fixtures_monitor import CHANNELS, DATABASE, MonitorRig

use_loopback()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    part = Postgres(tmp_path_factory.mktemp("postgres"), fsync=False)
    with asyncio.Runner() as runner:
        runner.run(part.start())
        yield part
        runner.run(part.stop())


async def make_database(server: str) -> str:
    name = f"t_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    await apply_migrations(url, ["drey_runtime"])
    return url


@pytest.fixture
async def database_url(postgres: Postgres) -> str:
    return await make_database(postgres.url)


@pytest.fixture(scope="package")  # other folders serve the same names, and find this one's too
def ioc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ioc]:
    folder = tmp_path_factory.mktemp("ioc")
    with leaks.keep_iocs(folder), Ioc(folder, DATABASE) as running:
        yield running


@pytest.fixture
def shards() -> int:
    """Of the site. With three each has one of the pages of `CHANNELS`."""
    return 1


@pytest.fixture
async def rig(tmp_path, database_url: str, ioc: Ioc, shards: int) -> AsyncIterator[MonitorRig]:
    async with MonitorRig(tmp_path, database_url, shards) as running:
        running.directory.set(CHANNELS.items())
        yield running
        for monitor in running.monitors:
            print(monitor.log.read_text())
