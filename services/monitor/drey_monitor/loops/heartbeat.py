"""Signs of life of one shard, on NATS and in the image."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import suppress

import numpy as np

from drey.events.v1.values_pb2 import Heartbeat
from drey_core.errors import Unavailable
from drey_monitor import mapping
from drey_monitor.adapters.channels import ChannelHub
from drey_monitor.owned import Owned, OwnerPulse, Shards
from drey_monitor.settings import MonitorSettings
from drey_runtime import telemetry
from drey_runtime.bus import Bus
from drey_runtime.clock import now_ns
from drey_runtime.image import EpochSuperseded, Image

log = logging.getLogger(__name__)

_DEADLINE_S = 1.0
_LOST_PAGES = 1000
"""Asked for at each beat; 8,000 pages, a million PVs, take four seconds."""
_TORN_PAGES = 64
"""Read and decoded at each beat."""


class Heartbeats:
    """Beats each `settings.heartbeat` seconds; also looks whether the image lost everything.

    Two loops, so that a Redis that hangs does not keep the beat from NATS.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        hub: ChannelHub,
        shards: Shards,
        image: Image,
        bus: Bus,
        owned: Owned,
    ) -> None:
        self._settings, self._hub, self._shards = settings, hub, shards
        self._image, self._bus, self._owned = image, bus, owned
        self._written: Heartbeat | None = None
        self._owner = f"{socket.gethostname()}:{os.getpid()}"

    async def run(self) -> None:
        """Beat for ever. Raises `EpochSuperseded` when a newer owner has the shard."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._to_bus(), name="heartbeat to NATS")
            group.create_task(self._to_image(), name="heartbeat to the image")

    async def _to_bus(self) -> None:
        subject = self._bus.full_subject("heartbeats", self._owned.shard)
        while True:
            began = time.monotonic()
            self._settle_shards()
            beat = self.beat().SerializeToString()
            with suppress(Unavailable, TimeoutError):
                self._owned.require_valid()
                async with asyncio.timeout(_DEADLINE_S):
                    await self._bus.publish(subject, beat)
            took = time.monotonic() - began
            telemetry.loop_seconds.record(took, {"loop": "heartbeat"})
            await asyncio.sleep(max(self._settings.heartbeat - took, 0.01))

    async def _to_image(self) -> None:
        while True:
            try:
                await self._look_for_loss()
                self._owned.require_valid()
                beat = self.beat()
                await self._image.write_heartbeat(beat)
                self._written = beat
            except EpochSuperseded as error:
                if error.epoch > self._owned.state.epoch:
                    raise
            except Unavailable:
                # said by the image writer, which rewrites everything
                self._written = None
                self._owned.rewrite_image()
            await asyncio.sleep(self._settings.heartbeat)

    async def _look_for_loss(self) -> None:
        """Write again what the image lost behind our back, between writes that all succeeded.

        Redis may have been emptied, or put back to an older time: then our last sign of life is
        not in it, and everything is written. It may have evicted single pages, or hold torn ones:
        they are looked for in turn, so many at each beat that none stays lost for long.
        """
        owned = self._owned
        if self._written is not None:
            stored = (await self._image.read_heartbeats(self._settings.shards))[owned.shard]
            if stored != self._written and (stored is None or stored.epoch <= owned.state.epoch):
                log.warning("the image was emptied; writing shard %d again", owned.shard)
                owned.rewrite_image()
                return
        if owned.directory_written is None:
            return
        looked = owned.state.next_pages(_LOST_PAGES)
        values, directory = await self._image.lost_pages(looked.tolist())
        torn = owned.state.next_pages(_TORN_PAGES, torn=True)
        pages, stamps = await self._image.read_pages(torn.tolist())
        values += pages.numbers[stamps.epoch == 0].tolist()
        if values:
            owned.state.mark_unwritten(np.unique(values))
            owned.image_wake.set()
        if directory:
            owned.directory.mark_all()
            owned.directory_wake.set()
        elif await self._image.directory_version(owned.shard) is None:
            log.warning("the image lost the directory of shard %d; writing it", owned.shard)
            owned.directory.mark_all()
            owned.directory_wake.set()
        if values or directory:
            lost = len(set(values) | set(directory))
            log.warning("the image lost %d pages of shard %d; writing them", lost, owned.shard)

    def _settle_shards(self) -> None:
        """Decide whether the search is over; then nothing of the last owner's word is left."""
        owned = self._owned
        if owned.settling.settled:
            return
        counts = owned.state.counts()
        settled = owned.settling.has_settled(
            time.monotonic_ns(),
            searched=owned.searched,
            channels=counts.channels,
            connected=counts.connected,
            valued=counts.valued,
        )
        if settled:
            owned.state.settle_unconnected()
            self._shards.changed.set()
            log.info(
                "shard %d settled: %d of %d channels connected",
                owned.shard,
                counts.connected,
                counts.channels,
            )

    def beat(self) -> Heartbeat:
        """The sign of life as of now."""
        owned, now = self._owned, now_ns()
        pulse = OwnerPulse(
            time_ns=now,
            owner=self._owner,
            shard_count=self._settings.shards,
            channel_access=self._hub.implementation_name,
            tick_ms=round(self._settings.tick * 1000),
            counts=owned.state.counts(),
            updates_per_s=owned.rate.observe_total(time.monotonic_ns(), owned.state.updates),
        )
        return mapping.heartbeat_message(owned, pulse)
