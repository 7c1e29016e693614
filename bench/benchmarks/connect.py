"""Channels connected and first values in hand: the table alone, then a whole monitor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aioca

from bench.ioc import ioc
from bench.live import PEER, live, ours
from bench.names import readbacks
from bench.report import WITH_PEERS, Result, in_turn
from bench.tables import connect_s, first_values_s, memory_mb

_LONG_S = 90.0


async def _time_camonitor(names: list[str]) -> float:
    """The ordinary way: a callback for each update; until each has been called once."""
    missing = len(names)
    done = asyncio.Event()

    def count_update(value: object, index: int) -> None:
        nonlocal missing
        missing -= 1
        if missing == 0:
            done.set()

    begin = time.perf_counter()
    subscriptions = aioca.camonitor(names, count_update, format=aioca.FORMAT_TIME)
    try:
        async with asyncio.timeout(_LONG_S):
            await done.wait()
        return time.perf_counter() - begin
    finally:
        for subscription in subscriptions:
            subscription.close()
        aioca.purge_channel_caches()
        await asyncio.sleep(0)


async def _cpu_of_connecting(implementation: str, names: list[str]) -> float:
    """CPU seconds of this process, its threads included, from a new table to all connected."""
    begin = time.process_time()
    await connect_s(implementation, names)
    return time.process_time() - begin


@dataclass
class _Starts:
    """Of each start of a monitor up to the last first value; its memory after the last."""

    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    megabytes: float = 0.0


async def _monitor_start(implementation: str, pvs: int, runs: int) -> _Starts:
    """From a monitor's start to the last first value on NATS."""
    starts = _Starts()
    async with live(pvs, implementation, monitors=0) as site:
        for _ in range(runs):
            # An IOC is busy for seconds with taking apart what a lost client had subscribed.
            await site.ioc.until_idle()
            site.watch_for_all()
            begin = time.perf_counter()
            await site.start_monitor(implementation)
            await site.until_valued()
            starts.seconds.append(site.listener.all_at - begin)
            monitor = site.process("monitor")
            used = monitor.cpu_times()
            starts.cpu_s.append(used.user + used.system)
            starts.megabytes = monitor.memory_info().rss / 1e6
            await site.stop_monitor()
    return starts


async def run(pvs: int, runs: int) -> Result:
    """`pvs` channels. The monitor's time counts from the start of its process, imports included."""
    result = Result("connect", pvs)
    mine, names = await ours(), readbacks(pvs)
    result.notes.append(f"channel access: {mine}")

    def measure_each(
        measure: Callable[[str, list[str]], Awaitable[float]], implementation: str
    ) -> Callable[[], Awaitable[float]]:
        return lambda: measure(implementation, names)

    async with ioc(pvs):
        times = await in_turn(
            runs,
            measure_each(connect_s, mine),
            measure_each(first_values_s, mine),
            peers=(measure_each(connect_s, PEER), measure_each(first_values_s, PEER)),
            warm=0,
        )
        cpu = [await _cpu_of_connecting(mine, names) for _ in range(runs)]
        bare = [await _time_camonitor(names)] if WITH_PEERS else []
        memory = [await memory_mb(mine, pvs) for _ in range(runs)]
        peer_memory = [await memory_mb(PEER, pvs)] if WITH_PEERS else []
    started = await _monitor_start(mine, pvs, runs)
    result.figure("connect_s", times[0], None)
    result.figure("first_values_s", times[1], 0.8)
    result.figure("memory_mb", memory, 60.0)
    result.figure("monitor_start_s", started.seconds, 1.0)
    result.figure("monitor_mb", [started.megabytes], 160.0)
    result.figure("connect_cpu_s", cpu, None)
    result.figure("monitor_start_cpu_s", started.cpu_s, None)
    result.peer("aioca table", "connect_s", times[2])
    result.peer("aioca table", "first_values_s", times[3])
    result.peer("aioca table", "memory_mb", peer_memory)
    result.peer("aioca.camonitor", "first_values_s", bare)
    result.notes.append("memory_mb: over an empty process, in a process of its own")
    result.notes.append("…cpu_s: what our process uses; of the IOCs each looks for every name")
    result.notes.append("monitor_start_s: from the process's start to the last first value on NATS")
    return result
