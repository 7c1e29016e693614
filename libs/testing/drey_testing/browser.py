"""The operators' page in Chromium, with what it takes to measure it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Browser, CDPSession, Page, async_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_START_S = 120.0
_PROBE = """(() => {
  if (location.origin === "null") return;
  sessionStorage.setItem("drey.key", KEY);
  const probe = (window.probe = { firstRows: 0, allRows: 0, frames: [], redraws: [], longest: 0 });
  const count = (COUNT).toLocaleString("en");
  const wanted = `${count} of ${count} PVs`;
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) probe.longest = Math.max(probe.longest, duration);
  }).observe({ type: "longtask", buffered: true });
  let tellAll;
  window.allRows = new Promise((resolve) => (tellAll = resolve));
  let redrawn = false;
  const cells = new MutationObserver(() => (redrawn = true));
  const loop = (now) => {
    requestAnimationFrame(loop);
    const body = document.querySelector(".grid-body");
    const values = probe.firstRows === 0 ? [...(body?.querySelectorAll(".value") ?? [])] : [];
    if (values.some((cell) => cell.textContent !== "")) {
      probe.firstRows = now;
      cells.observe(body, { childList: true, characterData: true, subtree: true });
    }
    if (probe.allRows === 0 && document.querySelector("[role=status]")?.textContent === wanted)
      probe.allRows = now;
    if (probe.firstRows > 0 && probe.allRows > 0) tellAll();
    probe.frames.push(now);
    if (redrawn) probe.redraws.push(now);
    redrawn = false;
  };
  requestAnimationFrame(loop);
})();"""
"""Milliseconds since the navigation began; frames, and those in which a value in view changed."""


def find_browser() -> str | None:
    """Chromium on this machine."""
    return next((program for name in _NAMES if (program := shutil.which(name))), None)


@asynccontextmanager
async def launch_browser() -> AsyncIterator[Browser]:
    """Chromium. RuntimeError where there is none."""
    executable = find_browser()
    if executable is None:
        raise RuntimeError("no Chromium here: apt-get install chromium")
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(frozen=True)
class PaintedWindow:
    """What happened on the page within some seconds.

    `least_frames`: frames in the second that had fewest. `dropped`: seconds in which no value in
    view changed. `longest_ms`: longest task of the main thread.
    """

    frames_per_s: float
    least_frames: int
    dropped: int
    longest_ms: float


class MeasuredPage:
    """The page at its table of PVs."""

    def __init__(self, page: Page, devtools: CDPSession) -> None:
        self.page, self.devtools = page, devtools

    async def wait_rows(self) -> tuple[float, float]:
        """Seconds from the navigation to the first rows with values, and to all of them."""
        async with asyncio.timeout(_START_S):
            await self.page.evaluate("allRows")
        probe = await self.page.evaluate("probe")
        return probe["firstRows"] / 1000, probe["allRows"] / 1000

    async def measure_window(self, seconds: int) -> PaintedWindow:
        """Look on for some whole seconds."""
        await self.page.evaluate("Object.assign(probe, {frames: [], redraws: [], longest: 0})")
        begin = await self.page.evaluate("performance.now()")
        await self.page.wait_for_timeout(1000 * seconds)
        probe = await self.page.evaluate("probe")
        frames, redraws = ([0] * seconds for _ in range(2))
        for counts, times in ((frames, probe["frames"]), (redraws, probe["redraws"])):
            for time_ms in times:
                if (second := int((time_ms - begin) / 1000)) < seconds:
                    counts[second] += 1
        return PaintedWindow(sum(frames) / seconds, min(frames), redraws.count(0), probe["longest"])

    async def heap_mb(self) -> float:
        """Megabytes that the page's scripts hold after a collection, typed arrays included."""
        await self.devtools.send("HeapProfiler.collectGarbage")
        usage: dict[str, Any] = await self.devtools.send("Runtime.getHeapUsage")
        return float(usage["usedSize"] + usage.get("backingStorageSize", 0)) / 1e6


@asynccontextmanager
async def measured_page(
    browser: Browser, address: str, key: str, pvs: int
) -> AsyncIterator[MeasuredPage]:
    """A fresh tab that has just been sent to the table of all PVs."""
    context = await browser.new_context(viewport={"width": 1440, "height": 860})
    try:
        page = await context.new_page()
        await page.add_init_script(_PROBE.replace("KEY", repr(key)).replace("COUNT", str(pvs)))
        devtools = await context.new_cdp_session(page)
        await page.goto(f"{address}/#/pvs")
        yield MeasuredPage(page, devtools)
    finally:
        await context.close()
