"""Many shards and several monitors need few connections, and one monitor can take them all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from drey_stack.whole import Stack, StackOptions

SHARDS = 64
_LOCKS = """
SELECT l.pid, count(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND a.application_name LIKE 'drey-lease %'
GROUP BY l.pid
"""
_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'drey-lease %'"


def errors(folder: Path) -> list[str]:
    logs = [log.read_text() for log in folder.glob("*.log")]
    return [line for text in logs for line in text.splitlines() if '"level": "ERROR"' in line]


async def owners(connection: asyncpg.Connection[asyncpg.Record], *, apart_from: int = 0) -> int:
    """The one session that has all shards, once there is one and both monitors have a session."""
    async with asyncio.timeout(90):
        while True:
            found = {row["pid"]: row["count"] for row in await connection.fetch(_LOCKS)}
            sessions = await connection.fetchval(_SESSIONS)
            if sum(found.values()) == SHARDS and sessions == 2 and apart_from not in found:
                return max(found, key=lambda pid: found[pid])
            await asyncio.sleep(0.1)


async def test_64_shards_and_two_monitors(tmp_path: Path) -> None:
    async with Stack(StackOptions(tmp_path, shards=SHARDS, monitors=2, fsync=False)) as stack:
        connection = await asyncpg.connect(stack.postgres.service_url)
        first = await owners(connection)
        # the session ends, and every lease of it is lost at once
        await connection.fetchval("SELECT pg_terminate_backend($1)", first)
        await owners(connection, apart_from=first)
        ours = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'drey-%'"
        )
        assert ours < 50
        await connection.close()
    assert errors(tmp_path) == []
