"""The machine as it is now, from the image: values, metadata, and which shards are silent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import MetadataPage
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS, Pages, page_of, shard_of_page
from drey_core.values import I8, Columns, State
from drey_restore.domain.items import F8, Labels, scatter_rows
from drey_runtime.image import Image, metadata_page
from drey_runtime.pulse import Pulses
from drey_runtime.waiting import run_together

_CONTROL_LOW, _CONTROL_HIGH = 6, 7


class ChannelMetadata:
    """What monitors know of channels, as one table over all pages."""

    def __init__(self, pages: dict[int, MetadataPage]) -> None:
        self._pages = pages
        numbers = sorted(pages)
        listed = [pages[number] for number in numbers]
        self._numbers = np.array(numbers, np.int64)
        # a last page of its own for channels of no page that we have
        none = MetadataPage.empty_page(0)
        self._count = np.concatenate([p.count for p in (*listed, none)])
        self._writable = np.concatenate([p.writable for p in (*listed, none)])
        self._low = np.concatenate([p.limits[_CONTROL_LOW] for p in (*listed, none)])
        self._high = np.concatenate([p.limits[_CONTROL_HIGH] for p in (*listed, none)])
        self._shown: dict[Labels, Labels] = {}

    def rows(self, channels: I8) -> I8:
        """Rows of the table; what the other methods take."""
        number = channels >> PAGE_SHIFT
        last = len(self._numbers)
        places = np.searchsorted(self._numbers, number)
        if last:
            places = np.where(self._numbers[np.minimum(places, last - 1)] == number, places, last)
        rows: I8 = places * PAGE_SLOTS + (channels & PAGE_MASK)
        return rows

    def count(self, rows: I8) -> I8:
        """Greatest number of elements; 0 where it is not known."""
        return self._count[rows]

    def writable(self, rows: I8) -> NDArray[np.bool_]:
        """Write access; False where it is not known."""
        writable: NDArray[np.bool_] = self._writable[rows] != 0
        return writable

    def control_limits(self, rows: I8) -> tuple[F8, F8]:
        """Control (drive) limits, low and high; NaN where there are none."""
        return self._low[rows], self._high[rows]

    def labels(self, channel: int) -> Labels:
        """Labels of an enumeration as the edge shows them: UTF-8, with replacement."""
        page = self._pages.get(channel >> PAGE_SHIFT)
        raw = page.labels.get(channel & PAGE_MASK, ()) if page else ()
        shown = self._shown.get(raw)
        if shown is None:
            shown = tuple(label.decode(errors="replace").encode() for label in raw)
            self._shown[raw] = shown
        return shown


@dataclass(frozen=True)
class ChannelReading:
    """Values of channels in the order asked; `stale[i]`: its monitor is silent.

    `writable`: by this process where it has a channel of its own, else by the monitor. `labels`, by
    row, are those that our own channels have; the monitors' are in `metadata`. `not_asked`, by row:
    why its IOC was not.
    """

    values: Columns
    stale: NDArray[np.bool_]
    writable: NDArray[np.bool_]
    metadata: ChannelMetadata
    labels: Mapping[int, Labels] = field(default_factory=dict)
    not_asked: Mapping[int, str] = field(default_factory=dict)

    def with_labels(self, rows: I8, labels: Sequence[Labels]) -> ChannelReading:
        """With the labels of enumerations that a channel of our own has, where it has them."""
        labels_by_row = {
            row: tuple(label.decode(errors="replace").encode() for label in raw)
            for row, raw in zip(rows.tolist(), labels, strict=True)
            if raw
        }
        return replace(self, labels=labels_by_row)

    def with_access(self, rows: I8, writable: NDArray[np.bool_]) -> ChannelReading:
        """With what the IOC allows this process, whose identity need not be the monitor's."""
        both = self.writable.copy()
        both[rows] = writable
        return replace(self, writable=both)

    def with_read(self, rows: I8, values: Columns, silent: I8) -> ChannelReading:
        """With `values` that a read of our own gave for `rows`; `silent` gave no answer to one."""
        merged = scatter_rows(self.values, rows, values.with_key(self.values.key[rows]))
        state, stale = merged.state.copy(), self.stale.copy()
        state[silent] = np.where(
            state[silent] == State.CONNECTED, State.DISCONNECTED, state[silent]
        )
        stale[rows] = stale[silent] = False
        return replace(self, values=replace(merged, state=state), stale=stale)


