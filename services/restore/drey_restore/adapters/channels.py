"""Channels that stay open between uses, by address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import numpy as np

from drey_ca.guarded import GuardedTable
from drey_ca.interface import ChannelTable, Slots

_LOOK_EVERY_S = 30.0


class ChannelPool:
    """Slots of a table by address; what nobody has used for `keep_s` is closed.

    `run` closes what is idle, and probes IOCs that do not answer; what somebody uses stays.
    `table` reads and writes by way of a circuit breaker for each IOC.
    """

    def __init__(
        self,
        table: ChannelTable,
        keep_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table = GuardedTable(table)
        self._keep_s, self._clock = keep_s, clock
        self._slots: dict[str, int] = {}
        self._in_use: list[set[str]] = []
        self._last_used: dict[str, float] = {}
        """By address. It is written for whole sets at once, for there are tens of thousands."""
        self._lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._slots)

    @asynccontextmanager
    async def use(self, addresses: Sequence[str]) -> AsyncIterator[None]:
        """Keep channels open during the body. Does not wait for connection."""
        wanted = set(addresses)
        self._in_use.append(wanted)
        try:
            async with self._lock:
                await self._add(wanted)
            yield
        finally:
            self._in_use = [each for each in self._in_use if each is not wanted]
            self._last_used.update(dict.fromkeys(wanted, self._clock()))

    def slots(self, addresses: Sequence[str]) -> Slots:
        """Slots, in order, of addresses that the caller uses; good until the next `await`.

        Somebody may `renew` a channel meanwhile, which gives it another slot.
        """
        return np.fromiter(map(self._slots.__getitem__, addresses), np.int64, len(addresses))

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
            idle = {a for a, when in self._last_used.items() if when <= latest}
            idle.difference_update(*self._in_use)
            open_ones = [a for a in idle if a in self._slots]
            waiting = self.table.unanswered(self.slots(open_ones))
            held = {open_ones[row] for row in np.flatnonzero(waiting).tolist()}
            for address in idle - held:
                del self._last_used[address]
            await self._remove(idle - held)

    async def run(self) -> None:
        """Close idle channels, and probe IOCs, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.table.run())
            group.create_task(self._close_idle_for_ever())

    async def _close_idle_for_ever(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self._keep_s))
            await self.close_idle()

    async def _add(self, addresses: set[str]) -> None:
        missing = sorted(addresses - self._slots.keys())
        if missing:
            added = await self.table.add(missing)
            self._slots.update(zip(missing, added.tolist(), strict=True))

    async def _remove(self, addresses: Iterable[str]) -> None:
        gone = [self._slots.pop(a) for a in dict.fromkeys(addresses) if a in self._slots]
        if gone:
            await self.table.remove(np.array(gone, np.int64))
