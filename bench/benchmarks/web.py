"""The operators' page in Chromium: how soon its rows are there, how it keeps up, whether it grows.

The browser draws without a graphics card here, and shares the cores with IOC, monitor and gateway.
`DREY_BENCH_ENDURANCE_S` is how long it is looked at for growth; ten minutes where it is not said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np

from bench.live import live, ours
from bench.report import Result
from drey_stack import HttpOptions
from drey_testing.browser import MeasuredPage, launch_browser, measured_page

_MOVING = 4_000
_RATE_HZ = 10.0
_SETTLE_MS = 5_000
_WINDOW_S = 10
_LOOKS = 11
_GROWTH_MB_PER_MIN = 0.1
"""Of the last ten looks: what the first minute brings is kept once."""
_ENDURANCE_S = int(os.environ.get("DREY_BENCH_ENDURANCE_S", "600"))


async def _measure_growth(page: MeasuredPage, seconds: int) -> list[tuple[float, float]]:
    """Minutes since the begin, and megabytes of the page then, `_LOOKS` times over that time."""
    begin, looks = time.monotonic(), [(0.0, await page.heap_mb())]
    for _ in range(_LOOKS - 1):
        await page.page.wait_for_timeout(1000 * seconds / (_LOOKS - 1))
        megabytes = await page.heap_mb()
        looks.append(((time.monotonic() - begin) / 60, megabytes))
    return looks


def growth_mb_per_min(looks: Sequence[tuple[float, float]]) -> float:
    """Slope of the line that is nearest to all looks."""
    minutes, megabytes = zip(*looks, strict=True)
    return float(np.polyfit(minutes, megabytes, 1)[0])


async def run(pvs: int, runs: int) -> Result:
    """A catalog of `pvs`, of which 4,000 move at 10 Hz."""
    result = Result("web", pvs)
    mine, moving = await ours(), min(_MOVING, pvs)
    first, every = [], []
    async with (
        live(pvs, mine, moving=moving, http=HttpOptions()) as site,
        launch_browser() as browser,
    ):
        address, key = site.site.stack.web, site.site.stack.key
        for _ in range(runs):
            async with measured_page(browser, address, key, pvs) as page:
                first_s, all_s = await page.wait_rows()
            first.append(first_s)
            every.append(all_s)
        await site.ioc.rate(_RATE_HZ)
        async with measured_page(browser, address, key, pvs) as page:
            await page.wait_rows()
            await page.page.wait_for_timeout(_SETTLE_MS)
            windows = [await page.measure_window(_WINDOW_S) for _ in range(runs)]
            looks = await _measure_growth(page, _ENDURANCE_S)
    result.figure("first_rows_s", first, 1.0)
    result.figure("all_rows_s", every, 2.0)
    result.figure("frames_per_s", [w.frames_per_s for w in windows], None)
    result.figure("least_frames_per_s", [float(w.least_frames) for w in windows], None)
    result.figure("dropped_s", [float(sum(w.dropped for w in windows))], 0.0)
    result.figure("longest_task_ms", [w.longest_ms for w in windows], None)
    begin, *_, end = (megabytes for _, megabytes in looks)
    result.figure("heap_begin_mb", [begin], None)
    result.figure("heap_end_mb", [end], 1.1 * begin)
    result.figure("heap_growth_mb_per_min", [growth_mb_per_min(looks[1:])], _GROWTH_MB_PER_MIN)
    result.notes.append(f"channel access: {mine}; {moving:,} cells change at {_RATE_HZ:g} Hz")
    seen = ", ".join(f"{megabytes:.1f}" for _, megabytes in looks)
    result.notes.append(
        f"heap after a collection, over {_ENDURANCE_S} s while they change: {seen} MB"
    )
    return result
