"""All magnets at once. `RESTORE_PVS=40000 pytest -s` of this file says how long it takes."""

from __future__ import annotations

import time

import numpy as np
import pytest

from drey.common.v1 import selector_pb2
from drey.restore.v1 import restore_pb2
from drey_testing.restore_world import RestoreSite


@pytest.mark.parametrize("chunk", [2048])
async def test_all_magnets_at_once(site: RestoreSite) -> None:
    world = site.world
    numbers = [n for n, row in enumerate(world.rows, 1) if row.kind == "magnet"]
    snapshot_id = await world.take()
    stored = world.snapshots[snapshot_id]
    at = np.array(numbers) - 1
    stored.setpoint.data.view("f8")[at] = np.round(np.linspace(-50, 50, len(at)), 3)
    stored.readback.kind[at] = 0  # what it read then has nothing to do with it
    await world.publish()
    selector = selector_pb2.Selector(all=True)
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        plan = await site.plan(snapshot_id, selector=selector)
        times.append(round(time.perf_counter() - begun, 3))
    assert plan.writes >= len(numbers) - 1
    begun = time.perf_counter()
    restore = await site.execute(plan)
    accepted = time.perf_counter() - begun
    ended = await site.ended(restore.id)
    took = time.perf_counter() - begun
    counts = {v.verdict: v.pvs for v in ended.verdicts}
    begun = time.perf_counter()
    assert len(await site.items(restore.id)) == plan.pvs
    read = time.perf_counter() - begun
    print(
        f"\n{plan.writes} writes of {plan.pvs}: plan {times} s, accepted {accepted:.3f} s,"
        f" restore {took:.2f} s, read back {read:.2f} s"
    )
    assert counts[restore_pb2.VERDICT_VERIFIED] == plan.writes
