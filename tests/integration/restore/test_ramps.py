"""Ramps: small steps, each waited for, and never a jump."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import asyncpg
import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_ca import open_table
from drey_client.plan_digest import plan_digest
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import planned, read, reason, seconds, set_policies, until, world_of, write

Verdict = restore_pb2.Verdict

FOLLOWS = "B:FOLLOWS"
STALLS = "B:STALLS"
PLAIN = "B:PLAIN"
INTEGER = "B:INTEGER"
DATABASE = f"""
record(ao, "{FOLLOWS}") {{ field(PINI, "YES") field(FLNK, "{FOLLOWS}:RB") }}
record(calc, "{FOLLOWS}:RB") {{ field(INPA, "{FOLLOWS}") field(CALC, "2*A+1") field(PINI, "YES") }}
# the device follows up to 3 and no further
record(ao, "{STALLS}") {{ field(PINI, "YES") field(FLNK, "{STALLS}:RB") }}
record(calc, "{STALLS}:RB") {{ field(INPA, "{STALLS}") field(CALC, "MIN(A,3)") field(PINI, "YES") }}
record(ao, "{PLAIN}") {{ field(PINI, "YES") }}
record(longout, "{INTEGER}") {{ field(PINI, "YES") }}
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, DATABASE) as ioc:
        yield ioc


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    readbacks = {FOLLOWS: f"{FOLLOWS}:RB", STALLS: f"{STALLS}:RB", PLAIN: "", INTEGER: ""}
    async with world_of(readbacks, parts) as found:
        yield found


@asynccontextmanager
async def seen_values(name: str) -> AsyncIterator[list[float]]:
    """Every value of a channel that its IOC tells a subscriber."""
    seen: list[float] = []
    async with open_table("native") as table:
        slots = await table.add_channels([name])
        assert (await table.wait_connected(slots, 60)).all()
        await table.subscribe_slots(slots)

        async def follow() -> None:
            while True:
                await table.wait_dirty()
                table.drain_info()
                found = table.drain_updates()
                seen.extend(float(found.value(i)) for i in range(len(found)) if found.kind[i])

        task = asyncio.create_task(follow())
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def store(world: RestoreWorld, **values: float) -> str:
    """A snapshot of the machine with these values, by the last part of the name."""
    await write(world, {f"B:{name}": value for name, value in values.items()})
    await until(world, {f"B:{name}": value for name, value in values.items()})
    snapshot_id = await world.take()
    await write(world, {f"B:{name}": 0.0 for name in values})
    await until(world, {f"B:{name}": 0.0 for name in values})
    return snapshot_id


async def test_each_step_is_in_the_plan_in_the_journal_and_seen_before_the_next(
    site: RestoreSite,
) -> None:
    world = site.world
    # the rate lets some time pass between the steps, so that a subscriber sees each
    ramp = {"ramp_step": 2.0, "ramp_rate": 10.0}
    set_policies(world, FOLLOWS=ramp, INTEGER=ramp)
    snapshot_id = await store(world, FOLLOWS=9.0, INTEGER=7, PLAIN=5.0)
    plan = await planned(site, [FOLLOWS, INTEGER, PLAIN], snapshot_id=snapshot_id)
    items = await site.plan_items(plan.id)
    assert plan_digest(plan, items.values()) == plan.digest
    steps = list(items[FOLLOWS].ramp_steps)
    assert steps == pytest.approx([1.8, 3.6, 5.4, 7.2])
    assert list(items[INTEGER].ramp_steps) == [2.0, 4.0, 5.0]
    assert not items[PLAIN].ramp_steps
    async with seen_values(FOLLOWS) as seen:
        ended = await site.ended((await site.execute(plan)).id)
        results = await site.items(ended.id)
        async with asyncio.timeout(60):
            while 9.0 not in seen:
                await asyncio.sleep(0.02)
    assert ended.all_verified, results
    assert seen == pytest.approx([0.0, *steps, 9.0])
    assert [results[name].ramp_steps_sent for name in (FOLLOWS, INTEGER, PLAIN)] == [4, 3, 0]
    took = results[FOLLOWS].complete_time.ToNanoseconds() - ended.start_time.ToNanoseconds()
    assert took > 0.18e9 * 4
    database = await asyncpg.connect(site.url)
    journal = await database.fetch(
        "SELECT rows, steps, codes, intent_time_ns, result_time_ns FROM restore.journal"
        " WHERE restore_id = $1 ORDER BY batch",
        uuid.UUID(ended.id),
    )
    await database.close()
    row = sorted(items[name].number for name in items).index(items[FOLLOWS].number)
    entries = [entry for entry in journal if row in entry["rows"]]
    told = [
        0 if entry["steps"] is None else entry["steps"][entry["rows"].index(row)]
        for entry in entries
    ]
    assert told == [1, 2, 3, 4, 0]
    assert all(set(entry["codes"]) == {1} for entry in entries)
    for earlier, later in pairwise(entries):
        assert later["intent_time_ns"] >= earlier["result_time_ns"]


