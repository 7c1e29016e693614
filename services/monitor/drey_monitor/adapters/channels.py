"""The process's channel table, seen by channel number and shard instead of slot."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from drey_ca import (
    ChannelTable,
    Connections,
    InfoColumns,
    ReadResult,
    ServedTwice,
    TableStats,
)
from drey_core.errors import InvalidArgument
from drey_core.values import Columns

log = logging.getLogger(__name__)

I8 = NDArray[np.int64]
_CHUNK = 2000
_CONNECT_S = 5.0


class ChannelHub:
    """Who uses the table: shards by number. Belongs to one event loop.

    Draining waits while a chunk of channels is being made, because the table gives the slots only
    when the chunk is made, and a row drained before that would belong to nobody.
    """

    def __init__(self, table: ChannelTable) -> None:
        self._table = table
        self._channel = np.full(0, -1, np.int64)
        self._shard = np.full(0, -1, np.int64)
        self._info_changed = np.zeros(0, bool)
        """Slots whose info changed and was not taken yet."""
        self._lock = asyncio.Lock()

    @property
    def implementation_name(self) -> str:
        """`aioca` or `native`."""
        return self._table.implementation_name

    def table_stats(self) -> TableStats:
        """Counters of the table."""
        return self._table.table_stats()

    @property
    def has_searched(self) -> bool:
        """Whether a channel was made ever."""
        return len(self._table.connection_columns().server) > 0

    def connection_columns(self) -> Connections:
        """Where the channels are, by slot."""
        return self._table.connection_columns()

    def channels_of(self, slots: I8) -> I8:
        """Channel number of each slot; -1 where it is nobody's."""
        return _entries_of(self._channel, slots)

    def shards_of(self, slots: I8) -> I8:
        """Shard of each slot; -1 where it is nobody's."""
        return _entries_of(self._shard, slots)

    def take_served_twice(self) -> list[ServedTwice]:
        """Names that were found at two servers, since last asked."""
        return self._table.take_served_twice()

    async def read_values(self, slots: I8, timeout_s: float) -> ReadResult:
        """Read slots from their servers; what is watched is not touched."""
        return await self._table.read_values(slots, timeout_s)

    async def add_unwatched(self, names: Sequence[str]) -> I8:
        """Slots of channels that are only searched for; to be given to `release`."""
        async with self._lock:
            return await self._table.add_channels(names)

    async def add_channels(self, shard: int, channels: I8, addresses: Sequence[str]) -> None:
        """Watch channels at their addresses. Returns when all are searched for.

        Cancelled half-way, those made so far stay; `drop` or `unmap` and `release` end them.
        """
        for start in range(0, len(channels), _CHUNK):
            part = channels[start : start + _CHUNK]
            async with self._lock:
                await self._add_to_table(shard, part, list(addresses[start : start + _CHUNK]))

    async def _add_to_table(self, shard: int, channels: I8, addresses: list[str]) -> None:
        while addresses:
            try:
                slots = await self._table.add_channels(addresses)
            except InvalidArgument as error:
                bad = _index_of(error)
                log.warning("channel %d is not watched: %s", channels[bad], error.message)
                channels = np.delete(channels, bad)
                del addresses[bad]
                continue
            self._map_slots(slots, shard, channels)
            await self._table.subscribe_slots(slots)
            return

    def _map_slots(self, slots: I8, shard: int | I8, channels: I8) -> None:
        missing = int(slots.max()) + 1 - len(self._channel)
        if missing > 0:
            more = np.full(max(missing, len(self._channel)), -1, np.int64)
            self._channel = np.concatenate([self._channel, more])
            self._shard = np.concatenate([self._shard, more])
            self._info_changed = np.concatenate([self._info_changed, np.zeros(len(more), bool)])
        self._channel[slots] = channels
        self._shard[slots] = shard

    async def reconnect_slots(
        self, slots: I8, addresses_of: Callable[[I8, I8], list[str]]
    ) -> NDArray[np.bool_]:
        """Give channels that were not heard since they were subscribed another connection.

        `addresses_of` shards and channels; an empty one is left alone. The old connection is
        given up when the new one is there: where none comes all stays as it was. Which got one.
        """
        done = np.zeros(len(slots), bool)
        shards, channels = self._shard[slots], self._channel[slots]
        addresses = addresses_of(shards, channels)
        rows = np.flatnonzero([bool(address) for address in addresses])
        if not len(rows):
            return done
        slots, shards, channels = slots[rows], shards[rows], channels[rows]
        fresh = unused = await self.add_unwatched([addresses[row] for row in rows.tolist()])
        try:
            await self._table.wait_connected(fresh, _CONNECT_S)
            async with self._lock:
                found = self._table.connection_columns()
                taken = found.connected[fresh] & (found.unheard_ns[slots] > 0)
                # somebody may have ended them meanwhile
                taken &= (self._shard[slots] == shards) & (self._channel[slots] == channels)
                old, new = slots[taken], fresh[taken]
                self._channel[old] = self._shard[old] = -1
                self._map_slots(new, shards[taken], channels[taken])
                self._info_changed[new] = True
                unused = np.concatenate([old, fresh[~taken]])
                await self._table.subscribe_slots(new)
        finally:
            await self.release_slots(unused)
        done[rows] = taken
        return done

    def unmap_channels(self, shard: int, channels: I8) -> I8:
        """Hear nothing more of these from now on; their slots, to be given to `release`."""
        slots = np.flatnonzero((self._shard == shard) & np.isin(self._channel, channels))
        self._channel[slots] = -1
        self._shard[slots] = -1
        return slots

    async def release_slots(self, slots: I8) -> None:
        """End the channels of unmapped slots."""
        for start in range(0, len(slots), _CHUNK):
            await self._table.remove_slots(slots[start : start + _CHUNK])

    async def drop_shard(self, shard: int) -> None:
        """End all channels of a shard."""
        slots = np.flatnonzero(self._shard == shard)
        self._channel[slots] = -1
        self._shard[slots] = -1
        await self.release_slots(slots)

    async def wait_dirty(self) -> None:
        """Return when `drain` would give something."""
        await self._table.wait_dirty()

    async def drain_updates(self) -> dict[int, Columns]:
        """Values that came since the last drain, by shard, keyed by channel.

        Whose info changed is noted for `take_info`.
        """
        async with self._lock:
            # in this order: labels that a number needs are told before it
            values = self._table.drain_updates()
            self._note_info(self._table.drain_info())
        return self._split_shards(values)

    def take_info(self, shard: int) -> tuple[I8, InfoColumns] | None:
        """Channels of a shard whose info changed since last taken, and it as of now; or None.

        Some thousands at a time, so that a tick need not wait for more. Asked for seldom and then
        until None: while a machine connects every channel has news several times.
        """
        if not self._info_changed.any():
            return None
        return self._take_info_of_slots(self._news_of(shard)[:_CHUNK])

    def take_info_of(self, shard: int, channels: I8) -> tuple[I8, InfoColumns] | None:
        """As `take_info`, of those among `channels` only, and all of them at once."""
        if not self._info_changed.any():
            return None
        slots = self._news_of(shard)
        return self._take_info_of_slots(slots[np.isin(self._channel[slots], channels)])

    def count_news(self, shard: int) -> int:
        """How many channels of a shard `take_info` would give, all in all."""
        return len(self._news_of(shard)) if self._info_changed.any() else 0

    def _news_of(self, shard: int) -> I8:
        return np.flatnonzero(self._info_changed & (self._shard == shard))

    def _take_info_of_slots(self, slots: I8) -> tuple[I8, InfoColumns] | None:
        if not len(slots):
            return None
        self._info_changed[slots] = False
        return self._channel[slots], self._table.read_info(slots)

    def _note_info(self, slots: I8) -> None:
        slots = slots[slots < len(self._info_changed)]
        self._info_changed[slots[self._shard[slots] >= 0]] = True

    def _split_shards(self, values: Columns) -> dict[int, Columns]:
        owner = _entries_of(self._shard, values.key)
        if not len(owner):
            return {}
        first = int(owner[0])
        if (owner == first).all():
            return {first: self._by_channel(values)} if first >= 0 else {}
        shards = np.flatnonzero(np.bincount(owner[owner >= 0]))
        return {s: self._by_channel(values.take_rows(owner == s)) for s in shards.tolist()}

    def _by_channel(self, values: Columns) -> Columns:
        return values.with_key(self._channel[values.key])


def _entries_of(column: I8, slots: I8) -> I8:
    """Entries of `column`; -1 for slots beyond it."""
    if not len(slots) or int(slots.max()) < len(column):
        return column[slots]
    entries = np.full(len(slots), -1, np.int64)
    inside = slots < len(column)
    entries[inside] = column[slots[inside]]
    return entries


def _index_of(error: InvalidArgument) -> int:
    index = re.search(r"\[(\d+)\]", error.field)
    if index is None:
        raise error
    return int(index.group(1))
