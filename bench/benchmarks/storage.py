"""Bytes on disk, indexes included, for a value that changed and for one that did not."""

from __future__ import annotations

import asyncpg

from bench.report import Result
from bench.site import BenchSite, site

_SNAPSHOTS = 20


async def _database_bytes(database: asyncpg.Connection) -> int:
    """Bytes of all tables of the schema, with their indexes and TOAST."""
    await database.execute("CHECKPOINT")
    return int(
        await database.fetchval(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE n.nspname = 'snapshot' AND c.relkind = 'r'"
        )
    )


async def _bytes_grown(bench_site: BenchSite, database: asyncpg.Connection, moving: bool) -> float:
    """Mean bytes a snapshot adds, over `_SNAPSHOTS` of them."""
    before = await _database_bytes(database)
    for _ in range(_SNAPSHOTS):
        if moving:
            await bench_site.drift()
        await bench_site.take()
    return (await _database_bytes(database) - before) / _SNAPSHOTS


async def run(pvs: int, runs: int) -> Result:
    """Unchanged: the image stands still. Changed: all readbacks move, half of the values."""
    result = Result("storage", pvs)
    unchanged, changed = [], []
    async with site(pvs) as bench_site:
        database = await asyncpg.connect(bench_site.stack.postgres.url)
        await bench_site.take()
        for _ in range(runs):
            still = await _bytes_grown(bench_site, database, moving=False)
            moved = await _bytes_grown(bench_site, database, moving=True)
            unchanged.append(still / (2 * pvs))
            changed.append((moved - still / 2) / pvs)
        await database.close()
    result.figure("bytes_changed", changed, 15.0)
    result.figure("bytes_unchanged", unchanged, 0.75)
    result.notes.append(f"means over {_SNAPSHOTS} snapshots of {2 * pvs} values each")
    return result
