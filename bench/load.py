"""CPU time of processes over a window, as shares of one core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import psutil


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of a process, without its children: the benchmark's are all the others."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def shares(processes: Mapping[str, psutil.Process], seconds: float) -> dict[str, float]:
    """Cores that each used over the next `seconds`."""
    before = {name: cpu_seconds(process) for name, process in processes.items()}
    begin = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - begin
    return {name: (cpu_seconds(p) - before[name]) / took for name, p in processes.items()}
