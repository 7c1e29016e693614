"""Health by what the process can do."""

from __future__ import annotations

import asyncio

from drey_core.errors import Unavailable
from drey_monitor.loops.catalog import CatalogFollower
from drey_monitor.servicer import SERVICE
from drey_runtime.bus import Bus
from drey_runtime.image import Image
from drey_runtime.server import Health

_PERIOD_S = 0.5


class MonitorReadiness:
    """The service serves while values can leave this process.

    That takes a catalog, and NATS or Redis. A standby without a shard is ready.
    """

    def __init__(self, health: Health, catalog: CatalogFollower, bus: Bus, image: Image) -> None:
        self._health, self._catalog, self._bus, self._image = health, catalog, bus, image

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self._health.set(await self._is_ready(), SERVICE)
            await asyncio.sleep(_PERIOD_S)

    async def _is_ready(self) -> bool:
        if not self._catalog.known.is_set():
            return False
        return self._bus.connected or await self._image_answers()

    async def _image_answers(self) -> bool:
        try:
            await self._image.ping_server()
        except Unavailable:
            return False
        return True
