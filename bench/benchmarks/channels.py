"""Reading and writing all channels at once: the channel layer alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count

from bench.ioc import ioc
from bench.live import PEER, ours
from bench.names import setpoints
from bench.report import Result, in_turn
from bench.tables import connected, read_s, write_s
from drey_ca import ChannelTable, Slots, open_table


async def run(pvs: int, runs: int) -> Result:
    """`pvs` setpoints, each followed by a readback, over tables connected beforehand."""
    result = Result("channels", pvs)
    mine, names = await ours(), setpoints(pvs)
    result.notes.append(f"channel access: {mine}; a write ends when the readback has followed")
    value = count(2)

    def bench_steps(table: ChannelTable, slots: Slots) -> list[Callable[[], Awaitable[float]]]:
        return [
            lambda: read_s(table, slots),
            lambda: write_s(table, slots, float(next(value))),
        ]

    async with ioc(pvs, both=True) as source:
        async with open_table(mine) as table:
            own = await connected(table, names)
            before = await source.count()
            times = await in_turn(runs, *bench_steps(table, own))
            after = await source.count()
        async with open_table(PEER) as other:  # one after the other: idle channels cost too
            theirs = await connected(other, names)
            peers = await in_turn(runs, *bench_steps(other, theirs), warm=0)
    result.figure("read_s", times[0], 0.1)
    result.figure("write_s", times[1], 0.4)
    share = (after.cpu_s - before.cpu_s) / (after.time_s - before.time_s)
    result.figure("ioc_cpu_share", [share], None)
    result.peer("aioca table", "read_s", peers[0])
    result.peer("aioca table", "write_s", peers[1])
    return result
