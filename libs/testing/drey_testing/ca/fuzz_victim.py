"""The fuzzer's other process: a table that is lied to, and looks at what it is not lied to about.

`python -m drey_testing.ca.fuzz_victim IMPLEMENTATION SERVERS`, in the fuzzer's environment. Prints
a line of counters each half second; ends when stdin does, with code 3 if a value was spoiled.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from random import Random

import numpy as np
import psutil

from drey_ca import open_table
from drey_ca.eca import ECA_NORMAL
from drey_ca.interface import ChannelTable, Slots
from drey_core.values import Columns, Kind, State
from drey_testing.ca.fuzz import HONEST, ROW, names

_SAY = 0.5
_SPOILED = 3
_CLOSES_S = 60.0


class Spoiled(Exception):
    """A value that its server never sent."""


class Victim:
    """One table with every channel of every server."""

    def __init__(self, table: ChannelTable, servers: int) -> None:
        self._table = table
        both = [names(server) for server in range(servers)]
        self._lying = [name for lying, _ in both for name in lying]
        self._honest = [name for _, honest in both for name in honest]
        self._owner: dict[int, str] = {}
        self._lost: set[int] = set()
        self._random = Random(1)
        self.counters = dict.fromkeys(("checked", "drained", "reads", "writes", "again"), 0)

    async def run(self, stop: asyncio.Future[str]) -> None:
        """Until `stop`; raises `Spoiled`."""
        await self._add_channels(self._honest + self._lying)
        reported_at = 0.0
        while not stop.done():
            try:
                async with asyncio.timeout(0.1):
                    await self._table.wait_dirty()
            except TimeoutError:
                pass  # everybody is silent: go on with requests
            self._take_rows(self._table.drain_updates(self._random.choice([1, 1 << 12, 64 << 20])))
            self._table.read_info(self._table.drain_info())
            await self._ask_some()
            await self._renew_lost()
            if time.monotonic() - reported_at > _SAY:
                reported_at = time.monotonic()
                self._report_progress()
        self._report_progress()

    async def _add_channels(self, those: list[str]) -> None:
        slots = await self._table.add_channels(those)
        self._owner.update(zip(slots.tolist(), those, strict=True))
        await self._table.subscribe_slots(slots)

    def _take_rows(self, rows: Columns) -> None:
        self.counters["drained"] += len(rows)
        for i, slot in enumerate(rows.key.tolist()):
            if rows.state[i] == State.DISCONNECTED and self._owner[slot].startswith("LIE"):
                self._lost.add(slot)
            self._check_row(slot, rows, i)

    def _check_row(self, slot: int, rows: Columns, i: int) -> None:
        value = rows.value(i)  # decodes whatever it is
        name = self._owner[slot]
        if not rows.kind[i] or name.startswith("LIE"):
            return
        number = int(name.rsplit(":", 1)[1])
        every = np.atleast_1d(value)
        kind = int(rows.kind[i]) & 0x3F
        good = kind == Kind.FLOAT64 and len(every) == (ROW if number % 2 else 1)
        if not (good and (every == every[0]).all() and every[0] % HONEST == number):
            raise Spoiled(f"{name} says {value!r} of kind {rows.kind[i]}")
        self.counters["checked"] += 1

    async def _ask_some(self) -> None:
        """Now and then requests to a few of each."""
        if self._random.randrange(10):
            return
        slots = self._some_slots(20)
        kind = self._random.choice([None, None, Kind.STRING])
        honest = [s for s in slots.tolist() if self._owner[s].startswith("TRUE")]
        if kind is None:
            got = await self._table.read_values(slots, 0.2)
            rows = np.flatnonzero(got.code == ECA_NORMAL).tolist()
            for i in rows:
                self._check_row(int(got.values.key[i]), got.values, i)
        else:
            # The fake server converts nothing, so that every answer is of a wrong type.
            got = await self._table.read_values(slots, 0.2, kind=kind)
            for i in range(len(slots)):
                got.values.value(i)
        self.counters["reads"] += len(slots)
        await self._write_some(np.array(honest, np.int64))

    async def _write_some(self, slots: Slots) -> None:
        lying = [s for s, name in self._owner.items() if name.startswith("LIE")]
        slots = np.concatenate([slots, np.array(lying[:10], np.int64)])
        values = Columns.from_values(slots, [1.0] * len(slots), [None] * len(slots))
        await self._table.write_values(slots, values, 0.1)
        self.counters["writes"] += len(slots)

    async def _renew_lost(self) -> None:
        """Make lost channels anew: libca would let them wait for ten seconds."""
        lost, self._lost = sorted(self._lost), set()
        if not self._random.randrange(200):
            lost = sorted({*lost, *self._some_slots(3).tolist()})
        if not lost:
            return
        await self._table.remove_slots(np.array(lost, np.int64))
        await self._add_channels([self._owner.pop(slot) for slot in lost])
        self.counters["again"] += len(lost)

    def _some_slots(self, count: int) -> Slots:
        return np.array(self._random.sample(sorted(self._owner), count), np.int64)

    def _report_progress(self) -> None:
        stats = self._table.table_stats()
        memory = psutil.Process().memory_info().rss >> 20
        extra = {
            "connected": stats.connected,
            "updates": stats.updates,
            "bad_events": stats.bad_events,
            "late": stats.late_completions,
            "memory_mib": memory,
        }
        print(json.dumps(self.counters | extra), flush=True)


async def main(implementation: str, servers: int) -> int:
    """Run until stdin ends; the exit code."""
    stop = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    async with open_table(implementation) as table:
        try:
            await Victim(table, servers).run(stop)
        except Spoiled as spoiled:
            print(spoiled, file=sys.stderr)
            return _SPOILED
        before = time.monotonic()
        await table.close_table()
        took = time.monotonic() - before
        if took > _CLOSES_S:
            print(f"closing took {took:.2f} seconds", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]))))
