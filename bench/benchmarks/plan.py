"""A plan to restore everything, beside a loop over PVs in Python."""

from __future__ import annotations

import time
from uuid import uuid4

from bench.report import Result, in_turn
from bench.site import site
from drey.restore.v1 import restore_service_pb2


async def run(pvs: int, runs: int) -> Result:
    """Half of the setpoints have moved; all readbacks have."""
    result = Result("plan", pvs)
    async with site(pvs) as found:
        before = await found.take()
        await found.drift(setpoints=pvs // 2)

        async def ours() -> float:
            begin = time.perf_counter()
            response = await found.restores.CreatePlan(
                restore_service_pb2.CreatePlanRequest(
                    snapshot_id=before.id, request_id=str(uuid4())
                ),
                **found.call,
            )
            seconds = time.perf_counter() - begin
            if response.plan.writes != pvs // 2:
                raise RuntimeError(f"{response.plan.writes} writes instead of {pvs // 2}")
            return seconds

        async def loop() -> float:
            values = found._columns.data.view(float)
            stored = {k: v + 0.0 for k, v in zip(found._columns.key.tolist(), values, strict=True)}
            live = dict(stored)
            begin = time.perf_counter()
            items = []
            for name, sp in zip(
                found.directory.names, found.directory.setpoint_channel.tolist(), strict=True
            ):
                old, new = stored[sp], live[sp]
                items.append(
                    {"pv": name, "write": old, "now": new, "skip": abs(old - new) <= 0.001}
                )
            return time.perf_counter() - begin

        times = await in_turn(runs, ours, peers=(loop,), warm=1)
    result.figure("total_s", times[0], 0.3)
    result.peer("a loop over dicts, nothing stored", "total_s", times[1])
    return result
