"""The service on a database that the first landed state left."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from drey_runtime.migrate import apply_migrations
from drey_testing.fixtures_catalog import Keys
from tests.integration.snapshot.conftest import Parts, Site, _refused, keys, parts, site_on

__all__ = ["_refused", "keys", "parts", "upgraded"]

DUMP = Path(__file__).with_name("first_state.sql")


@pytest.fixture
async def upgraded(parts: Parts, keys: Keys) -> AsyncIterator[Site]:
    """`first_state.sql` restored and migrated, and the snapshot service on it."""
    name = f"t_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(parts.postgres.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = parts.postgres.database_url(name)
    connection = await asyncpg.connect(url)
    await connection.execute(DUMP.read_text())
    await connection.close()
    await apply_migrations(url, ["drey_runtime", "drey_snapshot"])
    async for site in site_on(parts, keys, url):
        yield site
