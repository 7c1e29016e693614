"""From the IOC's time stamp to a watcher over gRPC, and to a drained row of the bare table."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from bench.ioc import BenchIoc, ioc
from bench.live import PEER, live, ours
from bench.names import readbacks
from bench.report import Result
from bench.tables import changed, connected, until_valued
from bench.watcher import latencies_ms, watching
from drey_ca import ChannelTable, open_table

_WATCHED = 4_000
_RATE_HZ = 10.0
_SETTLE_S = 1.5
_WINDOW_S = 4.0
_TICK_MS = 100.0
_IDLE_HZ = 2.0
_IDLE_GROUPS = 20


async def _drained_ms(table: ChannelTable, seconds: float) -> NDArray[np.float64]:
    """Drain as soon as there is something; milliseconds from the IOC's stamp to then."""
    ages: list[NDArray[np.float64]] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                rows = await changed(table)
                ages.append((time.time_ns() - rows.source_time) / 1e6)
    return np.concatenate(ages)


async def _idle_latency(implementation: str, source: BenchIoc, moving: int) -> float:
    """99th percentile of a bare table where 40 times a second one record moves."""
    async with open_table(implementation) as table:
        await table.subscribe_slots(await connected(table, readbacks(moving)))
        await until_valued(table, moving)
        await source.rate(_IDLE_HZ)
        try:
            await _drained_ms(table, 0.5)
            return float(np.percentile(await _drained_ms(table, _WINDOW_S), 99))
        finally:
            await source.rate(0.0)


async def run(pvs: int, runs: int) -> Result:
    """A catalog of `pvs`, of which 4,000 move at 10 Hz in ten groups, and are watched."""
    result = Result("latency", pvs)
    mine, moving = await ours(), min(_WATCHED, pvs)
    result.notes.append(f"channel access: {mine}; every row of {_WINDOW_S:g} s a run, parsed later")
    # First: afterwards this process is busy with giving back what the watch left.
    async with ioc(_IDLE_GROUPS, moving=_IDLE_GROUPS, groups=_IDLE_GROUPS) as source:
        idle = [await _idle_latency(mine, source, _IDLE_GROUPS) for _ in range(runs)]
        peer = [await _idle_latency(PEER, source, _IDLE_GROUPS) for _ in range(runs)]
    p50, p99, rates = [], [], []
    async with live(pvs, mine, moving=moving) as site:
        names = site.names_of(readbacks(moving))
        await site.ioc.rate(_RATE_HZ)
        metadata = site.site.call["metadata"]
        async with watching(site.site.channel, metadata, names) as watcher:
            await asyncio.sleep(_SETTLE_S)
            windows = []
            for _ in range(runs):
                watcher.messages.clear()
                await asyncio.sleep(_WINDOW_S)
                windows.append(list(watcher.messages))
    # Parsed when all is over: meanwhile nothing would be read, and the next window be late.
    for window in windows:
        latencies = latencies_ms(window)
        p50.append(float(np.percentile(latencies, 50)))
        p99.append(float(np.percentile(latencies, 99)))
        rates.append(len(latencies) / _WINDOW_S)
    result.figure("p50_ms", p50, _TICK_MS / 2 + 8)
    result.figure("p99_ms", p99, _TICK_MS + 10)
    result.figure("rows_per_s", rates, None)
    result.figure("table_p99_ms", idle, 2.0)
    result.peer("aioca table", "table_p99_ms", peer)
    return result
