"""A restore of every setpoint with completion and read-back verification."""

from __future__ import annotations

import time
from itertools import count
from uuid import uuid4

import asyncpg

from bench.live import LiveSite, live, ours
from bench.names import setpoints
from bench.report import Result
from bench.tables import connected, write_s
from drey.common.v1 import state_pb2
from drey.restore.v1 import restore_pb2, restore_service_pb2
from drey_ca import open_table

_BEYOND_S = 0.8
_IMAGE_S = 30.0
_JOURNAL_SHARE = 0.15
_JOURNAL = "CREATE TABLE bench_journal (LIKE restore.journal INCLUDING ALL)"
_INTENT = """
INSERT INTO bench_journal (restore_id, batch, rows, numbers, intent_time_ns, steps)
VALUES ($1, $2, $3, $4, $5, $6)
"""
_RESULT = """
UPDATE bench_journal SET codes = $3, result_time_ns = $4 WHERE restore_id = $1 AND batch = $2
"""


async def make_plan(site: LiveSite, snapshot_id: str) -> restore_pb2.Plan:
    """A plan that writes every setpoint."""
    response = await site.site.restores.CreatePlan(
        restore_service_pb2.CreatePlanRequest(
            spec=restore_pb2.PlanSpec(state=state_pb2.StateRef(snapshot_id=snapshot_id)),
            request_id=str(uuid4()),
        ),
        **site.site.call,
    )
    plan: restore_pb2.Plan = response.plan
    if plan.writes != site.site.pvs:
        raise RuntimeError(f"{plan.writes} writes instead of {site.site.pvs}: {plan}")
    return plan


async def execute_plan(site: LiveSite, plan: restore_pb2.Plan) -> restore_pb2.Restore:
    """Run a plan to its end; RuntimeError unless every PV was verified."""
    restores, call = site.site.restores, site.site.call
    started = await restores.ExecutePlan(
        restore_service_pb2.ExecutePlanRequest(
            plan_id=plan.id, digest=plan.digest, request_id=str(uuid4())
        ),
        **call,
    )
    restore = started.restore
    request = restore_service_pb2.WatchRestoreRequest(id=restore.id)
    async for response in restores.WatchRestore(request, **call):
        restore = response.restore
    if not restore.all_verified:
        raise RuntimeError(f"not everything was verified: {restore}")
    return restore


async def write_journal(database: asyncpg.Connection, restore_id: str) -> float:
    """Seconds to write the journal of a restore once more, each statement durable by itself."""
    entries = await database.fetch(
        "SELECT * FROM restore.journal WHERE restore_id = $1", restore_id
    )
    begin = time.perf_counter()
    for entry in entries:
        key = (entry["restore_id"], entry["batch"])
        what = ("rows", "numbers", "intent_time_ns", "steps")
        await database.execute(_INTENT, *key, *(entry[name] for name in what))
        await database.execute(_RESULT, *key, entry["codes"], entry["result_time_ns"])
    return time.perf_counter() - begin


async def run(pvs: int, runs: int) -> Result:
    """`pvs` setpoints, each followed by its readback.

    `device_s` is what the IOC needs: the same writes with completion by a bare table, which moves
    every setpoint away before each restore. One restore comes first and is not counted: it
    connects. `journal_s` is what the statements of its journal take by themselves.
    """
    result = Result("restore", pvs)
    mine = await ours()
    result.notes.append(f"channel access: {mine}")
    device, total, plans, journals = [], [], [], []
    value = count(2)
    async with live(pvs, mine, both=True) as site, open_table(mine) as table:
        database = await asyncpg.connect(site.site.stack.postgres.url)
        await database.execute(_JOURNAL)
        slots = await connected(table, setpoints(pvs))
        before = await site.site.take()
        for turn in range(runs + 1):
            wrote = await write_s(table, slots, float(next(value)))
            await site.until_moved(_IMAGE_S)
            begin = time.perf_counter()
            plan = await make_plan(site, before.id)
            planned = time.perf_counter() - begin
            begin = time.perf_counter()
            restore = await execute_plan(site, plan)
            seconds = time.perf_counter() - begin
            await site.until_moved(_IMAGE_S)
            journal_s = await write_journal(database, restore.id)
            if turn:
                device.append(wrote)
                plans.append(planned)
                total.append(seconds)
                journals.append(journal_s)
        await database.close()
    beyond = [t - d for t, d in zip(total, device, strict=True)]
    result.figure("device_s", device, None)
    result.figure("total_s", total, _BEYOND_S + result.figures["device_s"][0])
    result.figure("beyond_device_s", beyond, _BEYOND_S)
    result.figure("plan_s", plans, None)
    result.figure("journal_s", journals, _JOURNAL_SHARE * result.figures["total_s"][0])
    return result
