"""Import of a CSV of PVs by RPC, beside one INSERT a row."""

from __future__ import annotations

import time

import asyncpg

from bench.report import Result, in_turn
from bench.site import catalog_csv, site


async def run(pvs: int, runs: int) -> Result:
    """Each run imports other names, so that every row is added."""
    result = Result("import", pvs)
    async with site(pvs, with_image=False) as bench_site:
        pool = await asyncpg.connect(bench_site.stack.postgres.url)
        await pool.execute("CREATE TABLE peer (name text UNIQUE, sp text, rb text, device text)")
        turn = 0

        async def time_ours() -> float:
            nonlocal turn
            turn += 1
            content = catalog_csv(pvs).replace(b"QUAD:LI", b"Q%d:LI" % turn)
            begin = time.perf_counter()
            await bench_site.import_csv(content)
            return time.perf_counter() - begin

        async def time_executemany() -> float:
            rows = [(f"{turn}:{i}", f"{i}:BDES", f"{i}:BACT", f"Q{i}") for i in range(pvs)]
            begin = time.perf_counter()
            await pool.executemany("INSERT INTO peer VALUES ($1, $2, $3, $4)", rows)
            return time.perf_counter() - begin

        mine, peer = await in_turn(runs, time_ours, peers=(time_executemany,), warm=0)
        await pool.close()
    result.figure("total_s", mine, 0.8)
    result.peer("executemany", "total_s", peer)
    result.notes.append("the peer stores the bare rows, without channels, tags, audit or checks")
    return result