@dataclass(frozen=True)
class LivePages:
    """Some pages of the image at one time; `silent[i]`: shard i has no living monitor."""

    pages: Pages
    silent: NDArray[np.bool_]
    metadata: ChannelMetadata

    def covers_channels(self, channels: I8) -> bool:
        """Whether the pages of all these channels were read."""
        return bool(np.isin(pages_of(channels), self.pages.numbers).all())

    def reading_of(self, channels: I8) -> ChannelReading:
        """The given channels (0 means none: absent)."""
        stale = self.silent[shard_of_page(page_of(channels), len(self.silent))]
        writable = self.metadata.writable(self.metadata.rows(channels))
        return ChannelReading(
            self.pages.columns_of_channels(channels), stale, writable, self.metadata
        )


def pages_of(channels: I8) -> I8:
    """Numbers of the pages in which the channels (0 means none) lie, ascending."""
    numbers = page_of(channels[channels != 0])
    first = int(numbers.min()) if len(numbers) else 0
    return np.flatnonzero(np.bincount(numbers - first)).astype(np.int64) + first


class LiveMachine:
    """Reads the image. Raises `Unavailable` (IMAGE_UNAVAILABLE) while Redis is away."""

    def __init__(self, image: Image, pulses: Pulses, shards: int, stale_after_s: float) -> None:
        self._image, self._pulses, self._shards = image, pulses, shards
        self._stale_after_ns = int(stale_after_s * 1e9)
        self._pages: dict[int, MetadataPage] = {}
        self._metadata = ChannelMetadata({})
        self._versions: dict[int, tuple[int, int]] = {}
        self._lock = asyncio.Lock()

    async def read_channels(self, channels: I8) -> LivePages:
        """The pages of channels (0 means none), and their metadata, as of now."""
        numbers = pages_of(channels)
        (pages, _), silent = await run_together(
            self._image.read_pages(numbers.tolist()), self._silent_shards()
        )
        # after the values: a monitor writes a value when the labels that it has are written
        metadata = await self.metadata(numbers)
        return LivePages(pages, silent, metadata)

    async def metadata(self, numbers: I8) -> ChannelMetadata:
        """Metadata of the channels of some pages; only what changed is read again."""
        async with self._lock:
            versions: dict[int, tuple[int, int]] = {}
            for record in await self._image.directory_versions(self._shards):
                if record is not None:
                    stamps = zip(record.pages, record.page_versions, strict=True)
                    versions |= {page: (record.epoch, version) for page, version in stamps}
            known_versions = self._versions
            wanted = [
                n
                for n in numbers.tolist()
                if n not in versions or known_versions.get(n) != versions[n]
            ]
            await self._read_metadata(wanted, versions)
            return self._metadata

    async def _read_metadata(self, wanted: list[int], versions: dict[int, tuple[int, int]]) -> None:
        if not wanted:
            return
        pages = dict(self._pages)
        for number, raw in zip(wanted, await self._image.metadata_bytes(wanted), strict=True):
            self._versions.pop(number, None)
            page = metadata_page(number, raw)
            if page is None:
                pages.pop(number, None)
                continue
            pages[number] = page
            if number in versions:
                self._versions[number] = versions[number]
        self._pages, self._metadata = pages, ChannelMetadata(pages)

    async def _silent_shards(self) -> NDArray[np.bool_]:
        return np.array(
            [
                beat is None or beat.image_failing or age is None or age > self._stale_after_ns
                for beat, age in await self._pulses.read_pulses()
            ],
            bool,
        )
