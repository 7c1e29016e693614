"""Batches of one shard to NATS."""

from __future__ import annotations

import asyncio
import logging
import time

from drey_core.errors import Unavailable
from drey_monitor.owned import Owned
from drey_runtime import telemetry
from drey_runtime.bus import Bus

log = logging.getLogger(__name__)

_DEADLINE_S = 1.0


class BatchPublisher:
    """Publishes what waits; while NATS is away batches are dropped and counted.

    Nothing is kept for later: consumers see the gap in the sequence (or in the heartbeat's) and
    read the image.
    """

    def __init__(self, bus: Bus, owned: Owned) -> None:
        self._bus, self._owned = bus, owned
        self._failing = False

    async def run(self) -> None:
        """Publish for ever."""
        subject = self._bus.full_subject("values", self._owned.shard)
        while True:
            batches = await self._owned.outgoing.get()
            began = time.monotonic()
            try:
                async with asyncio.timeout(_DEADLINE_S):
                    for batch in batches:
                        self._owned.require_valid()
                        await self._bus.publish(subject, batch)
            except (Unavailable, TimeoutError) as error:
                self._owned.drop_batch()
                if not self._failing:
                    log.warning("batches are not published: %s", error or "NATS takes nothing")
                self._failing = True
                continue
            if self._failing:
                log.info("batches are published again")
            self._failing = False
            telemetry.loop_seconds.record(time.monotonic() - began, {"loop": "publish"})
            telemetry.loop_items.add(len(batches), {"loop": "publish"})
