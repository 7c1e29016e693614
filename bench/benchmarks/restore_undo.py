"""The way back of a restore of every setpoint: its plan, and its execution with verification."""

from __future__ import annotations

import time
from itertools import count
from uuid import uuid4

from bench.benchmarks.restore import execute_plan, make_plan
from bench.live import live, ours
from bench.names import setpoints
from bench.report import Result
from bench.tables import connected, write_s
from drey.restore.v1 import restore_pb2, restore_service_pb2
from drey_ca import open_table

_PLAN_S, _TOTAL_S = 0.3, 2.5
_IMAGE_S = 30.0


async def run(pvs: int, runs: int) -> Result:
    """`pvs` setpoints are restored and brought back; the first turn connects: it does not count."""
    result = Result("restore_undo", pvs)
    mine = await ours()
    result.notes.append(f"channel access: {mine}")
    plans, total, value = [], [], count(2)
    async with live(pvs, mine, both=True) as site, open_table(mine) as table:
        slots = await connected(table, setpoints(pvs))
        before = await site.site.take()
        for turn in range(runs + 1):
            await write_s(table, slots, float(next(value)))
            await site.until_moved(_IMAGE_S)
            restore = await execute_plan(site, await make_plan(site, before.id))
            await site.until_moved(_IMAGE_S)
            begin = time.perf_counter()
            response = await site.site.restores.CreatePlan(
                restore_service_pb2.CreatePlanRequest(
                    spec=restore_pb2.PlanSpec(undo=restore_pb2.UndoOf(restore_id=restore.id)),
                    request_id=str(uuid4()),
                ),
                **site.site.call,
            )
            planned = time.perf_counter() - begin
            if response.plan.writes != pvs:
                raise RuntimeError(f"the way back writes {response.plan.writes} of {pvs}")
            begin = time.perf_counter()
            await execute_plan(site, response.plan)
            if turn:
                plans.append(planned)
                total.append(time.perf_counter() - begin)
            await site.until_moved(_IMAGE_S)
    result.figure("plan_s", plans, _PLAN_S)
    result.figure("total_s", total, _TOTAL_S)
    return result
