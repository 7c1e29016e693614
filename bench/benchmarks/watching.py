"""What it costs a restore to watch its setpoints for changes that are not its own."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from itertools import count

import numpy as np

from bench.ioc import BenchIoc, ioc
from bench.live import ours
from bench.names import setpoints
from bench.report import Result
from bench.tables import connected, doubles, write_s
from drey_ca import ChannelTable, Slots, open_table
from drey_core.values import Columns
from drey_restore.adapters.changes import ChangeFeed
from drey_restore.domain.interference import Interference
from drey_restore.domain.items import PlanItems

_QUIET_S = 0.3


async def run(pvs: int, runs: int) -> Result:
    """All setpoints are written with completion: by a table that watches none, then all of them."""
    result = Result("watching", pvs)
    mine, names = await ours(), setpoints(pvs)
    result.notes.append(
        f"channel access: {mine}; CPU until all is answered, and what came of it is looked at;"
        " messages are the values that the IOC told"
    )
    value = count(2)
    async with ioc(pvs, both=True) as source:
        async with open_table(mine) as table:
            slots = await connected(table, names)
            plain = [
                await _turn(table, slots, source, None, float(next(value))) for _ in range(runs + 1)
            ]
        async with open_table(mine) as table:
            slots = await connected(table, names)
            await table.subscribe_slots(slots)
            look = _Look(table, slots)
            task = asyncio.create_task(look.feed.run())
            try:
                await source.until_idle()
                watched = [
                    await _turn(table, slots, source, look, float(next(value)))
                    for _ in range(runs + 1)
                ]
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
    for number, name in enumerate(("write_s", "cpu_s", "ioc_cpu_s")):
        result.figure(f"plain_{name}", [turn[number] for turn in plain[1:]], None)
        result.figure(f"watched_{name}", [turn[number] for turn in watched[1:]], None)
    result.figure("messages_per_pv", [turn[3] / pvs for turn in watched[1:]], None)
    return result


class _Look:
    """The feed of a table, and what a restore makes of it."""

    def __init__(self, table: ChannelTable, slots: Slots) -> None:
        self._order = np.argsort(slots)
        self._slots = slots[self._order]
        self.feed = ChangeFeed(table)
        self.interference = Interference(_items(len(slots)), doubles(np.zeros(len(slots))))
        self.messages = 0

    def look(self, changes: Columns) -> None:
        """As the watch of a restore does."""
        self.messages += len(changes) + int(changes.merged.sum())
        rows = self._order[np.searchsorted(self._slots, changes.key)]
        self.interference.note_values(rows, changes)


async def _turn(
    table: ChannelTable, slots: Slots, source: BenchIoc, look: _Look | None, value: float
) -> tuple[float, float, float, int]:
    """(seconds, CPU of this process, CPU of the IOC, messages) of one write of all."""
    told = 0
    before, cpu_s = await source.count(), time.process_time()
    if look is None:
        seconds = await write_s(table, slots, value)
    else:
        with look.feed.listen_to_changes(look.look):
            look.messages = 0
            look.interference.expect_values(
                np.arange(len(slots)), doubles(np.full(len(slots), value))
            )
            seconds = await write_s(table, slots, value)
            while told != look.messages or not told:
                told = look.messages
                await asyncio.sleep(_QUIET_S)
        if look.interference.interfered_count:
            raise RuntimeError(
                f"{look.interference.interfered_count} PVs look as if somebody interfered"
            )
    cpu_s, after = time.process_time() - cpu_s, await source.count()
    return seconds, cpu_s, after.cpu_s - before.cpu_s, told


def _items(pvs: int) -> PlanItems:
    """Items of which only targets and tolerances matter."""
    texts, nothing, zeros = [""] * pvs, Columns.empty_columns(pvs), np.zeros(pvs)
    target = doubles(np.full(pvs, 2.0))
    return PlanItems(
        number=np.arange(pvs),
        names=texts,
        addresses=texts,
        readback_addresses=texts,
        current=nothing,
        stored=target,
        target=target,
        stored_readback=nothing,
        absolute=zeros,
        relative=zeros,
        readback_absolute=zeros,
        readback_relative=zeros,
        delta=zeros,
        deviation=zeros,
        stage=np.zeros(pvs, np.int32),
        policy_of=np.zeros(pvs, np.int32),
        skip=np.zeros(pvs, np.uint8),
        label_of=np.full(pvs, -1, np.int32),
        stored_label_of=np.full(pvs, -1, np.int32),
    )
