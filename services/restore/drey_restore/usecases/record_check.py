"""What the records of a plan's writes say of themselves: .DISP, .DISA, and their real names."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from drey_ca.interface import ChannelTable
from drey_core.values import I8, Kind, as_float64
from drey_restore.domain.addresses import record_name
from drey_restore.domain.execution import ECA_NORMAL
from drey_restore.domain.items import F8, PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.problems import PlanProblem
from drey_restore.domain.record_facts import RecordFacts, refuse_records
from drey_restore.limits import Clock, Limits

_AGAIN_NS = 600 * 10**9
"""After so long a server that has no such fields is asked again."""
_LOOK_EVERY_S = 30.0


@dataclass
class _Records:
    """What is known of records, as columns; `place` is by record, and by address that names it.

    `since` is when its connection was made when `disv` and the real name were read (0: they were
    not), `silent_until` until when a server without such fields is not asked.
    """

    place: dict[str, int] = field(default_factory=dict)
    by_address: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    disp: I8 = field(default_factory=lambda: np.zeros(0, np.int64))
    disa: I8 = field(default_factory=lambda: np.zeros(0, np.int64))
    since: I8 = field(default_factory=lambda: np.zeros(0, np.int64))
    silent_until: I8 = field(default_factory=lambda: np.zeros(0, np.int64))
    disv: F8 = field(default_factory=lambda: np.zeros(0))
    aliases: dict[int, str] = field(default_factory=dict)

    def add_records(self, names: list[str], slots: I8) -> None:
        """New records with the slots of all their .DISP, then of all their .DISA."""
        n, first = len(names), len(self.names)
        self.place.update(zip(names, range(first, first + n), strict=True))
        self.names += names
        self.disp = np.append(self.disp, slots[:n])
        self.disa = np.append(self.disa, slots[n:])
        self.since = np.append(self.since, np.zeros(n, np.int64))
        self.silent_until = np.append(self.silent_until, np.zeros(n, np.int64))
        self.disv = np.append(self.disv, np.ones(n))


class RecordCheck:
    """Looks with one bulk read; of a record that is new with one more.

    Its channels stay open between plans, and are closed where no plan was made for `keep_s`.
    `refused`: the problems for which a PV is not written.
    """

    def __init__(
        self,
        table: ChannelTable,
        limits: Limits,
        clock: Clock,
        keep_s: float,
        refused: frozenset[PlanProblem],
    ) -> None:
        self.refused = refused
        self._table, self._limits, self._clock, self._keep_s = table, limits, clock, keep_s
        self._records = _Records()
        self._used_ns = 0
        self._lock = asyncio.Lock()

    async def refuse_writes(self, items: PlanItems) -> PlanItems:
        """The plan without what its records would not take, as `refuse_records`."""
        facts = await self.look_at_records(items)
        return await asyncio.to_thread(refuse_records, items, facts, self.refused)

    async def look_at_records(self, items: PlanItems) -> RecordFacts:
        """Of the rows that a plan writes. What does not answer is taken as enabled."""
        rows = np.sort(items.writes)
        addresses = [items.addresses[row] for row in rows.tolist()]
        async with self._lock:
            now = self._used_ns = self._clock()
            places = await self._record_places(addresses)
            records = self._records
        used = np.flatnonzero(np.bincount(places, minlength=len(records.names)))
        asked = used[records.silent_until[used] <= now]
        slots = np.concatenate([records.disp[asked], records.disa[asked]])
        up = await self._table.wait_connected(slots, self._limits.connect_s)
        both = up[: len(asked)] & up[len(asked) :]
        records.silent_until[asked[~both]] = now + _AGAIN_NS
        there = asked[both]
        slots = np.concatenate([records.disp[there], records.disa[there]])
        reading = await self._table.read_values(slots, self._limits.read_s)
        await self._learn_records(
            records, there, self._table.read_info(records.disp[there]).state_time
        )
        numbers = as_float64(reading.values.kind, reading.values.data)
        numbers[(reading.code != ECA_NORMAL) | (reading.values.kind == Kind.NONE)] = np.nan
        disp, disabled = np.zeros((2, len(records.names)), bool)
        disp[there] = numbers[: len(there)] > 0
        disabled[there] = numbers[len(there) :] == records.disv[there]
        aliases = {}
        if records.aliases:
            aliased = np.isin(places, list(records.aliases))
            aliases = {int(rows[i]): records.aliases[places[i]] for i in np.flatnonzero(aliased)}
        return RecordFacts(rows, disp[places], disabled[places], aliases)

    async def _record_places(self, addresses: list[str]) -> I8:
        """Where the record of each address stands; those that are new are added."""
        records = self._records
        place_of = records.by_address.get
        places = np.fromiter((place_of(a, -1) for a in addresses), np.int64, len(addresses))
        unknown = [addresses[index] for index in np.flatnonzero(places < 0).tolist()]
        if not unknown:
            return places
        names = [record_name(address) for address in unknown]
        new = [name for name in dict.fromkeys(names) if name not in records.place]
        if new:
            fields = [f"{name}.DISP" for name in new] + [f"{name}.DISA" for name in new]
            records.add_records(new, await self._table.add_channels(fields))
        placed = [records.place[name] for name in names]
        records.by_address.update(zip(unknown, placed, strict=True))
        places[places < 0] = placed
        return places

    async def _learn_records(self, records: _Records, places: I8, since: I8) -> None:
        """Read the real name and .DISV of records that are new, or were connected again."""
        changed = records.since[places] != since
        new, since = places[changed], since[changed]
        if len(new) == 0:
            return
        names = [records.names[place] for place in new.tolist()]
        # as a long string: a name may have more than the 39 bytes of a short one
        slots = await self._table.add_channels(
            [f"{n}.NAME$" for n in names] + [f"{n}.DISV" for n in names]
        )
        try:
            await self._table.wait_connected(slots, self._limits.connect_s)
            reading = await self._table.read_values(slots, self._limits.read_s)
        finally:
            await asyncio.shield(self._table.remove_slots(slots))
        values, good = reading.values, reading.code == ECA_NORMAL
        numbers = as_float64(values.kind, values.data)[len(new) :]
        named, switched = good[: len(new)], good[len(new) :]
        records.disv[new] = np.where(switched, numbers, 1.0)
        records.since[new] = np.where(named & switched, since, 0)
        for index in np.flatnonzero(named & (values.kind[: len(new)] == Kind.STRING)).tolist():
            place, real = int(new[index]), values.heap_bytes(index).decode(errors="replace")
            if real and real != names[index]:
                records.aliases[place] = real
            else:
                records.aliases.pop(place, None)

    async def refusing_rows(self, items: PlanItems) -> I8:
        """Rows of a plan that is about to be executed which their records would not take now."""
        if PlanProblem.DISABLED not in self.refused:
            return np.zeros(0, np.int64)
        judged = refuse_records(items, await self.look_at_records(items), self.refused)
        return np.flatnonzero((judged.skip != items.skip) & (judged.skip == Skip.NOT_WRITABLE))

    async def run(self) -> None:
        """Close the channels where no plan was made for long, until cancelled."""
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self._keep_s))
            async with self._lock:
                await self._close_idle()

    async def _close_idle(self) -> None:
        records = self._records
        if records.names and self._clock() - self._used_ns > self._keep_s * 1e9:
            self._records = _Records()
            await self._table.remove_slots(np.concatenate([records.disp, records.disa]))
