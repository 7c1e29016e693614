"""Channels that stay open between restores, by address."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from drey_ca.interface import ChannelTable, Slots


class ChannelPool:
    """Slots of a table by address; what was once used stays connected."""

    def __init__(self, table: ChannelTable) -> None:
        self.table = table
        self._slots: dict[str, int] = {}
        self._lock = asyncio.Lock()

    async def slots(self, addresses: Sequence[str]) -> Slots:
        """The slot of each address, in order. Does not wait for connection."""
        async with self._lock:
            missing = [a for a in dict.fromkeys(addresses) if a not in self._slots]
            if missing:
                added = await self.table.add(missing)
                self._slots.update(zip(missing, added.tolist(), strict=True))
        return np.array([self._slots[a] for a in addresses], np.int64)
