"""One PV's value through a thousand snapshots."""

from __future__ import annotations

import time

import asyncpg
import numpy as np

from bench.report import Result, in_turn
from bench.site import BenchSite, site
from drey.snapshot.v1 import snapshot_service_pb2

_SNAPSHOTS = 1_000
_READ_ONE_BY_ONE = 50
_LISTED = """
SELECT value_hash, times_hash FROM snapshot.manifest WHERE page_no = ANY($1::integer[])
"""
_PAGES = "SELECT hash, data FROM snapshot.page WHERE hash = ANY($1::bytea[])"


async def _time_history(bench_site: BenchSite, name: str) -> tuple[float, list[str]]:
    """Seconds, and the ids of the snapshots that it gave."""
    request = snapshot_service_pb2.GetPvHistoryRequest(name=name)
    ids: list[str] = []
    begin = time.perf_counter()
    async for response in bench_site.snapshots.GetPvHistory(request, **bench_site.call):
        ids += [point.snapshot_id for point in response.points]
    return time.perf_counter() - begin, ids


def _channels(bench_site: BenchSite) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], ...]:
    directory = bench_site.directory
    return directory.setpoint_channel, directory.readback_channel


async def run(pvs: int, runs: int) -> Result:
    """Setpoint and readback of one PV, of another page each time; the readback moved each time."""
    result = Result("history", pvs)
    async with site(pvs) as bench_site:
        ids = []
        for _ in range(_SNAPSHOTS):
            await bench_site.drift()
            ids.append((await bench_site.take()).id)
        turn = 0

        def random_name() -> str:
            nonlocal turn
            turn += 1
            return bench_site.directory.names[turn * 997 % pvs]

        async def time_ours() -> float:
            seconds, points = await _time_history(bench_site, random_name())
            if len(points) != _SNAPSHOTS:
                raise RuntimeError(f"{len(points)} points of {_SNAPSHOTS} snapshots")
            return seconds

        async def one_by_one() -> float:
            chosen = random_name()
            begin = time.perf_counter()
            for snapshot_id in ids[:_READ_ONE_BY_ONE]:
                request = snapshot_service_pb2.ReadSnapshotRequest(id=snapshot_id)
                request.selector.names.append(chosen)
                async for _ in bench_site.snapshots.ReadSnapshot(request, **bench_site.call):
                    pass
            return (time.perf_counter() - begin) * _SNAPSHOTS / _READ_ONE_BY_ONE

        database = await asyncpg.connect(bench_site.stack.postgres.url)

        async def bare_pages() -> float:
            """What no way of reading the same pages can do without: Postgres gives them."""
            row = bench_site.directory.names.index(random_name())
            channels = [column[row] for column in _channels(bench_site)]
            begin = time.perf_counter()
            listed = await database.fetch(_LISTED, sorted({int(c) >> 8 for c in channels}))
            await database.fetch(_PAGES, list({hash for entry in listed for hash in entry}))
            return time.perf_counter() - begin

        times = await in_turn(runs, time_ours, peers=(one_by_one, bare_pages))
        await database.close()
    result.figure("total_s", times[0], 0.05)
    result.peer("each snapshot asked for it", "total_s", times[1])
    result.peer("its pages out of Postgres, not looked at", "total_s", times[2])
    result.notes.append(f"{_SNAPSHOTS} snapshots; the peer read {_READ_ONE_BY_ONE} and was scaled")
    return result
