"""How soon no write leaves any more after AbortRestore: by the time stamps of the IOC."""

from __future__ import annotations

import time
from itertools import count
from typing import Any
from uuid import uuid4

import numpy as np

from bench.benchmarks.restore import execute_plan, make_plan
from bench.live import live, ours
from bench.names import setpoints
from bench.report import Result
from bench.tables import connected, write_s
from drey.restore.v1 import restore_pb2, restore_service_pb2
from drey_ca import open_table

_MOST_MS = 100.0
_IMAGE_S = 30.0
_READ_S = 30.0


async def run(pvs: int, runs: int) -> Result:
    """A restore of `pvs` setpoints is aborted as soon as some are written.

    `last_write_ms`: from the call to the last time stamp of a setpoint that was written, 0 where
    none was after it. IOC and client share the clock. `unsent` is how many it stopped. One restore
    comes first and is not aborted: it connects.
    """
    result = Result("abort", pvs)
    mine = await ours()
    last, unsent, value = [], [], count(2)
    async with live(pvs, mine, both=True) as site, open_table(mine) as table:
        slots = await connected(table, setpoints(pvs))
        before = await site.site.take()
        restores, call = site.site.restores, site.site.call
        for turn in range(runs + 1):
            await write_s(table, slots, float(next(value)))
            await site.until_moved(_IMAGE_S)
            plan = await make_plan(site, before.id)
            if turn == 0:
                await execute_plan(site, plan)
                continue
            begun = time.time_ns()
            ended, called = await _abort_early(restores, call, await _begin(restores, call, plan))
            stamps = (await table.read_values(slots, _READ_S)).values.source_time
            counts = {each.verdict: each.pvs for each in ended.verdicts}
            unsent.append(float(counts.get(restore_pb2.VERDICT_NOT_SENT, 0)))
            written = stamps[stamps > begun]
            late_ns = int(np.max(written, initial=called)) - called
            last.append(late_ns / 1e6)
    result.figure("last_write_ms", last, _MOST_MS)
    result.figure("unsent_pvs", unsent, None)
    return result


async def _begin(restores: Any, call: dict[str, Any], plan: restore_pb2.Plan) -> str:
    request = restore_service_pb2.ExecutePlanRequest(
        plan_id=plan.id, digest=plan.digest, request_id=str(uuid4())
    )
    started = await restores.ExecutePlan(request, **call)
    return str(started.restore.id)


async def _abort_early(
    restores: Any, call: dict[str, Any], restore_id: str
) -> tuple[restore_pb2.Restore, int]:
    """(the restore at its end, when the abort was called in ns): after the first writes."""
    called, last = 0, restore_pb2.Restore()
    request = restore_service_pb2.WatchRestoreRequest(id=restore_id)
    async for response in restores.WatchRestore(request, **call):
        last = response.restore
        written = sum(
            each.pvs for each in last.verdicts if each.verdict == restore_pb2.VERDICT_WRITTEN
        )
        if written and not called:
            called = time.time_ns()
            abort = restore_service_pb2.AbortRestoreRequest(id=restore_id, reason="benchmark")
            await restores.AbortRestore(abort, **call)
    return last, called or time.time_ns()
