"""Two snapshots compared, and one with the live machine, beside a join in SQL."""

from __future__ import annotations

import time
from typing import Any

import asyncpg

from bench.report import WITH_PEERS, Result, in_turn
from bench.site import BenchSite, site
from drey.common.v1 import state_pb2
from drey.compare.v1 import compare_pb2, compare_service_pb2

_JOIN = (
    "SELECT count(*) FILTER (WHERE a.value = b.value), count(*) FROM peer_a a FULL JOIN peer_b b"
    " USING (channel)"
)


def _comparison_request(
    reference: str, *others: str, summary_only: bool = False, **more: Any
) -> compare_service_pb2.CompareRequest:
    """`others` are ids; an empty one is the live machine."""
    return compare_service_pb2.CompareRequest(
        spec=compare_pb2.ComparisonSpec(
            reference=state_pb2.StateRef(snapshot_id=reference),
            others=[
                state_pb2.StateRef(snapshot_id=other)
                if other
                else state_pb2.StateRef(live=state_pb2.LiveState())
                for other in others
            ],
            **more,
        ),
        summary_only=summary_only,
    )


async def _time_comparison(
    bench_site: BenchSite, request: compare_service_pb2.CompareRequest
) -> tuple[float, float, int]:
    """Seconds to the summary, seconds to the last row, rows."""
    begin = time.perf_counter()
    first, rows = 0.0, 0
    async for response in bench_site.comparisons.Compare(request, **bench_site.call):
        if response.HasField("header"):
            first = time.perf_counter() - begin
        rows += len(response.rows.rows)
    return first, time.perf_counter() - begin, rows


async def run(pvs: int, runs: int) -> Result:
    """All readbacks moved within tolerance, 200 setpoints beyond; the rows are all of 40,000."""
    result = Result("compare", pvs)
    async with site(pvs) as bench_site:
        before = await bench_site.take()
        await bench_site.drift(setpoints=min(200, pvs))
        after = await bench_site.take()
        request = _comparison_request(before.id, after.id, summary_only=True)
        live = _comparison_request(before.id, "", summary_only=True)
        everything = _comparison_request(
            before.id,
            after.id,
            classes=[
                compare_pb2.DIFFERENCE_CLASS_EQUAL,
                compare_pb2.DIFFERENCE_CLASS_WITHIN_TOLERANCE,
                compare_pb2.DIFFERENCE_CLASS_DIFFERENT,
            ],
            with_values=True,
        )
        database = await asyncpg.connect(bench_site.stack.postgres.url)
        for table in ("peer_a", "peer_b") if WITH_PEERS else ():
            await database.execute(
                f"CREATE TABLE {table} AS SELECT i AS channel, random() AS value"
                f" FROM generate_series(1, {2 * pvs}) AS i"
            )
            await database.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (channel)")
            await database.execute(f"ANALYZE {table}")

        async def to_summary() -> float:
            return (await _time_comparison(bench_site, request))[0]

        async def to_live_summary() -> float:
            return (await _time_comparison(bench_site, live))[0]

        async def to_last_row() -> float:
            _, seconds, rows = await _time_comparison(bench_site, everything)
            if rows != pvs:
                raise RuntimeError(f"{rows} rows of {pvs}")
            return seconds

        async def join_loop() -> float:
            begin = time.perf_counter()
            await database.fetch(_JOIN)
            return time.perf_counter() - begin

        times = await in_turn(
            runs, to_summary, to_live_summary, to_last_row, peers=(join_loop,), warm=2
        )
        await database.close()
    result.figure("summary_s", times[0], 0.013)
    result.figure("live_summary_s", times[1], 0.02)
    result.figure("rows_s", times[2], 0.2)
    result.peer("SQL join", "summary_s", times[3])
    return result
