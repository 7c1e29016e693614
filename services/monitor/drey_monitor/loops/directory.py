"""Directory pages of one shard to the image, and word of it to NATS."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from drey_core.errors import Unavailable
from drey_monitor import mapping
from drey_monitor.adapters.channels import ChannelHub
from drey_monitor.domain.directory import DirectoryCut
from drey_monitor.owned import Owned, Shards
from drey_runtime import telemetry
from drey_runtime.bus import Bus
from drey_runtime.directory_codec import encode_metadata
from drey_runtime.image import EpochSuperseded, Image
from drey_runtime.retrying import backoff_delay

log = logging.getLogger(__name__)

_DEADLINE_S = 1.0
_PAUSE = 4
"""Times what a write took: a machine that connects has news of every page many times."""


class DirectoryWriter:
    """Writes what changed: soon, where it is the catalog, little, or labels that values wait for.

    Other metadata each `period`. The image first and NATS after it: who hears of a version finds
    its pages. While Redis is away nothing is announced.
    """

    def __init__(
        self,
        hub: ChannelHub,
        image: Image,
        bus: Bus,
        owned: Owned,
        shards: Shards,
        period: float,
    ) -> None:
        self._hub, self._image, self._bus = hub, image, bus
        self._owned, self._shards, self._period = owned, shards, period

    async def run(self) -> None:
        """Write for ever. Raises `EpochSuperseded` when a newer owner has the shard."""
        failures, ready = 0, 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._owned.directory_wake.wait()
            await self._pause_until(ready)
            self._owned.directory_wake.clear()
            while (news := self._hub.take_info(self._owned.shard)) is not None:
                self._owned.directory.update_channels(*news)
                await asyncio.sleep(0)
            cut = self._owned.directory.cut_changes()
            if cut is None:
                continue
            began = time.monotonic()
            try:
                await self._write_cut(cut)
                failures, end = 0, time.monotonic()
                ready = end + min(_PAUSE * (end - began), self._period)
            except EpochSuperseded as error:
                if error.epoch > self._owned.state.epoch:
                    raise
                self._owned.directory.put_back(cut)  # our own next epoch overtook the write
                self._owned.directory_wake.set()
            except Unavailable:
                # said by the image writer; Redis may come back empty
                self._owned.directory.put_back(cut)
                self._owned.directory.mark_all()
                await asyncio.sleep(backoff_delay(failures))
                failures += 1

    async def _pause_until(self, ready: float) -> None:
        """Let more come, but for the catalog, which is written at once."""
        wake = self._owned.directory_wake
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, ready - time.monotonic())):
                while not self._owned.directory.has_new_catalog:
                    wake.clear()
                    await wake.wait()

    async def _write_cut(self, cut: DirectoryCut) -> None:
        shard, epoch = self._owned.shard, self._owned.state.epoch
        everything = mapping.directory_version(shard, epoch, cut, sorted(cut.page_versions))
        metadata = {}
        for number, page in cut.metadata.items():
            metadata[number] = encode_metadata(page)
            await asyncio.sleep(0)
        self._owned.require_valid()
        await self._image.write_directory(everything, cut.catalog, metadata)
        self._owned.note_directory_written(cut, epoch)
        self._shards.changed.set()
        telemetry.loop_items.add(len(cut.changed), {"loop": "directory"})
        changed = mapping.directory_version(shard, epoch, cut, cut.changed)
        with suppress(Unavailable, TimeoutError):
            # lost with NATS: the version in batches and heartbeats tells of it
            self._owned.require_valid()
            async with asyncio.timeout(_DEADLINE_S):
                await self._bus.publish(
                    self._bus.full_subject("directory", shard), changed.SerializeToString()
                )
