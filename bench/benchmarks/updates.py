"""Sustained updates: IOC → one monitor process → NATS and Redis, beside the table alone.

The IOC offers 1, 5 and 10 updates a second of each PV. What the monitor published is counted by a
listener on NATS, as rows and what they merged. Everything shares the machine's cores: the IOC's
and the other parts' own shares are figures too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import psutil

from bench.ioc import BenchIoc, Count, ioc
from bench.live import PEER, LiveSite, live, ours
from bench.load import shares
from bench.names import readbacks
from bench.report import Result
from bench.tables import connected, until_valued
from drey_ca import ChannelTable, open_table
from drey_core.pages import PAGE_SHIFT

_SETTLE_S = 1.5
_WINDOW_S = 4.0
_TICK_S = 0.1
_COMPLETE_S = 30.0
_RATES = {"40k": 1.0, "200k": 5.0, "max": 10.0}
"""Updates a second of each PV: at 40,000 of them, as many in all as the name says."""


@dataclass(frozen=True)
class Window:
    """What was seen over one window: rates a second, shares of a core, ages in ms."""

    updates: float
    offered: float
    rows: float
    gaps: int
    age_p99: float
    shares: dict[str, float]


def _offered_rate(before: Count, after: Count) -> float:
    return (after.processed - before.processed) / (after.time_s - before.time_s)


@asynccontextmanager
async def _running_ioc(source: BenchIoc, rate: float) -> AsyncIterator[None]:
    """The IOC at a rate; still again at the end."""
    await source.rate(rate)
    try:
        await asyncio.sleep(_SETTLE_S)
        yield
    finally:
        await source.rate(0.0)


async def _monitor_window(site: LiveSite, rate: float) -> Window:
    """One window of the monitor."""
    processes = {
        "monitor": site.process("monitor"),
        "gateway": site.process("gateway"),
        **{f"ioc {pid}": psutil.Process(pid) for pid in site.ioc.pids},
        **{name: psutil.Process(pid) for name, pid in site.part_pids().items()},
        "this": psutil.Process(),
    }
    async with _running_ioc(site.ioc, rate):
        before = await site.ioc.count()
        site.listener.reset()
        used = await shares(processes, _WINDOW_S)
        after = await site.ioc.count()
        heard = site.listener
        window = after.time_s - before.time_s
        return Window(
            heard.updates / window,
            _offered_rate(before, after),
            heard.rows / window,
            heard.gaps,
            float(np.percentile(heard.ages_ms, 99)) if heard.rows else float("nan"),
            used,
        )


async def _check_complete(site: LiveSite, result: Result) -> None:
    """Nothing was lost: once the IOC stands still, the image holds what the IOC holds."""
    directory, image = site.site.directory, site.site.image
    channels = directory.readback_channel
    numbers = np.unique(channels >> PAGE_SHIFT).tolist()
    async with open_table(await ours()) as table, asyncio.timeout(_COMPLETE_S):
        slots = await connected(table, directory.readback_address)
        read = await table.read_values(slots, _COMPLETE_S)
        while True:
            pages, _ = await image.read_pages(numbers)
            if np.array_equal(pages.columns_of_channels(channels).data, read.values.data):
                break
            await asyncio.sleep(_TICK_S)
    result.notes.append("at the end every value in the image equalled the IOC's")


async def _drain_table(table: ChannelTable, seconds: float) -> None:
    """Drain once a tick, as a monitor would, and nothing else."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await asyncio.sleep(_TICK_S)
        table.drain_info()
        table.drain_updates()


async def _bench_tables(
    implementation: str, source: BenchIoc, pvs: int, runs: int
) -> dict[str, list[tuple[float, float]]]:
    """Updates a second into a bare table of this process, and the share of a core, by rate."""
    out: dict[str, list[tuple[float, float]]] = {}
    async with open_table(implementation) as table:
        await table.subscribe_slots(await connected(table, readbacks(pvs)))
        await until_valued(table, pvs)
        for name in ("200k", "max"):
            windows = [await _bench_table(table, source, _RATES[name]) for _ in range(runs)]
            out[name] = windows
    return out


async def _bench_table(table: ChannelTable, source: BenchIoc, rate: float) -> tuple[float, float]:
    async with _running_ioc(source, rate):
        await _drain_table(table, 0.3)
        begin, counted = (await source.count()).time_s, table.table_stats().updates
        used = asyncio.create_task(shares({"this": psutil.Process()}, _WINDOW_S))
        await _drain_table(table, _WINDOW_S)
        share = (await used)["this"]
        updates, end = table.table_stats().updates, (await source.count()).time_s
    return (updates - counted) / (end - begin), share


async def run(pvs: int, runs: int) -> Result:
    """At 40,000 PVs: 40,000, 200,000 and 400,000 updates a second offered."""
    result = Result("updates", pvs)
    mine = await ours()
    result.notes.append(f"channel access: {mine}")
    windows: dict[str, list[Window]] = {name: [] for name in _RATES}
    async with live(pvs, mine, moving=pvs) as site:
        for _ in range(runs):
            for name, rate in _RATES.items():
                windows[name].append(await _monitor_window(site, rate))
        await _check_complete(site, result)
    _report_windows(result, windows)
    async with ioc(pvs, moving=pvs) as source:
        own = await _bench_tables(mine, source, pvs, runs)
        peer = await _bench_tables(PEER, source, pvs, 1)
    result.figure("table_cpu_share_at_200k", [share for _, share in own["200k"]], 0.10)
    result.figure("table_updates_per_s", [updates for updates, _ in own["max"]], None)
    result.peer("aioca table", "table_cpu_share_at_200k", [share for _, share in peer["200k"]])
    result.peer("aioca table", "table_updates_per_s", [updates for updates, _ in peer["max"]])
    for updates, share in peer["200k"]:
        result.notes.append(
            f"aioca table at 200,000/s offered: {updates:,.0f}/s arrived at {share:.2f} of a core"
        )
    return result


def _ioc_share(window: Window) -> float:
    return sum(share for name, share in window.shares.items() if name.startswith("ioc "))


def _report_windows(result: Result, windows: dict[str, list[Window]]) -> None:
    full = windows["max"]
    result.figure("updates_per_s", [w.updates for w in full], 300_000.0, at_least=True)
    result.figure("cpu_share_at_40k", [w.shares["monitor"] for w in windows["40k"]], 0.05)
    result.figure("cpu_share_at_200k", [w.shares["monitor"] for w in windows["200k"]], None)
    result.figure("cpu_share_at_max", [w.shares["monitor"] for w in full], None)
    for name, seen in windows.items():
        result.figure(f"offered_at_{name}_per_s", [w.offered for w in seen], None)
        result.figure(f"ioc_cpu_share_at_{name}", [_ioc_share(w) for w in seen], None)
    result.figure("rows_at_max_per_s", [w.rows for w in full], None)
    result.figure("batch_age_p99_at_max_ms", [w.age_p99 for w in full], None)
    for part in ("nats", "valkey", "gateway", "this"):
        name = "listener" if part == "this" else part
        result.figure(f"{name}_cpu_share_at_max", [w.shares[part] for w in full], None)
    gaps = sum(w.gaps for seen in windows.values() for w in seen)
    result.figure("missing_batches", [float(gaps)], 0.0)
    result.notes.append("an IOC that is behind merges updates before it sends them")
