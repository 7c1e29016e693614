"""Feeds the live state: batches and signs of life from NATS, pages and directory from Redis."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import numpy as np

from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import ValueBatch
from drey_core.directory import CatalogPage
from drey_core.election import epoch_believable
from drey_core.errors import Malformed, Unavailable
from drey_core.values import Columns, Kind
from drey_gateway import mapping
from drey_gateway.domain.instances import InstanceBook
from drey_gateway.domain.live import LiveState
from drey_gateway.mapping_system import instance_sign
from drey_gateway.ports import ImageReader
from drey_runtime import telemetry
from drey_runtime.batches import decode_batch
from drey_runtime.bus import Bus
from drey_runtime.clock import now_ns
from drey_runtime.edge import decode_catalog_changed, decode_heartbeat, decode_instance, note_error
from drey_runtime.nats_client import Msg
from drey_runtime.retrying import backoff_delay

log = logging.getLogger(__name__)

_RETRY_FIRST_S = 0.01
_RETRY_CAP_S = 0.5
TICK_S = 0.1
"""Between two looks for shards that fell silent."""


class Feed:
    """Keeps `live` at the present. `changed` is called after anything watchers may want.

    Batches come one by one from the NATS client, whose queue is bounded: what it drops shows as a
    gap, and is read from the image.
    """

    def __init__(
        self,
        live: LiveState,
        bus: Bus,
        image: ImageReader,
        poll_s: float,
        changed: Callable[[], None],
    ) -> None:
        self._live, self._bus, self._image = live, bus, image
        self._poll_s, self._changed = poll_s, changed
        self._resync = [asyncio.Event() for _ in live.shards]
        self._directory_news = asyncio.Event()
        self._read_versions: dict[int, dict[int, tuple[int, int]]] = {}
        self._directory_at: dict[int, tuple[int, int]] = {}
        """Epoch and version of each shard's directory that was read last."""
        self._directory_lock = asyncio.Lock()
        self._reconnects = 0
        self.instances = InstanceBook()
        self.loaded = asyncio.Event()
        # Nobody has been heard of yet: what is asked before the first look is told so.
        self.stale = live.stale_shards(time.monotonic_ns(), bus.connected)

    async def subscribe_to_bus(self) -> None:
        """Begin to listen; may be called while NATS is away."""
        await self._bus.subscribe_handler(self._bus.full_subject("values", "*"), self._on_values)
        await self._bus.subscribe_handler(
            self._bus.full_subject("heartbeats", "*"), self._on_heartbeat
        )
        await self._bus.subscribe_handler(
            self._bus.full_subject("directory", "*"), self._on_directory
        )
        await self._bus.subscribe_handler(self._bus.full_subject("catalog"), self._on_catalog)
        await self._bus.subscribe_handler(
            self._bus.full_subject("instances", "*"), self._on_instance
        )

    async def run(self) -> None:
        """Until cancelled. Redis and NATS being away is waited out."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_directory())
            group.create_task(self._keep_fresh())
            for shard in range(self._live.shard_count):
                group.create_task(self._keep_synced(shard))

    # --- from the bus ---

    async def _on_values(self, message: Msg) -> None:
        begin = time.perf_counter()
        try:
            bus_message, columns = decode_batch(message.data)
            self._require_shard(bus_message.shard)
        except Malformed as error:
            note_error(error, "value batches")
            return
        await self._read_labels(bus_message, columns)
        stream = self._live.shards[bus_message.shard].stream
        if bus_message.epoch >= stream.epoch and epoch_believable(bus_message.epoch, stream.epoch):
            self._live.shards[bus_message.shard].health.note_heard(time.monotonic_ns())
        slots = self._live.apply_batch(
            bus_message.shard, mapping.batch_message(bus_message, columns)
        )
        if not stream.in_sync:
            self._resync[bus_message.shard].set()
        if len(slots):
            self._changed()
        telemetry.loop_seconds.record(time.perf_counter() - begin, {"loop": "fold"})
        telemetry.loop_items.add(len(slots), {"loop": "fold"})

    async def _read_labels(self, batch: ValueBatch, columns: Columns) -> None:
        """Read the labels first that the enumerations of a batch have.

        Where they cannot be read now the batch waits, as after a gap.
        """
        shard, needed = batch.shard, (batch.epoch, batch.directory_version)
        stream = self._live.shards[shard].stream
        if (
            not batch.directory_version
            or not stream.in_sync
            or self._directory_at.get(shard, needed) >= needed
            or not (columns.kind == Kind.ENUM).any()
        ):
            return
        with suppress(Unavailable):  # said by those that read it over and over
            await self._read_directory()
        if self._directory_at[shard] < needed:
            stream.lose_sync()

    def _require_shard(self, shard: int) -> None:
        if shard >= self._live.shard_count:
            shards = self._live.shard_count
            raise Malformed(f"a message of shard {shard}; DREY_SHARDS says {shards}")

    async def _on_heartbeat(self, message: Msg) -> None:
        try:
            beat = decode_heartbeat(message.data)
            self._require_shard(beat.shard)
        except Malformed as error:
            note_error(error, "heartbeats")
            return
        shard = self._live.shards[beat.shard]
        if not shard.stream.note_heartbeat(beat.epoch, beat.sequence):
            return
        shard.health.note_heard(time.monotonic_ns())
        host = beat.owner.rpartition(":")[0]
        shard.health.compare_clocks(host, beat.time_ns, now_ns())
        recovered = shard.report.image_failing and not beat.image_failing
        shard.report = mapping.report_of_beat(beat)
        if recovered:
            shard.stream.lose_sync()
        if not shard.stream.in_sync:
            self._resync[beat.shard].set()

    async def _on_instance(self, message: Msg) -> None:
        try:
            sign = instance_sign(decode_instance(message.data))
        except Malformed as error:
            note_error(error, "reports of instances")
            return
        self.instances.note_sign(sign, time.monotonic_ns(), now_ns())

    async def _on_directory(self, _message: Msg) -> None:
        self._directory_news.set()

    async def _on_catalog(self, message: Msg) -> None:
        try:
            version = decode_catalog_changed(message.data)
        except Malformed as error:
            note_error(error, "catalog events")
            return
        self._live.catalog_version = max(self._live.catalog_version, version)
        self._changed()

    # --- from the image ---

    async def _keep_synced(self, shard: int) -> None:
        """Read the pages of a shard whenever its stream says so."""
        await self.loaded.wait()
        while True:
            failures = 0
            while not self._in_sync(shard):
                await self._read_shard(shard)
                if not self._in_sync(shard):
                    await asyncio.sleep(
                        backoff_delay(failures, first_s=_RETRY_FIRST_S, cap_s=_RETRY_CAP_S)
                    )
                    failures += 1
            await self._resync[shard].wait()
            self._resync[shard].clear()

    def _in_sync(self, shard: int) -> bool:
        return self._live.shards[shard].stream.in_sync

    async def _read_shard(self, shard: int) -> bool:
        numbers = self._live.pages_of(shard)
        try:
            pages, stamps, fence = await self._image.read_shard(shard, numbers.tolist())
            await self._read_directory()  # after them: labels that they have are there
        except Unavailable as error:
            log.warning("shard %d cannot be read: %s", shard, error.message)
            return False
        if np.array_equal(numbers, self._live.pages_of(shard)):
            self._live.resynchronise_shard(
                shard, pages, stamps.epoch, stamps.sequence, fence, stamps.ages
            )
        self._changed()
        return True

    async def _keep_directory(self) -> None:
        """Load everything once, then follow the directory by event and poll."""
        failures = 0
        while True:
            self._directory_news.clear()
            try:
                await self._read_directory()
                if not self.loaded.is_set():
                    await self._first_load()
                failures = 0
            except Unavailable as error:
                if failures == 0:
                    log.warning("the directory cannot be read: %s", error.message)
                failures += 1
            wait = self._poll_s if self.loaded.is_set() else backoff_delay(failures)
            try:
                async with asyncio.timeout(wait):
                    await self._directory_news.wait()
            except TimeoutError:
                pass

    async def _first_load(self) -> None:
        for beat in await self._image.read_heartbeats(self._live.shard_count):
            # it may be old: only one that comes on the bus is a sign of life
            if beat is not None and self._live.shards[beat.shard].health.heard_at is None:
                self._live.shards[beat.shard].report = mapping.report_of_beat(beat)
        for number in range(self._live.shard_count):
            if not await self._read_shard(number):
                raise Unavailable("the image is away")
        log.info(
            "loaded %d PVs, %d pages",
            len(self._live.directory),
            len(self._live.image.table.page_numbers),
        )
        self.loaded.set()

    async def _read_directory(self) -> None:
        async with self._directory_lock:
            await self._follow_directory()

    async def _follow_directory(self) -> None:
        versions = await self._image.directory_versions(self._live.shard_count)
        known_versions = {v.shard: v for v in versions if v is not None}
        wanted = [n for v in known_versions.values() for n in self._outdated_shards(v)]
        every = np.array(sorted(n for v in known_versions.values() for n in v.pages), np.int64)
        gone = np.setdiff1d(np.array(sorted(self._live.directory.pages), np.int64), every)
        if not known_versions or (not wanted and len(gone) == 0):
            # an image that was emptied says nothing about the catalog
            self._note_directory(known_versions.values(), set())
            return
        pages = await self._image.catalog_pages(wanted)
        catalog = [p for p in pages if self._is_news(p)]
        metadata = await self._image.metadata_pages(wanted)
        # a page that the image lost is asked for again until its owner has written it
        lost = set(wanted) - ({p.number for p in pages} & {p.number for p in metadata})
        catalog_version = max((v.catalog_version for v in known_versions.values()), default=0)
        if len(known_versions) < self._live.shard_count:
            every = np.union1d(every, np.array(sorted(self._live.directory.pages), np.int64))
        self._live.take_directory(catalog, metadata, every, catalog_version)
        for number in range(self._live.shard_count):
            if not self._in_sync(number):
                self._resync[number].set()
        self._note_directory(known_versions.values(), lost)
        self._changed()

    def _note_directory(self, versions: Iterable[DirectoryVersion], lost: set[int]) -> None:
        for version in versions:
            read = _page_versions(version)
            self._read_versions[version.shard] = {n: read[n] for n in read.keys() - lost}
            self._directory_at[version.shard] = (version.epoch, version.version)

    def _outdated_shards(self, version: DirectoryVersion) -> list[int]:
        have = self._read_versions.get(version.shard, {})
        return [
            n for n, page_version in _page_versions(version).items() if have.get(n) != page_version
        ]

    def _is_news(self, page: CatalogPage) -> bool:
        """After a fail-over every page has a new version, and nearly always the old content."""
        old = self._live.directory.pages.get(page.number)
        return old is None or not _same_page(old, page)

    async def _keep_fresh(self) -> None:
        """Notice silence, and what returns from it."""
        while True:
            await asyncio.sleep(TICK_S)
            if self._bus.reconnects != self._reconnects:
                self._reconnects = self._bus.reconnects
                for number, shard in enumerate(self._live.shards):
                    shard.stream.lose_sync()
                    self._resync[number].set()
            stale = self._live.stale_shards(time.monotonic_ns(), self._bus.connected)
            if stale != self.stale:
                self.stale = stale
                self._changed()


def _page_versions(version: DirectoryVersion) -> dict[int, tuple[int, int]]:
    return {
        page: (version.epoch, page_version)
        for page, page_version in zip(version.pages, version.page_versions, strict=True)
    }


def _same_page(a: CatalogPage, b: CatalogPage) -> bool:
    lists = a.names == b.names and a.addresses == b.addresses and a.devices == b.devices
    columns = ("pv_number", "role", "protocol", "read_only", "absolute", "relative")
    return lists and all(np.array_equal(getattr(a, c), getattr(b, c)) for c in columns)
