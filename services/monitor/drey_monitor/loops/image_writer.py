"""Changed pages of one shard to the image."""

from __future__ import annotations

import asyncio
import logging
import time

from drey_core.errors import Unavailable
from drey_monitor.owned import Owned
from drey_runtime import telemetry
from drey_runtime.clock import now_ns
from drey_runtime.image import EpochSuperseded, Image
from drey_runtime.retrying import backoff_delay

log = logging.getLogger(__name__)


class ImageWriter:
    """Writes pages as they change; what could not be written stays marked and is tried again.

    One write at a time: while Redis is slow, changes of many ticks go in one write. After any
    failure every page is written again, since Redis may have come back empty.
    """

    def __init__(self, image: Image, owned: Owned) -> None:
        self._image, self._owned = image, owned

    async def run(self) -> None:
        """Write for ever. Raises `EpochSuperseded` when a newer owner has the shard."""
        failures = 0
        while True:
            await self._owned.image_wake.wait()
            self._owned.image_wake.clear()
            try:
                await self._write_pending()
                failures = 0
            except EpochSuperseded as error:
                if error.epoch > self._owned.state.epoch:
                    raise
                self._owned.rewrite_image()  # our own next epoch overtook the write
            except Unavailable as error:
                self._owned.rewrite_image()
                if not self._owned.image_failing:
                    log.warning("the image is not kept: %s", error.message)
                self._owned.image_failing = True
                await asyncio.sleep(backoff_delay(failures))
                failures += 1

    async def _write_pending(self) -> None:
        state = self._owned.state
        began = time.monotonic()
        pages = state.take_unwritten()
        if len(pages):
            self._owned.require_valid()
            ages = state.slot_ages(pages.numbers)
            await self._image.write_pages(
                state.shard, state.epoch, state.sequence, now_ns(), pages, ages
            )
            telemetry.loop_seconds.record(time.monotonic() - began, {"loop": "image"})
            telemetry.loop_items.add(len(pages), {"loop": "image"})
        if self._owned.image_failing:
            log.info("the image is kept again")
        self._owned.image_failing = False
