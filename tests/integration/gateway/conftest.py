"""A Postgres for the session, a rig and a migrated database with an admin key for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from drey_gateway.bootstrap import make_first_key
from drey_runtime.migrate import apply_migrations
from drey_stack import Postgres
from drey_testing.fixtures_gateway import Gateway, GatewayRig, ScriptedOwner, ScriptedOwners

TEMPLATE = "drey_template"
PVS = 200
"""Of the publisher."""


async def make_database(part: Postgres, name: str, template: str = "") -> str:
    connection = await asyncpg.connect(part.url)
    try:
        suffix = f' TEMPLATE "{template}"' if template else ""
        await connection.execute(f'CREATE DATABASE "{name}"{suffix}')
    finally:
        await connection.close()
    return part.database_url(name)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    part = Postgres(tmp_path_factory.mktemp("postgres"), fsync=False)

    async def begin() -> None:
        await part.start()
        url = await make_database(part, TEMPLATE)
        await apply_migrations(url, ["drey_runtime", "drey_gateway"])

    with asyncio.Runner() as runner:
        runner.run(begin())
        yield part
        runner.run(part.stop())


@pytest.fixture
async def url(postgres: Postgres) -> str:
    return await make_database(postgres, f"t_{uuid.uuid4().hex}", TEMPLATE)


@pytest.fixture
async def admin_key(url: str) -> str:
    return await make_first_key(url)


@pytest.fixture
def shards() -> int:
    """Of the site."""
    return 1


@pytest.fixture
async def rig(tmp_path: Path, url: str, admin_key: str, shards: int) -> AsyncIterator[GatewayRig]:
    async with GatewayRig(tmp_path / "rig", url, shards) as found:
        yield found


@pytest.fixture
async def publisher(rig: GatewayRig) -> AsyncIterator[ScriptedOwner | ScriptedOwners]:
    async with rig.publishing_all(PVS) as found:
        yield found


@pytest.fixture
async def gateway(rig: GatewayRig, publisher: ScriptedOwner | ScriptedOwners) -> Gateway:
    """One that can serve watches of what is published."""
    return await rig.ready_gateway()
