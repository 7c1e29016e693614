"""A plan to restore everything, by a read of its own, beside a loop over PVs in Python."""

from __future__ import annotations

import time
from uuid import uuid4

from bench.live import live, ours
from bench.names import setpoints
from bench.report import Result, in_turn
from bench.tables import connected, write_s
from drey.common.v1 import state_pb2
from drey.restore.v1 import restore_pb2, restore_service_pb2
from drey_ca import open_table

_IMAGE_S = 300.0


async def run(pvs: int, runs: int) -> Result:
    """Half of the setpoints have moved, and their readbacks. The first plan connects."""
    result = Result("plan", pvs)
    mine = await ours()
    result.notes.append(f"channel access: {mine}; each plan reads every setpoint from the IOC")
    async with live(pvs, mine, both=True) as live_site, open_table(mine) as table:
        slots = await connected(table, setpoints(pvs))
        site = live_site.site
        before = await site.take()
        await write_s(table, slots[: pvs // 2], 2.0)
        await live_site.until_moved(_IMAGE_S)

        async def time_plan() -> float:
            # The first plan makes channels to records and takes some apart, for seconds of an IOC.
            await live_site.ioc.until_idle()
            begin = time.perf_counter()
            response = await site.restores.CreatePlan(
                restore_service_pb2.CreatePlanRequest(
                    spec=restore_pb2.PlanSpec(state=state_pb2.StateRef(snapshot_id=before.id)),
                    request_id=str(uuid4()),
                ),
                **site.call,
            )
            seconds = time.perf_counter() - begin
            if response.plan.writes != pvs // 2:
                raise RuntimeError(f"{response.plan.writes} writes instead of {pvs // 2}")
            return seconds

        async def time_loop() -> float:
            channels = site.directory.setpoint_channel.tolist()
            stored = dict.fromkeys(channels, 1.0)
            live_values = dict(stored)
            begin = time.perf_counter()
            items = []
            for name, channel in zip(site.directory.names, channels, strict=True):
                old, new = stored[channel], live_values[channel]
                items.append(
                    {"pv": name, "write": old, "now": new, "skip": abs(old - new) <= 0.001}
                )
            return time.perf_counter() - begin

        times = await in_turn(runs, time_plan, peers=(time_loop,), warm=1)
    result.figure("total_s", times[0], 0.3)
    result.peer("a loop over dicts, nothing stored nor read", "total_s", times[1])
    return result
