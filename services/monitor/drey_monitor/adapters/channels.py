"""The process's channel table, seen by channel number and shard instead of slot."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_ca import ChannelTable, InfoColumns, TableStats
from drey_core.errors import InvalidArgument
from drey_core.values import Columns

log = logging.getLogger(__name__)

I8 = NDArray[np.int64]
_CHUNK = 2000


@dataclass(frozen=True, slots=True)
class Drained:
    """What came for one shard: values by channel, and metadata of `info_channels`."""

    values: Columns
    info_channels: I8
    info: InfoColumns | None


class ChannelHub:
    """Who uses the table: shards by number. Belongs to one event loop.

    Draining waits while a chunk of channels is being made, because the table gives the slots only
    when the chunk is made, and a row drained before that would belong to nobody.
    """

    def __init__(self, table: ChannelTable) -> None:
        self._table = table
        self._channel = np.full(0, -1, np.int64)
        self._shard = np.full(0, -1, np.int64)
        self._lock = asyncio.Lock()

    @property
    def implementation(self) -> str:
        """`aioca` or `native`."""
        return self._table.implementation

    def stats(self) -> TableStats:
        """Counters of the table."""
        return self._table.stats()

    async def add(self, shard: int, channels: I8, addresses: Sequence[str]) -> None:
        """Watch channels at their addresses. Returns when all are searched for.

        Cancelled half-way, those made so far stay; `drop` or `unmap` and `release` end them.
        """
        for at in range(0, len(channels), _CHUNK):
            part = channels[at : at + _CHUNK]
            async with self._lock:
                await self._add(shard, part, list(addresses[at : at + _CHUNK]))

    async def _add(self, shard: int, channels: I8, addresses: list[str]) -> None:
        while addresses:
            try:
                slots = await self._table.add(addresses)
            except InvalidArgument as error:
                bad = _index_of(error)
                log.warning("channel %d is not watched: %s", channels[bad], error.message)
                channels = np.delete(channels, bad)
                del addresses[bad]
                continue
            self._map(slots, shard, channels)
            await self._table.subscribe(slots)
            return

    def _map(self, slots: I8, shard: int, channels: I8) -> None:
        missing = int(slots.max()) + 1 - len(self._channel)
        if missing > 0:
            more = np.full(max(missing, len(self._channel)), -1, np.int64)
            self._channel = np.concatenate([self._channel, more])
            self._shard = np.concatenate([self._shard, more])
        self._channel[slots] = channels
        self._shard[slots] = shard

    def unmap(self, shard: int, channels: I8) -> I8:
        """Hear nothing more of these from now on; their slots, to be given to `release`."""
        slots = np.flatnonzero((self._shard == shard) & np.isin(self._channel, channels))
        self._channel[slots] = -1
        self._shard[slots] = -1
        return slots

    async def release(self, slots: I8) -> None:
        """End the channels of unmapped slots."""
        for at in range(0, len(slots), _CHUNK):
            await self._table.remove(slots[at : at + _CHUNK])

    async def drop(self, shard: int) -> None:
        """End all channels of a shard."""
        slots = np.flatnonzero(self._shard == shard)
        self._channel[slots] = -1
        self._shard[slots] = -1
        await self.release(slots)

    async def wait_dirty(self) -> None:
        """Return when `drain` would give something."""
        await self._table.wait_dirty()

    async def drain(self) -> dict[int, Drained]:
        """What came since the last drain, by shard."""
        async with self._lock:
            values = self._table.drain()
            slots = self._table.drain_info()
            return self._split(values, slots)

    def _split(self, values: Columns, slots: I8) -> dict[int, Drained]:
        owner, named = self._shard_of(values.key), self._shard_of(slots)
        info = self._table.info(slots) if len(slots) else None
        out = {}
        for shard in np.union1d(owner, named).tolist():
            if shard < 0:
                continue
            rows = owner == shard
            mine = values if rows.all() else values.take(rows)
            about = slots[named == shard]
            out[shard] = Drained(
                mine.with_key(self._channel_of(mine.key)),
                self._channel_of(about),
                _about(self._table, info, slots, about),
            )
        return out

    def _shard_of(self, slots: I8) -> I8:
        return _looked_up(self._shard, slots)

    def _channel_of(self, slots: I8) -> I8:
        return _looked_up(self._channel, slots)


def _looked_up(column: I8, slots: I8) -> I8:
    """Entries of `column`; -1 for slots beyond it."""
    if not len(column):
        return np.full(len(slots), -1, np.int64)
    inside = slots < len(column)
    found: I8 = np.where(inside, column[np.where(inside, slots, 0)], -1)
    return found


def _about(
    table: ChannelTable, info: InfoColumns | None, slots: I8, about: I8
) -> InfoColumns | None:
    if info is None or not len(about):
        return None
    return info if len(about) == len(slots) else table.info(about)


def _index_of(error: InvalidArgument) -> int:
    found = re.search(r"\[(\d+)\]", error.field)
    if found is None:
        raise error
    return int(found.group(1))
