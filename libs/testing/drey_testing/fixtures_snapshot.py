"""An image without an IOC: what a monitor writes into Redis, written by the test itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import numpy as np

from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat
from drey.internal.directory.v1 import directory_service_pb2
from drey_core.directory import Directory, MetadataPage
from drey_core.errors import Unavailable
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, shard_of_page
from drey_core.values import I8, Columns, Kind, Origin, State
from drey_runtime.directory_codec import decode_catalog, encode_metadata
from drey_runtime.image import Image


def csv_of(pvs: int, first: int = 0) -> bytes:
    """A catalog of PVs `Q0:SP`/`Q0:RB` and on, with tolerances 0.001 and 0.05."""
    lines = ["Setpoint,Readback,Device,Region,Abs Tolerance,Readback Abs Tolerance"]
    for i in range(first, first + pvs):
        lines.append(f"Q{i}:SP,Q{i}:RB,D{i // 4},R{i % 3},0.001,0.05")
    return "\n".join(lines).encode() + b"\n"


class FakeMonitor:
    """The owner of all shards, by its image. Nothing is sent on the bus."""

    def __init__(self, image: Image, shards: int = 1) -> None:
        self.image, self.shards = image, shards
        self.epoch, self.sequence, self.version = 1, 0, 0
        self.directory = Directory.from_pages(0, [])
        self.table = PageTable(np.zeros(0, np.int64))
        self._raw: dict[int, bytes] = {}
        self._alive: asyncio.Task[None] | None = None
        self.ahead_ns = 0
        """By how much the clock of its host is ahead."""

    async def follow(self, stub: Any) -> None:
        """Read the catalog from a `DirectoryServiceStub` as a monitor does.

        New channels appear as never connected.
        """
        pages: list[bytes] = []
        version = 0
        request = directory_service_pb2.GetCatalogPagesRequest()
        async for response in stub.GetCatalogPages(request):
            pages += response.pages
            version = response.version
        decoded = [decode_catalog(raw) for raw in pages]
        self._raw = {page.number: raw for page, raw in zip(decoded, pages, strict=True)}
        self.directory = Directory.from_pages(version, decoded)
        known_numbers = self.table.page_numbers
        self.table.add_pages(np.unique(self.directory.channels >> PAGE_SHIFT))
        assert len(self.table.page_numbers) >= len(known_numbers)
        blank = self.columns(self.directory.channels)
        fresh = self.table.columns_of_channels(self.directory.channels).state == State.ABSENT
        self.table.apply_batch(blank.take_rows(fresh))

    def columns(self, channels: I8) -> Columns:
        """Rows of channels that never connected, to be filled in."""
        out = Columns.empty_columns(len(channels)).with_key(np.asarray(channels, np.int64))
        out.state[:] = State.NEVER_CONNECTED
        return out

    def floats(self, channels: I8, values: np.ndarray, *, at_ns: int | None = None) -> Columns:
        """Connected float64 scalars."""
        now = time.time_ns() if at_ns is None else at_ns
        out = self.columns(channels)
        out.kind[:], out.state[:] = Kind.FLOAT64, State.CONNECTED
        out.origin[:] = Origin.MONITOR
        out.source_time[:], out.receive_time[:] = now, now
        out.data[:] = np.asarray(values, np.float64).view(np.uint64)
        return out

    async def publish(self, *parts: Columns) -> None:
        """Fold columns in, and write all pages and heartbeats."""
        for part in parts:
            self.table.apply_batch(part)
        await self.rewrite()

    async def rewrite(self) -> None:
        """Write all pages and heartbeats."""
        self.sequence += 1
        pages = self.table.take_pages(np.arange(len(self.table.page_numbers)))
        for shard in range(self.shards):
            mine = np.flatnonzero(shard_of_page(pages.numbers, self.shards) == shard)
            part = type(pages)(
                pages.numbers[mine],
                pages.values[mine],
                pages.times[mine],
                [pages.heaps[i] for i in mine.tolist()],
            )
            now = time.time_ns()
            await self.image.write_pages(shard, self.epoch, self.sequence, now, part)
        await self.beat()
        if self._alive is None:
            self._alive = asyncio.create_task(self.keep_alive())

    async def __aenter__(self) -> Self:
        """It lives from the first `rewrite` on."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """It falls silent."""
        await self.fall_silent()

    async def fall_silent(self) -> None:
        """No sign of life from here on, but by `beat`."""
        if self._alive is not None:
            self._alive.cancel()
            await asyncio.gather(self._alive, return_exceptions=True)

    async def beat(self, *, image_failing: bool = False) -> None:
        """Signs of life of all shards."""
        for shard in range(self.shards):
            await self.image.write_heartbeat(
                Heartbeat(
                    shard=shard,
                    shard_count=self.shards,
                    epoch=self.epoch,
                    sequence=self.sequence,
                    time_ns=time.time_ns() + self.ahead_ns,
                    owner="test",
                    settled=True,
                    image_failing=image_failing,
                )
            )

    async def describe(
        self,
        kind: int = Kind.FLOAT64,
        labels: Mapping[int, Sequence[bytes]] | None = None,
        units: bytes = b"A",
    ) -> None:
        """Write metadata pages: all channels of a kind; labels of enumerations by channel."""
        self.version += 1
        metadata = {}
        for number in self.table.page_numbers.tolist():
            page = MetadataPage.empty_page(number)
            page.kind[:], page.count[:], page.readable[:], page.writable[:] = kind, 1, 1, 1
            page.limits[6:8] = [[-100.0], [100.0]]
            page.units[:] = [units] * len(page.units)
            for channel, texts in (labels or {}).items():
                if channel >> PAGE_SHIFT == number:
                    page.kind[channel & PAGE_MASK] = Kind.ENUM
                    page.labels[channel & PAGE_MASK] = tuple(texts)
            metadata[number] = encode_metadata(page)
        for shard in range(self.shards):
            numbers = [n for n in metadata if shard_of_page(n, self.shards) == shard]
            version = DirectoryVersion(
                shard=shard,
                epoch=self.epoch,
                version=self.version,
                pages=numbers,
                page_versions=[self.version] * len(numbers),
                catalog_version=self.directory.version,
            )
            await self.image.write_directory(
                version,
                {n: self._raw[n] for n in numbers if n in self._raw},
                {n: metadata[n] for n in numbers},
            )

    async def keep_alive(self) -> None:
        """Heartbeats until cancelled."""
        while True:
            with suppress(Unavailable):
                await self.beat()
            await asyncio.sleep(0.4)
