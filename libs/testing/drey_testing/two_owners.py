"""An owner whose ways can be broken while another follows, and what may be seen of the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Self
from urllib.parse import urlsplit

import numpy as np

from drey_core.errors import Unavailable
from drey_runtime.image import Image
from drey_testing.fixtures_monitor import MonitorProcess, MonitorRig, eventually
from drey_testing.tcp_proxy import TcpProxy

FAULTS = ("stalled", "cut", "half-closed")
WAIT_S = 120.0
COUNTER = 700
"""Channel whose value only grows."""


class Ways:
    """Proxies before servers, by name. Breaking one is seen by who goes by `urls` only."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._direct = urls
        self._stack = AsyncExitStack()
        self._proxies: dict[str, TcpProxy] = {}

    async def __aenter__(self) -> Self:
        for name, url in self._direct.items():
            port = urlsplit(url).port
            assert port is not None
            self._proxies[name] = self._stack.enter_context(TcpProxy(port))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def urls(self) -> dict[str, str]:
        """By way of the proxies."""
        return {
            name: url.replace(f":{urlsplit(url).port}", f":{self._proxies[name].port}")
            for name, url in self._direct.items()
        }

    def break_off(self, name: str, fault: str) -> None:
        """One of FAULTS, and no new connection gets an answer."""
        proxy = self._proxies[name]
        if fault == "cut":
            proxy.refuse()
            return
        if fault == "half-closed":
            proxy.half_close()
        for valve in (proxy.up, proxy.down):
            proxy.tell(valve.stall)

    def deafen(self, name: str) -> None:
        """Who goes this way is heard, and hears nothing."""
        proxy = self._proxies[name]
        proxy.tell(proxy.down.stall)

    def slow_down(self, name: str, delay_s: float) -> None:
        """Each piece of data takes so long, both ways."""
        for valve in (self._proxies[name].up, self._proxies[name].down):
            valve.delay = delay_s

    def mend(self) -> None:
        """All of them."""
        for proxy in self._proxies.values():
            proxy.refuse(False)
            for valve in (proxy.up, proxy.down):
                proxy.tell(valve.flow)


class ImageWatch:
    """Whoever reads the image: neither its stamps nor its counter ever go back."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.trouble: list[str] = []
        self.looks = 0

    @classmethod
    @asynccontextmanager
    async def watching(cls, image: Image) -> AsyncIterator[ImageWatch]:
        """Looks again and again during the body, at whose end all has to be well."""
        watch = cls(image)
        task = asyncio.create_task(watch._run())
        try:
            yield watch
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert watch.looks and not watch.trouble, watch.trouble[:5]

    async def _run(self) -> None:
        stamp, counted = (0, 0), -1.0
        while True:
            with suppress(Unavailable):
                pages, stamps = await self._image.read_pages([COUNTER >> 8])
                now = (int(stamps.epoch[0]), int(stamps.sequence[0]))
                value = pages.columns_of_channels(np.array([COUNTER], np.int64)).value(0)
                if now < stamp or (value is not None and value < counted):
                    self.trouble.append(f"{now} with {value} after {stamp} with {counted}")
                stamp, counted = now, counted if value is None else float(value)
                self.looks += 1
            await asyncio.sleep(0.01)


async def wait_epoch_after(rig: MonitorRig, epoch: int, shard: int = 0) -> int:
    """Wait for an owner of a shard with a greater one, that published under it; its epoch."""
    found = 0

    async def followed() -> bool:
        nonlocal found
        beat = (await rig.image.read_heartbeats(rig.shards))[shard]
        found = 0 if beat is None else beat.epoch
        return found > epoch and any(
            batch.epoch == found and batch.shard == shard for batch, _ in rig.listener.batches
        )

    await eventually(followed, f"an owner of shard {shard} after epoch {epoch}", WAIT_S)
    return found


async def wait_stopped(monitor: MonitorProcess) -> None:
    """Wait until it says that it owns nothing any more."""

    async def stopped() -> bool:
        log = monitor.log.read_text()
        return "was lost" in log or "newer owner" in log

    await eventually(stopped, "the former owner stops", WAIT_S)


async def wait_values(rig: MonitorRig) -> None:
    """Wait until the counter is seen to have counted on."""
    seen = len(rig.listener.rows_of(COUNTER))

    async def counted() -> bool:
        return len(rig.listener.rows_of(COUNTER)) > seen + 3

    await eventually(counted, "values go on", WAIT_S)


def late_batches(rig: MonitorRig) -> int:
    """How many came under an older epoch after one of a newer, which all consumers drop.

    AssertionError where two published under one epoch, or something was published twice.
    """
    owners: dict[tuple[int, int], set[str]] = {}
    for beat in rig.listener.beats:
        owners.setdefault((beat.shard, beat.epoch), set()).add(beat.owner)
    assert all(len(found) == 1 for found in owners.values()), owners
    stamps = [(b.shard, b.epoch, b.sequence, b.part) for b, _ in rig.listener.batches]
    assert len(stamps) == len(set(stamps)), "published twice"
    greatest: dict[int, int] = {}
    late = 0
    for shard, epoch, _, _ in stamps:
        greatest[shard] = max(greatest.get(shard, 0), epoch)
        late += epoch < greatest[shard]
    return late