async def test_a_ramp_whose_readback_stays_behind_stops_and_never_jumps(site: RestoreSite) -> None:
    world = site.world
    set_policies(world, STALLS={"ramp_step": 1.0, "timeout": seconds(1)}, PLAIN={"stage": 1})
    snapshot_id = await store(world, STALLS=9.0, PLAIN=5.0)
    number = next(i for i, r in enumerate(world.rows, 1) if r.setpoint == STALLS)
    world.snapshots[snapshot_id].readback.data.view("f8")[number - 1] = 9.0
    plan = await planned(
        site,
        [STALLS, PLAIN],
        snapshot_id=snapshot_id,
        gates=[{"after_stage": 0, "max_failed": 0}],
    )
    ended = await site.ended((await site.execute(plan, verify_timeout=seconds(1))).id)
    results = await site.items(ended.id)
    assert results[STALLS].verdict == Verdict.VERDICT_RAMP_STOPPED
    assert results[STALLS].seen.float64_value == 4.0
    assert results[STALLS].ramp_steps_sent == 4
    assert "ramp" in results[STALLS].explanation
    assert await read(world, [STALLS, PLAIN]) == {STALLS: 4.0, PLAIN: 0.0}
    assert results[PLAIN].verdict == Verdict.VERDICT_NOT_SENT
    assert (ended.state, reason(ended)) == (restore_pb2.RESTORE_STATE_INTERRUPTED, "GATE_NOT_MET")
    # what was sent has a way back, on a ramp too
    spec = restore_pb2.PlanSpec(undo={"restore_id": ended.id})
    undo = (await site.call("CreatePlan", pb.CreatePlanRequest(spec=spec))).plan
    assert list((await site.plan_items(undo.id))[STALLS].ramp_steps) == [3.0, 2.0, 1.0]


async def test_somebody_who_moves_it_on_the_way_stops_a_ramp(site: RestoreSite) -> None:
    world = site.world
    set_policies(world, PLAIN={"ramp_step": 1.0, "ramp_rate": 2.0})
    snapshot_id = await store(world, PLAIN=50.0)
    plan = await planned(site, [PLAIN], snapshot_id=snapshot_id)
    restore = await site.execute(plan)
    await until(world, {PLAIN: 1.0})
    await write(world, {PLAIN: 30.0})
    ended = await site.ended(restore.id)
    results = await site.items(ended.id)
    assert results[PLAIN].verdict == Verdict.VERDICT_RAMP_STOPPED
    assert results[PLAIN].ramp_steps_sent <= 3
    assert (ended.state, reason(ended)) == (
        restore_pb2.RESTORE_STATE_COMPLETED,
        "NOT_ALL_VERIFIED",
    )


async def test_a_ramp_holds_where_it_is_and_stops_within_a_step(site: RestoreSite) -> None:
    world = site.world
    set_policies(world, PLAIN={"ramp_step": 1.0, "ramp_rate": 5.0})
    snapshot_id = await store(world, PLAIN=100.0)
    restore = await site.execute(await planned(site, [PLAIN], snapshot_id=snapshot_id))
    await until(world, {PLAIN: 2.0})
    await site.call("PauseRestore", pb.PauseRestoreRequest(id=restore.id))
    watch = site.stub.WatchRestore(
        pb.WatchRestoreRequest(id=restore.id), timeout=60, metadata=site.metadata()
    )
    async for message in watch:
        if message.restore.state == restore_pb2.RESTORE_STATE_PAUSED:
            break
    held = await read(world, [PLAIN])
    assert held[PLAIN] < 100
    await asyncio.sleep(1.0)  # five steps would be due
    assert await read(world, [PLAIN]) == held
    await site.call("ResumeRestore", pb.ResumeRestoreRequest(id=restore.id))
    await until(world, {PLAIN: held[PLAIN] + 2.0})
    await site.call("AbortRestore", pb.AbortRestoreRequest(id=restore.id))
    stopped_at = (await read(world, [PLAIN]))[PLAIN]
    ended = await site.ended(restore.id)
    item = (await site.items(ended.id))[PLAIN]
    assert ended.state == restore_pb2.RESTORE_STATE_ABORTED
    assert item.verdict in (Verdict.VERDICT_RAMP_STOPPED, Verdict.VERDICT_UNKNOWN)
    now = (await read(world, [PLAIN]))[PLAIN]
    assert now - stopped_at <= 1.0
    assert now == item.seen.float64_value < 100
