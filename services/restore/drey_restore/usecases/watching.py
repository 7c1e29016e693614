"""The channels of a restore while it writes: who else changes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np

from drey_core.values import I8, Columns
from drey_restore.adapters.changes import ChangeFeed
from drey_restore.adapters.channels import ChannelPool
from drey_restore.domain.interference import Interference
from drey_restore.domain.items import PlanItems

_TELL_EVERY_S = 0.25


class WriteWatch:
    """Watches setpoints by subscription, from the first write of each to the end of `watching`."""

    def __init__(self, feed: ChangeFeed, channels: ChannelPool, items: PlanItems) -> None:
        self._feed, self._channels, self._items = feed, channels, items
        self.interference = Interference(items, items.current)
        self._slots, self._rows = np.zeros((2, 0), np.int64)
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def watch_writes(
        self, rows: I8, before: Columns, tell: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """During the body; `tell` is called where somebody interferes, not too often."""
        self.interference = Interference(self._items, before)
        await self.follow_rows(rows)
        telling = asyncio.create_task(self._tell_changes(tell))
        try:
            with self._feed.listen_to_changes(self._note_changes):
                yield
        finally:
            telling.cancel()
            await asyncio.wait({telling})
        if not telling.cancelled():
            await telling

    async def follow_rows(self, rows: I8) -> None:
        """Subscribe to the channels of rows, those too that were renewed since."""
        addresses = [self._items.addresses[row] for row in rows.tolist()]
        slots = self._channels.slots_of(addresses)
        kept = ~np.isin(self._rows, rows)
        self._slots = np.concatenate([self._slots[kept], slots])
        self._rows = np.concatenate([self._rows[kept], rows])
        order = np.argsort(self._slots)
        self._slots, self._rows = self._slots[order], self._rows[order]
        await self._channels.table.subscribe_slots(slots)

    def take_changes(self) -> None:
        """See what has come by now."""
        self._feed.take_changes()

    def _note_changes(self, changes: Columns) -> None:
        if len(self._slots) == 0:
            return
        place = np.minimum(np.searchsorted(self._slots, changes.key), len(self._slots) - 1)
        ours = self._slots[place] == changes.key
        if ours.any() and self.interference.note_values(
            self._rows[place[ours]], changes.take_rows(ours)
        ):
            self._changed.set()

    async def _tell_changes(self, tell: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await tell()
            await asyncio.sleep(_TELL_EVERY_S)
