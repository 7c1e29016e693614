"""The loop that keeps the catalog at hand: it looks at once, upon news, and after failures."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from drey_core.directory import ROLE_SETPOINT, CatalogPage, Directory
from drey_core.errors import Unavailable
from drey_restore.loops import warm


def directory(version: int) -> Directory:
    page = CatalogPage.empty_page(version)
    page.pv_number[3], page.role[3] = 1, ROLE_SETPOINT
    return Directory.from_pages(version, [page])


class FakeCatalog:
    def __init__(self) -> None:
        self.version, self.away = 1, False
        self.asked = asyncio.Semaphore(0)

    @property
    def known_directory(self) -> Directory:
        return directory(self.version)

    async def current_directory(self) -> Directory:
        self.asked.release()
        if self.away:
            raise Unavailable("away")
        return directory(self.version)


class FakeLive:
    def __init__(self) -> None:
        self.pages: asyncio.Queue[list[int]] = asyncio.Queue()

    async def metadata(self, numbers: np.ndarray[Any, Any]) -> Any:
        await self.pages.put(numbers.tolist())


async def test_it_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_SETTLE_S", 0.0)
    monkeypatch.setattr(warm, "_RETRY_S", 0.001)
    catalog, live = FakeCatalog(), FakeLive()
    loop = warm.WarmLoop(catalog, live)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        task = group.create_task(loop.run())
        assert await live.pages.get() == [1]
        catalog.away = True
        await loop.on_event(None)
        for _ in range(4):  # the first look, the one after the event, and two more by itself
            await catalog.asked.acquire()
        catalog.away, catalog.version = False, 2
        assert await live.pages.get() == [2]
        task.cancel()
