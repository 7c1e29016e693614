"""A snapshot of everything from the image, RPC to durable, beside rows by executemany and COPY."""

from __future__ import annotations

import statistics
import time

import asyncpg

from bench.report import WITH_PEERS, Result, in_turn
from bench.site import site

_TABLE = (
    "CREATE TABLE peer (snapshot int, channel bigint, value float8, severity int2, status int2,"
    " source_time bigint, receive_time bigint, PRIMARY KEY (snapshot, channel))"
)
_ALONE = 40


async def run(pvs: int, runs: int) -> Result:
    """All readbacks move before each run; setpoints stay."""
    result = Result("snapshot_image", pvs)
    async with site(pvs) as bench_site:
        database = await asyncpg.connect(bench_site.stack.postgres.url)
        await database.execute(_TABLE)
        turn = 0

        async def time_ours() -> float:
            await bench_site.drift()
            begin = time.perf_counter()
            await bench_site.take()
            return time.perf_counter() - begin

        def make_rows() -> list[tuple[object, ...]]:
            nonlocal turn
            turn += 1
            c = bench_site._columns
            return [
                (turn, k, v, 0, 0, s, r)
                for k, v, s, r in zip(
                    c.key.tolist(),
                    c.data.view(float).tolist(),
                    c.source_time.tolist(),
                    c.receive_time.tolist(),
                    strict=True,
                )
            ]

        async def time_executemany() -> float:
            records = make_rows()
            begin = time.perf_counter()
            await database.executemany("INSERT INTO peer VALUES ($1,$2,$3,$4,$5,$6,$7)", records)
            return time.perf_counter() - begin

        async def time_copy() -> float:
            records = make_rows()
            begin = time.perf_counter()
            await database.copy_records_to_table("peer", records=records)
            return time.perf_counter() - begin

        mine, many, copied = await in_turn(
            runs, time_ours, peers=(time_executemany, time_copy), warm=2
        )
        alone = [await time_ours() for _ in range(_ALONE if WITH_PEERS else 0)]
        await database.close()
    result.figure("total_s", mine, 0.03)
    if alone:
        result.figure("p95_s", [statistics.quantiles(alone, n=20)[-1]], None)
    result.peer("executemany", "total_s", many)
    result.peer("copy of rows", "total_s", copied)
    result.notes.append("2 channels a PV; peers write to the same Postgres and skip the reading")
    result.notes.append(f"p95 of {_ALONE} snapshots one after the other, without the peers")
    return result
