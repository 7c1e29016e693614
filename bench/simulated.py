"""The restore service over channels that answer at once: `python -m bench.simulated PVS`.

The IOC's part of a plan is left out, for sizes at which no machine of ours carries one: every
channel is connected, the setpoints of the first half of the PVs have another value than the image
says, and records say of themselves what records say. What the service asks for is made from the
names when a channel is added, so that a read is nearly free.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

import drey_restore.app
from drey_ca import Connections, InfoColumns, ReadResult, ServedTwice, Slots, TableStats
from drey_ca.eca import ECA_NORMAL
from drey_core.errors import Unimplemented
from drey_core.values import Columns, Kind, Origin, State, pack_heap
from drey_restore.settings import RestoreSettings
from drey_runtime import app

SAME, MOVED = 1.0, 2.0
"""Setpoints as the image has them, and those of the first half."""
_CONNECTED_NS = 1


class SimulatedTable:
    """See `ChannelTable`. Nothing is written."""

    implementation_name = "simulated"
    withdraws_writes = True

    def __init__(self, pvs: int) -> None:
        self._pvs = pvs
        self._names: list[str] = []
        self._numbers = np.zeros(0)

    async def add_channels(self, names: Sequence[str]) -> Slots:
        first = len(self._names)
        self._names += names
        self._numbers = np.append(self._numbers, [self._number(name) for name in names])
        return np.arange(first, len(self._names))

    def _number(self, name: str) -> float:
        """What a channel says; NaN: its record's name."""
        match name.rpartition(".")[2]:
            case "DISP" | "DISA":
                return 0.0
            case "DISV":
                return 1.0
            case "NAME$":
                return np.nan
            case _:
                return MOVED if 2 * int(name.split(":")[2]) < self._pvs else SAME

    async def remove_slots(self, slots: Slots) -> None:
        pass

    async def wait_connected(self, slots: Slots, timeout: float) -> NDArray[np.bool_]:
        return np.ones(len(slots), bool)

    async def subscribe_slots(self, slots: Slots) -> None:
        pass

    async def wait_dirty(self) -> None:
        await asyncio.Event().wait()

    def drain_updates(self, max_heap: int = 64 << 20) -> Columns:
        return Columns.empty_columns()

    def drain_info(self) -> Slots:
        return np.zeros(0, np.int64)

    def read_info(self, slots: Slots) -> InfoColumns:
        n = len(slots)
        kind = np.where(np.isnan(self._numbers[slots]), Kind.STRING, Kind.FLOAT64)
        none = np.full(n, np.nan)
        return InfoColumns(
            slot=slots,
            kind=kind.astype(np.uint8),
            count=np.ones(n, np.int64),
            state_time=np.full(n, _CONNECTED_NS),
            readable=np.ones(n, bool),
            writable=np.ones(n, bool),
            precision=np.full(n, -1, np.int16),
            display_low=none,
            display_high=none,
            warning_low=none,
            warning_high=none,
            alarm_low=none,
            alarm_high=none,
            control_low=none,
            control_high=none,
            units=[b""] * n,
            labels=[()] * n,
            host=[""] * n,
        )

    async def read_values(
        self, slots: Slots, timeout: float, *, kind: Kind | None = None
    ) -> ReadResult:
        numbers = self._numbers[slots]
        values = Columns.empty_columns(len(slots)).with_key(slots)
        values.state[:], values.origin[:] = State.CONNECTED, Origin.READ
        values.kind[:], values.data[:] = Kind.FLOAT64, numbers.view(np.uint64)
        named = np.flatnonzero(np.isnan(numbers))
        if len(named):
            texts = [
                self._names[slot].rpartition(".")[0].encode() for slot in slots[named].tolist()
            ]
            values.kind[named] = Kind.STRING
            values.data[named], heap = pack_heap(texts)
            values = replace(values, heap=heap)
        return ReadResult(values, np.full(len(slots), ECA_NORMAL, np.int32))

    async def write_values(
        self, slots: Slots, values: Columns, timeout: float, *, completion: bool = True
    ) -> NDArray[np.int32]:
        raise Unimplemented("simulated channels take no values")

    def unanswered_slots(self, slots: Slots) -> NDArray[np.bool_]:
        return np.zeros(len(slots), bool)

    def connection_columns(self) -> Connections:
        n = len(self._names)
        up = np.ones(n, bool)
        return Connections(["simulated"], np.zeros(n, np.int32), up, up, np.zeros(n, np.int64))

    def take_served_twice(self) -> list[ServedTwice]:
        return []

    def table_stats(self) -> TableStats:
        n = len(self._names)
        return TableStats(n, n, 0, 0, 0, 0, 0, 0)

    async def close_table(self) -> None:
        pass


def main(pvs: int) -> None:
    """Run the service until it is told to end."""

    @asynccontextmanager
    async def open_simulated(
        implementation: str, environment: Mapping[str, str]
    ) -> AsyncIterator[SimulatedTable]:
        yield SimulatedTable(pvs)

    async def run(settings: RestoreSettings, running: app.App) -> None:
        await drey_restore.app.main(settings, running)

    setattr(drey_restore.app, "open_table", open_simulated)  # noqa: B010
    app.run_service("restore", RestoreSettings, run)


if __name__ == "__main__":
    main(int(sys.argv[1]))
