"""Channels that stay open between uses, by address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import numpy as np

from drey_ca.guarded import GuardedTable
from drey_ca.interface import ChannelTable, Slots
from drey_core.values import I8

_LOOK_EVERY_S = 30.0


class UsedChannels:
    """Channels that stay open while somebody uses them."""

    def __init__(self, pool: ChannelPool, addresses: Sequence[str], found: Slots) -> None:
        self._pool, self._addresses = pool, addresses
        self._found, self._as_of = found, pool.removals

    def used_slots(self) -> Slots:
        """Their slots, in order; good until the next `await`.

        Somebody may `renew` a channel meanwhile, which gives it another slot.
        """
        if self._as_of != self._pool.removals:
            self._found, self._as_of = self._pool.find_slots(self._addresses), self._pool.removals
        return self._found


class SlotsByRow:
    """Slots of a list of addresses by their rows, looked up again only where they have changed."""

    def __init__(self, pool: ChannelPool, addresses: Sequence[str]) -> None:
        self._pool, self._addresses = pool, addresses
        self._found, self._as_of = np.full(len(addresses), -1, np.int64), -1

    def slots_of_rows(self, rows: I8) -> Slots:
        """Of rows whose channels the caller uses; good until the next `await`. KeyError: of none.

        Somebody may `renew` a channel meanwhile, which gives it another slot.
        """
        if self._as_of != self._pool.removals or (self._found[rows] < 0).any():
            self._found, self._as_of = self._pool.find_slots(self._addresses), self._pool.removals
        slots: Slots = self._found[rows]
        if (slots < 0).any():
            raise KeyError(self._addresses[int(rows[np.argmin(slots)])])
        return slots


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
        self._in_use: list[UsedChannels] = []
        self._last_used = np.zeros(0)
        """By slot."""
        self._lock = asyncio.Lock()
        self.removals = 0
        """How often slots were given back: what was found before may not be theirs any more."""

    def __len__(self) -> int:
        return len(self._slots)

    @asynccontextmanager
    async def use_channels(self, addresses: Sequence[str]) -> AsyncIterator[UsedChannels]:
        """Keep channels open during the body. Does not wait for connection."""
        async with self._lock:
            used = UsedChannels(self, addresses, await self._add_channels(addresses))
            self._in_use.append(used)
        try:
            yield used
        finally:
            self._in_use.remove(used)
            slots = used.used_slots()
            self._last_used[slots[slots >= 0]] = self._clock()

    def find_slots(self, addresses: Sequence[str]) -> Slots:
        """Slots, in order, of addresses; -1 where a channel is not open."""
        slot_of = self._slots.get
        return np.fromiter((slot_of(a, -1) for a in addresses), np.int64, len(addresses))

    def slots_of(self, addresses: Sequence[str]) -> Slots:
        """Slots, in order, of some addresses that the caller uses; good until the next `await`.

        Somebody may `renew` a channel meanwhile, which gives it another slot.
        """
        return np.fromiter(map(self._slots.__getitem__, addresses), np.int64, len(addresses))

    async def renew_channels(self, addresses: Sequence[str]) -> None:
        """Close channels and open them again, in that order on their circuit.

        The IOC drops what still waits on a channel that is closed. So, once the new one is
        connected, nothing that was sent on the old one can begin any more. Only where the table
        `withdraws_writes`.
        """
        async with self._lock:
            await self._remove_channels(addresses)
            await self._add_channels(addresses)

    async def close_idle(self) -> None:
        """Close what nobody has used for `keep_s`; not while a write of it is unanswered.

        With its channel would go what the table knows of that write.
        """
        async with self._lock:
            addresses, slots = list(self._slots), np.array(list(self._slots.values()), np.int64)
            idle = self._last_used[slots] <= self._clock() - self._keep_s
            for used in self._in_use:
                idle &= ~np.isin(slots, used.used_slots())
            rows = np.flatnonzero(idle)
            rows = rows[~self.table.unanswered_slots(slots[rows])]
            await self._remove_channels([addresses[row] for row in rows.tolist()])

    async def run(self) -> None:
        """Close idle channels, and probe IOCs, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.table.run())
            group.create_task(self._close_idle_for_ever())

    async def _close_idle_for_ever(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self._keep_s))
            await self.close_idle()

    async def _add_channels(self, addresses: Sequence[str]) -> Slots:
        """Open those that are not; their slots, in order."""
        slots = self.find_slots(addresses)
        if len(slots) == 0 or slots.min() >= 0:
            return slots
        missing = sorted({addresses[row] for row in np.flatnonzero(slots < 0).tolist()})
        added = await self.table.add_channels(missing)
        self._slots.update(zip(missing, added.tolist(), strict=True))
        more = int(added.max()) + 1 - len(self._last_used)
        self._last_used = np.append(self._last_used, np.zeros(max(more, 0)))
        self._last_used[added] = self._clock()
        return self.find_slots(addresses)

    async def _remove_channels(self, addresses: Iterable[str]) -> None:
        gone = [self._slots.pop(a) for a in dict.fromkeys(addresses) if a in self._slots]
        if gone:
            self.removals += 1
            await self.table.remove_slots(np.array(gone, np.int64))
