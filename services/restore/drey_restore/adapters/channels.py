"""Channels that stay open between uses, by address."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np

from drey_ca.interface import ChannelTable, Slots

_LOOK_EVERY_S = 30.0


class ChannelPool:
    """Slots of a table by address; what nobody has used for `keep_s` is closed.

    `run` closes what is idle; what somebody uses stays.
    """

    def __init__(
        self,
        table: ChannelTable,
        keep_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table = table
        self._keep_s, self._clock = keep_s, clock
        self._slots: dict[str, int] = {}
        self._users: Counter[str] = Counter()
        self._idle_since: dict[str, float] = {}
        self._lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._slots)

    @asynccontextmanager
    async def use(self, addresses: Sequence[str]) -> AsyncIterator[None]:
        """Keep channels open during the body. Does not wait for connection."""
        wanted = set(addresses)
        self._users.update(wanted)
        for address in wanted:
            self._idle_since.pop(address, None)
        try:
            async with self._lock:
                await self._add(wanted)
            yield
        finally:
            now = self._clock()
            self._users.subtract(wanted)
            for address in wanted:
                if self._users[address] <= 0:
                    del self._users[address]
                    self._idle_since[address] = now

    def slots(self, addresses: Sequence[str]) -> Slots:
        """Slots, in order, of addresses that the caller uses; good until the next `await`.

        Somebody may `renew` a channel meanwhile, which gives it another slot.
        """
        return np.array([self._slots[address] for address in addresses], np.int64)

    async def renew(self, addresses: Sequence[str]) -> None:
        """Close channels and open them again, in that order on their circuit.

        The IOC drops what still waits on a channel that is closed. So, once the new one is
        connected, nothing that was sent on the old one can begin any more. Only where the table
        `withdraws_writes`.
        """
        async with self._lock:
            await self._remove(addresses)
            await self._add(set(addresses))

    async def close_idle(self) -> None:
        """Close what nobody has used for `keep_s`; not while a write of it is unanswered.

        With its channel would go what the table knows of that write.
        """
        async with self._lock:
            latest = self._clock() - self._keep_s
            idle = [a for a, since in self._idle_since.items() if since <= latest]
            open_ones = [a for a in idle if a in self._slots]
            waiting = self.table.unanswered(self.slots(open_ones))
            held = {open_ones[row] for row in np.flatnonzero(waiting).tolist()}
            await self._remove([a for a in idle if a not in held])

    async def run(self) -> None:
        """Close idle channels until cancelled."""
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self._keep_s))
            await self.close_idle()

    async def _add(self, addresses: set[str]) -> None:
        missing = sorted(address for address in addresses if address not in self._slots)
        if missing:
            added = await self.table.add(missing)
            self._slots.update(zip(missing, added.tolist(), strict=True))

    async def _remove(self, addresses: Sequence[str]) -> None:
        gone = [self._slots.pop(a) for a in dict.fromkeys(addresses) if a in self._slots]
        for address in addresses:
            if self._users[address] <= 0:
                self._idle_since.pop(address, None)
        if gone:
            await self.table.remove(np.array(gone, np.int64))
