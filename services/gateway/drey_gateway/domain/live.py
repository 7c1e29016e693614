"""All that the gateway holds of the machine: image, directory, metadata, shards. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import CatalogPage, Directory, MetadataIndex, MetadataPage
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS, Pages, shard_of_page
from drey_core.selector import SelectorIndex
from drey_core.slot_sequences import Ages
from drey_core.values import I8, State
from drey_gateway.domain.health import ShardHealth
from drey_gateway.domain.image import LiveImage
from drey_gateway.domain.resume import Point, Token
from drey_gateway.domain.rows import RowCache
from drey_gateway.domain.shard import BusBatch, ShardStream, Step
from drey_gateway.domain.watch import Fields, WatchSelection


@dataclass(slots=True)
class Report:
    """What the owner of a shard last said of itself (`drey.events.v1.Heartbeat`)."""

    shard: int
    epoch: int = 0
    sequence: int = 0
    owner: str = ""
    channels: int = 0
    connected: int = 0
    disconnected: int = 0
    never_connected: int = 0
    unsupported: int = 0
    in_alarm: int = 0
    updates_per_s: float = 0.0
    merged: int = 0
    channel_access: str = ""
    tick_ms: int = 0
    directory_version: int = 0
    catalog_version: int = 0
    image_failing: bool = False


class Shard:
    """One shard as seen here."""

    def __init__(self, number: int) -> None:
        self.stream = ShardStream()
        self.health = ShardHealth(number)
        self.report = Report(number)


class LiveState:
    """The state. Everything is changed on one event loop, and nothing in it waits."""

    def __init__(self, shard_count: int) -> None:
        self.shard_count = shard_count
        self.shards = [Shard(n) for n in range(shard_count)]
        self.image = LiveImage()
        self.directory = Directory.from_pages(0, [])
        self.metadata = MetadataIndex()
        self.generation = 0
        """Grows when the directory changes: selections are to be made anew."""
        self.metadata_generation = 0
        self.metadata_changed: dict[int, int] = {}
        """Metadata page and the generation in which it last changed."""
        self.catalog_version = 0
        self.pages = np.zeros(0, np.int64)
        """Numbers of all pages that there are, ascending."""
        self._index: SelectorIndex | None = None
        self._caches: dict[Fields, RowCache] = {}

    # --- values ---

    def apply_batch(self, shard: int, batch: BusBatch) -> I8:
        """Take a batch of the bus; the slots that changed."""
        return self._apply_steps(self.shards[shard].stream.offer_batch(batch))

    def pages_of(self, shard: int) -> I8:
        """Numbers of a shard's pages, ascending."""
        mine: I8 = self.pages[shard_of_page(self.pages, self.shard_count) == shard]
        return mine

    def resynchronise_shard(
        self,
        shard: int,
        pages: Pages,
        epoch: NDArray[np.uint64],
        sequence: NDArray[np.uint64],
        fence: int,
        ages: Ages,
    ) -> I8:
        """Take all pages of a shard, and what waited for them; the slots that changed.

        `epoch` and `sequence` are the pages' stamps, `ages` those of their slots, `fence` is the
        epoch in force in the image, all as of one instant. Pages that the image lacks (epoch 0)
        leave the shard out of step.
        """
        changed = self.image.apply_pages(pages, epoch, sequence, ages)
        newest = (0, 0)
        if len(epoch) and int(epoch.max()) > 0:
            top = epoch.max()
            newest = (int(top), int(sequence[epoch == top].max()))
        whole = bool((epoch > 0).all())
        steps = self.shards[shard].stream.finish_resync(newest, fence=fence, whole=whole)
        return np.concatenate([changed, self._apply_steps(steps)])

    def _apply_steps(self, steps: Sequence[Step]) -> I8:
        changed = [self.image.apply_batch(s.columns, s.epoch, s.sequence) for s in steps]
        return np.concatenate(changed) if changed else np.zeros(0, np.int64)

    def pvs_in(self, shard: int, state: State, limit: int) -> list[str]:
        """Names of up to `limit` PVs that have a channel of a shard in a state."""
        table = self.image.table
        mine = np.flatnonzero(shard_of_page(table.page_numbers, self.shard_count) == shard)
        state_rows = np.flatnonzero(table.pages.values["state"][mine] == state)
        channels = (table.page_numbers[mine][state_rows >> PAGE_SHIFT] << PAGE_SHIFT) | (
            state_rows & PAGE_MASK
        )
        names: dict[str, None] = {}
        for start in range(0, len(channels), PAGE_SLOTS):
            rows = self.directory.pv_rows_of_channels(channels[start : start + PAGE_SLOTS])
            names |= dict.fromkeys(self.directory.names[row] for row in rows[rows >= 0].tolist())
            if len(names) >= limit:
                break
        return list(names)[:limit]

    # --- the directory ---

    def take_directory(
        self,
        catalog: Iterable[CatalogPage],
        metadata: Iterable[MetadataPage],
        pages: I8,
        catalog_version: int,
    ) -> None:
        """Put newer directory pages in place; `pages` are all that there are, ascending.

        A shard with pages that are new here is out of step until they have been read.
        """
        new_pages = np.setdiff1d(pages, self.image.table.page_numbers)
        for shard in np.unique(shard_of_page(new_pages, self.shard_count)).tolist():
            self.shards[shard].stream.lack_pages()
        self.image.add_pages(new_pages)
        self.pages = pages
        self._take_metadata(metadata)
        merged = {n: p for n, p in self.directory.pages.items() if n in set(pages.tolist())}
        new = {p.number: p for p in catalog}
        if new or len(merged) != len(self.directory.pages):
            merged |= new
            self.generation += 1
            self.directory = Directory.from_pages(self.generation, list(merged.values()))
            self._index = None
            self._caches = {}
        self.catalog_version = max(self.catalog_version, catalog_version)

    def _take_metadata(self, metadata: Iterable[MetadataPage]) -> None:
        pages = list(metadata)
        if not pages:
            return
        self.metadata_generation += 1
        for page in pages:
            self._touch_relabelled(self.metadata.pages.get(page.number), page)
            self.metadata.replace_page(page)
            self.metadata_changed[page.number] = self.metadata_generation

    def _touch_relabelled(self, old: MetadataPage | None, new: MetadataPage) -> None:
        """A row of an enumeration carries its label, so new labels make new rows."""
        before = old.labels if old else {}
        entries = [
            e for e in before.keys() | new.labels.keys() if before.get(e) != new.labels.get(e)
        ]
        if entries:
            channels = np.array(entries, np.int64) + (new.number << PAGE_SHIFT)
            self.image.touch_slots(self.image.slots_of_channels(channels))

    @property
    def selector_index(self) -> SelectorIndex:
        """Selectors over the directory; ids, tags and scopes are not known here."""
        if self._index is None:
            directory = self.directory
            self._index = SelectorIndex(
                numbers=directory.pv_number,
                names=directory.names,
                setpoint_addresses=directory.setpoint_address,
                readback_addresses=directory.readback_address,
                devices=directory.devices,
            )
        return self._index

    def row_cache(self, fields: Fields) -> RowCache:
        """Encoded rows of the present directory."""
        if fields not in self._caches:
            self._caches[fields] = RowCache(
                self.directory, self.image, self.metadata.labels, fields, self.shard_count
            )
        return self._caches[fields]

    # --- freshness ---

    def stale_shards(self, now: int, bus_connected: bool) -> dict[int, str]:
        """Shards whose values cannot be believed to be the present ones, and why."""
        out = {}
        for number, shard in enumerate(self.shards):
            shard.health.note_sync(shard.stream.in_sync, now)
            why = shard.health.why_stale(now, bus_connected)
            if why:
                out[number] = why
        return out

    def shard_positions(self) -> dict[int, Point]:
        """How far each shard is applied."""
        return {n: s.stream.known_position for n, s in enumerate(self.shards)}

    def token(self, selection: WatchSelection) -> Token:
        """Where a watch stands that has been sent all of the selection that is here."""
        streams = {n: self.shards[n].stream for n in selection.shards}
        return Token(
            selection.digest,
            {n: s.known_position for n, s in streams.items()},
            {n: s.newest_point for n, s in streams.items()},
        )
