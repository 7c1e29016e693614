"""A whole snapshot streamed as rows and as columns, beside SELECT and a message for each row."""

from __future__ import annotations

import time

import asyncpg

from bench.report import Result, in_turn
from bench.site import BenchSite, site
from drey.common.v1 import form_pb2, value_pb2
from drey.snapshot.v1 import snapshot_service_pb2


async def _time_stream(bench_site: BenchSite, snapshot_id: str, form: int, parse: bool) -> float:
    request = snapshot_service_pb2.ReadSnapshotRequest(id=snapshot_id, form=form)  # type: ignore[arg-type]
    method = bench_site.channel.unary_stream(
        "/drey.snapshot.v1.SnapshotService/ReadSnapshot",
        request_serializer=snapshot_service_pb2.ReadSnapshotRequest.SerializeToString,
        response_deserializer=snapshot_service_pb2.ReadSnapshotResponse.FromString
        if parse
        else None,
    )
    begin = time.perf_counter()
    async for _ in method(request, **bench_site.call):
        pass
    return time.perf_counter() - begin


async def run(pvs: int, runs: int) -> Result:
    """The client counts bytes; `rows_parsed_s` is the same with a Python client that parses all."""
    result = Result("snapshot_get", pvs)
    rows_form = form_pb2.VALUE_FORM_ROWS
    columns_form = form_pb2.VALUE_FORM_COLUMNS
    async with site(pvs) as bench_site:
        snapshot = await bench_site.take()
        database = await asyncpg.connect(bench_site.stack.postgres.url)
        await database.execute(
            "CREATE TABLE peer AS SELECT i AS channel, random() AS value, 0::int2 AS severity,"
            f" 0::int2 AS status, i AS t, i AS r FROM generate_series(1, {2 * pvs}) AS i"
        )

        async def time_select() -> float:
            begin = time.perf_counter()
            for row in await database.fetch("SELECT * FROM peer ORDER BY channel"):
                value_pb2.Value(
                    float64_value=row["value"], source_time_ns=row["t"], receive_time_ns=row["r"]
                ).SerializeToString()
            return time.perf_counter() - begin

        times = await in_turn(
            runs,
            lambda: _time_stream(bench_site, snapshot.id, rows_form, False),
            lambda: _time_stream(bench_site, snapshot.id, columns_form, False),
            lambda: _time_stream(bench_site, snapshot.id, rows_form, True),
            peers=(time_select,),
            warm=2,
        )
        await database.close()
    result.figure("rows_s", times[0], 0.045)
    result.figure("columns_s", times[1], 0.02)
    result.figure("rows_parsed_s", times[2], None)
    result.peer("SELECT and a message each", "rows_s", times[3])
    return result
