"""Many rounds of everything on a table: `python -m drey_testing.ca.rounds IMPLEMENTATION`.

Prints the resident size of this process, in bytes, after each fifth of the rounds, as JSON. The
channels are those of the IOC that the environment names.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys

import numpy as np
import psutil

from drey_ca import open_table
from drey_ca.eca import ECA
from drey_ca.interface import ChannelTable
from drey_testing.ca.suite import WAIT, columns, connected

ROUNDS = {"aioca": 1_000, "native": 10_000}
"""By implementation: the fallback gets fewer, so that the suite stays short."""
AT_ONCE = 10
"""Rounds side by side: libca waits 30 ms before each search, whoever asks."""


async def measure(implementation: str) -> list[int]:
    """Sizes after each fifth; AssertionError when something of a round was not as it should be."""
    process = psutil.Process()
    fifth = ROUNDS[implementation] // AT_ONCE // 5
    sizes = []
    async with open_table(implementation) as table:
        # libca ends the circuit with its last channel, and takes seconds to find the server again
        # when a new one is made meanwhile.
        anchor = await connected(table, "V:LONG")
        for part in range(5):
            for turn in range(fifth):
                await _run_round(table, part * fifth + turn)
            gc.collect()
            sizes.append(process.memory_info().rss)
        await table.remove_slots(anchor)
        assert table.table_stats().channels == 0
    return sizes


async def _run_round(table: ChannelTable, turn: int) -> None:
    names = ["V:DOUBLE", "V:DOUBLES", "V:STRING", "V:ENUM"]
    slots = await table.add_channels(names * AT_ONCE)
    await table.subscribe_slots(slots)
    assert (await table.wait_connected(slots, WAIT)).all()
    one = [float(turn), np.arange(100.0) + turn, b"%d" % turn, turn % 16]
    codes = await table.write_values(slots, columns(one * AT_ONCE), WAIT)
    assert set(codes.tolist()) == {ECA.NORMAL}
    got = await table.read_values(slots, WAIT)
    assert set(got.code.tolist()) == {ECA.NORMAL}
    assert [got.values.value(i) for i in range(0, len(slots), 4)] == [turn] * AT_ONCE
    table.drain_updates()
    await table.remove_slots(slots)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1]))))
