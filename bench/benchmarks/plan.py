"""A plan to restore everything, by a read of its own, beside a loop over PVs in Python.

And the same without the IOC's part: over channels that answer at once (`bench.simulated`). That
alone at more PVs than a machine carries an IOC of.
"""

from __future__ import annotations

import time
from uuid import uuid4

from bench import simulated
from bench.live import live, ours
from bench.names import setpoints
from bench.report import Result, in_turn
from bench.site import BenchSite, site
from bench.tables import connected, write_s
from drey.common.v1 import state_pb2
from drey.restore.v1 import restore_pb2, restore_service_pb2
from drey_ca import open_table

_IMAGE_S = 300.0
_MOST_SERVED = 400_000
"""PVs of which a machine of 24 GB carries the IOC, twice as many records, beside everything."""


async def run(pvs: int, runs: int) -> Result:
    """Half of the setpoints have moved, and their readbacks. The first plan connects."""
    result = Result("plan", pvs)
    if pvs <= _MOST_SERVED:
        await _with_ioc(result, runs)
    await _without_ioc(result, runs)
    return result


async def _time_plan(running: BenchSite, snapshot_id: str) -> float:
    begin = time.perf_counter()
    response = await running.restores.CreatePlan(
        restore_service_pb2.CreatePlanRequest(
            spec=restore_pb2.PlanSpec(state=state_pb2.StateRef(snapshot_id=snapshot_id)),
            request_id=str(uuid4()),
        ),
        **running.call,
    )
    seconds = time.perf_counter() - begin
    if response.plan.writes != running.pvs // 2:
        raise RuntimeError(f"{response.plan.writes} writes instead of {running.pvs // 2}")
    return seconds


async def _with_ioc(result: Result, runs: int) -> None:
    pvs, mine = result.pvs, await ours()
    result.notes.append(f"channel access: {mine}; each plan reads every setpoint from the IOC")
    async with live(pvs, mine, both=True) as live_site, open_table(mine) as table:
        slots = await connected(table, setpoints(pvs))
        running = live_site.site
        before = await running.take()
        await write_s(table, slots[: pvs // 2], 2.0)
        await live_site.until_moved(_IMAGE_S)

        async def time_plan() -> float:
            # The first plan makes channels to records and takes some apart, for seconds of an IOC.
            await live_site.ioc.until_idle()
            return await _time_plan(running, before.id)

        async def time_loop() -> float:
            channels = running.directory.setpoint_channel.tolist()
            stored = dict.fromkeys(channels, 1.0)
            live_values = dict(stored)
            begin = time.perf_counter()
            items = []
            for name, channel in zip(running.directory.names, channels, strict=True):
                old, new = stored[channel], live_values[channel]
                items.append(
                    {"pv": name, "write": old, "now": new, "skip": abs(old - new) <= 0.001}
                )
            return time.perf_counter() - begin

        times = await in_turn(runs, time_plan, peers=(time_loop,), warm=1)
    result.figure("total_s", times[0], 0.3)
    result.peer("a loop over dicts, nothing stored nor read", "total_s", times[1])


async def _without_ioc(result: Result, runs: int) -> None:
    async with site(result.pvs) as bench_site:
        await bench_site.stand_still(simulated.SAME)
        snapshot = await bench_site.take()
        await bench_site.replace_restore(["-m", "bench.simulated", str(result.pvs)])
        (times,) = await in_turn(runs, lambda: _time_plan(bench_site, snapshot.id), warm=1)
    result.figure("own_s", times, None)
    result.notes.append("own_s: over channels of the restore service that answer at once")
