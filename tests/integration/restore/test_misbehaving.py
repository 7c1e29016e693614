"""Policies, stages and verification against an IOC that misbehaves on purpose.

Readbacks come late or never, a driver refuses with an alarm only, a record accepts and ignores.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_client.plan_digest import plan_digest
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import planned, read, reason, seconds, set_policies, until, world_of, write

Verdict = restore_pb2.Verdict

LATE_S = 1.0
STALLED = "B:STALLED"
LATE = "B:LATE"
DONE = "B:DONE"
LIAR = "B:LIAR"
IGNORES = "B:IGNORES"
SLOW = "B:SLOW.A"
PLAIN = [f"B:PLAIN{i}" for i in range(6)]


def follower(name: str) -> str:
    """A setpoint whose readback follows late, and a channel that says 1 once it has."""
    return f"""
record(ao, "{name}") {{ field(PINI, "YES") }}
record(calcout, "{name}:DELAY") {{ field(INPA, "{name} CP") field(CALC, "A")
    field(ODLY, "{LATE_S}") field(OUT, "{name}:RB PP") }}
record(ao, "{name}:RB") {{ field(PINI, "YES") }}
record(calc, "{name}:ARRIVED") {{ field(INPA, "{name} CP") field(INPB, "{name}:RB CP")
    field(CALC, "A=B") field(PINI, "YES") }}
"""


DATABASE = "\n".join(
    [
        follower(LATE),
        follower(DONE),
        f'record(ao, "{STALLED}") {{ field(PINI, "YES") }}',
        f'record(ao, "{STALLED}:RB") {{ field(PINI, "YES") }}',
        # the driver refuses: only an alarm tells
        f'record(ao, "{LIAR}") {{ field(OUT, "B:NOWHERE.VAL CA") }}',
        f'record(ao, "{IGNORES}") {{ field(PINI, "YES") field(FLNK, "{IGNORES}:BACK") }}',
        f'record(calcout, "{IGNORES}:BACK") {{ field(CALC, "7") field(OUT, "{IGNORES}.VAL") }}',
        'record(calcout, "B:SLOW") { field(CALC, "A") field(ODLY, "30") }',
        *(f'record(ao, "{name}") {{ field(PINI, "YES") }}' for name in PLAIN),
    ]
)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, DATABASE) as ioc:
        yield ioc


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    with_readback = {LATE, DONE, STALLED}
    names = [LATE, DONE, STALLED, LIAR, IGNORES, SLOW, *PLAIN]
    async with world_of(
        {n: f"{n}:RB" if n in with_readback else "" for n in names}, parts
    ) as found:
        yield found


async def test_stages_and_completions_are_followed(site: RestoreSite) -> None:
    world = site.world
    set_policies(
        world,
        LATE={"stage": -1, "completion": "COMPLETION_READBACK", "timeout": seconds(60)},
        DONE={
            "stage": 1,
            "completion": "COMPLETION_DONE_CHANNEL",
            "done_channel": f"{DONE}:ARRIVED",
            "timeout": seconds(60),
            "settle": seconds(0.3),
        },
        PLAIN0={"stage": 2, "completion": "COMPLETION_SENT"},
        PLAIN1={"stage": 2, "settle": seconds(0.2)},
        PLAIN2={"stage": 3, "allowed": {"low": -1.0, "high": 5.0}},
        PLAIN3={"allowed": {"low": 2.0, "high": 5.0}},
    )
    names = [LATE, DONE, *PLAIN[:4]]
    snapshot_id = await world.take()
    await write(world, dict.fromkeys(names, 1.0))
    await until(world, {f"{LATE}:RB": 1.0, f"{DONE}:RB": 1.0})
    plan = await planned(site, names, snapshot_id=snapshot_id)
    assert [(s.stage, s.writes) for s in plan.stages] == [(-1, 1), (1, 1), (2, 2), (3, 1)]
    items = await site.plan_items(plan.id)
    assert plan_digest(plan, items.values()) == plan.digest
    assert items[PLAIN[3]].skip == restore_pb2.SKIP_REASON_OUT_OF_RANGE
    assert items[DONE].policy.done_channel == f"{DONE}:ARRIVED"
    ended = await site.ended((await site.execute(plan, write_timeout=seconds(120))).id)
    results = await site.items(ended.id)
    for name in [LATE, DONE, *PLAIN[:3]]:
        assert results[name].verdict == Verdict.VERDICT_VERIFIED, results[name]
    late, done = results[LATE], results[DONE]
    # its completion was waited for, and no later stage began before
    assert late.complete_time.ToNanoseconds() - late.send_time.ToNanoseconds() > LATE_S * 0.9e9
    assert done.complete_time.ToNanoseconds() - done.send_time.ToNanoseconds() > LATE_S * 1.2e9
    order = [late, done, results[PLAIN[0]], results[PLAIN[2]]]
    for earlier, later in pairwise(order):
        assert later.send_time.ToNanoseconds() >= earlier.complete_time.ToNanoseconds()
    assert (await read(world, [f"{DONE}:RB"])) == {f"{DONE}:RB": 0.0}


async def test_a_stage_that_is_not_verified_closes_its_gate(site: RestoreSite) -> None:
    world = site.world
    policy = {"completion": "COMPLETION_READBACK", "timeout": seconds(1)}
    set_policies(world, STALLED=policy, PLAIN0={"stage": 1})
    snapshot_id = await world.take()
    await write(world, {STALLED: 1.0, f"{STALLED}:RB": 1.0, PLAIN[0]: 1.0})
    await until(world, {STALLED: 1.0, f"{STALLED}:RB": 1.0, PLAIN[0]: 1.0})
    names = [STALLED, PLAIN[0]]

    async def ran(most: int) -> tuple[restore_pb2.Restore, dict[str, restore_pb2.RestoreItem]]:
        gates = [{"after_stage": 0, "max_failed": most}]
        plan = await planned(site, names, snapshot_id=snapshot_id, gates=gates)
        assert plan_digest(plan, (await site.plan_items(plan.id)).values()) == plan.digest
        restore = await site.execute(plan, verify_timeout=seconds(1))
        ended = await site.ended(restore.id)
        return ended, await site.items(ended.id)

    ended, results = await ran(0)
    assert (ended.state, reason(ended)) == (restore_pb2.RESTORE_STATE_INTERRUPTED, "GATE_NOT_MET")
    assert STALLED in ended.error.message
    assert results[STALLED].verdict == Verdict.VERDICT_TIMED_OUT
    assert results[PLAIN[0]].verdict == Verdict.VERDICT_NOT_SENT
    assert ended.may_still_fire == 0
    assert await read(world, [PLAIN[0]]) == {PLAIN[0]: 1.0}

    await write(world, {STALLED: 1.0})
    await until(world, {STALLED: 1.0})
    ended, results = await ran(1)
    assert (ended.state, reason(ended)) == (
        restore_pb2.RESTORE_STATE_COMPLETED,
        "NOT_ALL_VERIFIED",
    )
    assert results[PLAIN[0]].verdict == Verdict.VERDICT_VERIFIED


async def test_what_accepts_and_ignores_and_what_refuses_by_alarm_are_not_verified(
    site: RestoreSite,
) -> None:
    world = site.world
    snapshot_id = await world.take()
    stored = world.snapshots[snapshot_id].setpoint
    stored.severity[:], stored.status[:] = 0, 0
    for name in (LIAR, IGNORES, PLAIN[0]):
        number = next(i for i, row in enumerate(world.rows, 1) if row.setpoint == name)
        stored.data.view("f8")[number - 1] = 3.0
    plan = await planned(site, [LIAR, IGNORES, PLAIN[0]], snapshot_id=snapshot_id)
    ended = await site.ended((await site.execute(plan)).id)
    results = await site.items(ended.id)
    assert results[PLAIN[0]].verdict == Verdict.VERDICT_VERIFIED
    assert results[LIAR].verdict == Verdict.VERDICT_IN_ALARM, results[LIAR]
    assert results[LIAR].seen.float64_value == 3.0
    assert "alarm" in results[LIAR].explanation
    assert results[IGNORES].verdict == Verdict.VERDICT_NOT_REACHED
    assert reason(ended) == "NOT_ALL_VERIFIED"
    assert not ended.all_verified


async def test_what_was_equal_is_verified_too(site: RestoreSite) -> None:
    world = site.world
    snapshot_id = await world.take()
    await write(world, {PLAIN[0]: 1.0})
    await until(world, {PLAIN[0]: 1.0})
    plan = await planned(site, PLAIN, snapshot_id=snapshot_id)
    assert plan.writes == 1
    # somebody else writes what was equal, between the plan and its execution
    await write(world, {PLAIN[1]: 2.0})
    await until(world, {PLAIN[1]: 2.0})
    ended = await site.ended((await site.execute(plan)).id)
    results = await site.items(ended.id)
    assert results[PLAIN[0]].verdict == Verdict.VERDICT_VERIFIED
    assert results[PLAIN[1]].verdict == Verdict.VERDICT_NO_LONGER_EQUAL
    assert results[PLAIN[1]].seen.float64_value == 2.0
    assert results[PLAIN[2]].verdict == Verdict.VERDICT_EQUAL_ALREADY
    assert reason(ended) == "NOT_ALL_VERIFIED"
    assert PLAIN[1] in ended.error.message


async def test_abort_does_not_wait_for_a_slow_device(site: RestoreSite) -> None:
    """Its write has half a minute to go; every PV has a verdict long before."""
    world = site.world
    set_policies(world, SLOW={"timeout": seconds(600)}, PLAIN0={"stage": 1})
    snapshot_id = await world.take()
    await write(world, {PLAIN[0]: 1.0})
    stored = world.snapshots[snapshot_id].setpoint
    number = next(i for i, row in enumerate(world.rows, 1) if row.setpoint == SLOW)
    stored.data.view("f8")[number - 1] = 5.0
    await until(world, {PLAIN[0]: 1.0})
    plan = await planned(site, [SLOW, PLAIN[0]], snapshot_id=snapshot_id)
    assert plan.writes == 2
    restore = await site.execute(plan)
    await until(world, {SLOW: 5.0})
    async with asyncio.timeout(60):
        await site.call("AbortRestore", pb.AbortRestoreRequest(id=restore.id, reason="beam loss"))
        ended = await site.ended(restore.id)
    assert ended.state == restore_pb2.RESTORE_STATE_ABORTED
    results = await site.items(ended.id)
    assert results[PLAIN[0]].verdict == Verdict.VERDICT_NOT_SENT
    assert results[SLOW].verdict == Verdict.VERDICT_UNKNOWN
    assert results[SLOW].seen.float64_value == 5.0
    assert ended.may_still_fire == 0


@pytest.mark.parametrize("chunk", [1])
async def test_a_paused_restore_sends_nothing_until_it_is_resumed(site: RestoreSite) -> None:
    world = site.world
    set_policies(world, PLAIN0={"settle": seconds(1), "stage": -1})
    snapshot_id = await world.take()
    await write(world, dict.fromkeys(PLAIN, 1.0))
    await until(world, dict.fromkeys(PLAIN, 1.0))
    plan = await planned(site, PLAIN, snapshot_id=snapshot_id)
    restore = await site.execute(plan)
    await until(world, {PLAIN[0]: 0.0})
    await site.call("PauseRestore", pb.PauseRestoreRequest(id=restore.id))
    watch = site.stub.WatchRestore(
        pb.WatchRestoreRequest(id=restore.id), timeout=60, metadata=site.metadata()
    )
    async for message in watch:
        if message.restore.state == restore_pb2.RESTORE_STATE_PAUSED:
            break
    held = await read(world, PLAIN)
    assert list(held.values()).count(1.0) >= 4
    await site.call("PauseRestore", pb.PauseRestoreRequest(id=restore.id))
    await asyncio.sleep(1.0)
    assert await read(world, PLAIN) == held
    await site.call("ResumeRestore", pb.ResumeRestoreRequest(id=restore.id))
    ended = await site.ended(restore.id)
    assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED
    assert {v.verdict: v.pvs for v in ended.verdicts} == {Verdict.VERDICT_VERIFIED: len(PLAIN)}
    # a paused one can be stopped as well
    await write(world, dict.fromkeys(PLAIN, 1.0))
    await until(world, dict.fromkeys(PLAIN, 1.0))
    restore = await site.execute(await planned(site, PLAIN, snapshot_id=snapshot_id))
    await until(world, {PLAIN[0]: 0.0})
    await site.call("PauseRestore", pb.PauseRestoreRequest(id=restore.id))
    await site.call("AbortRestore", pb.AbortRestoreRequest(id=restore.id))
    ended = await site.ended(restore.id)
    assert ended.state == restore_pb2.RESTORE_STATE_ABORTED
    assert list((await read(world, PLAIN)).values()).count(1.0) >= 4


async def test_undo_brings_back_what_was_sent_where_nobody_has_changed_it(
    site: RestoreSite,
) -> None:
    world = site.world
    set_policies(world, PLAIN0={"stage": 1}, PLAIN1={"stage": 2}, PLAIN2={"stage": 2})
    snapshot_id = await world.take()
    here = {PLAIN[0]: 1.0, PLAIN[1]: 2.0, PLAIN[2]: 3.0}
    await write(world, here)
    await until(world, here)
    names = PLAIN[:4]
    restore = await site.ended(
        (await site.execute(await planned(site, names, snapshot_id=snapshot_id))).id
    )
    assert await read(world, names) == dict.fromkeys(names, 0.0)
    await write(world, {PLAIN[2]: 9.0})
    await until(world, {PLAIN[2]: 9.0})

    async def undo(**more: Any) -> restore_pb2.Plan:
        spec = restore_pb2.PlanSpec(undo={"restore_id": restore.id, **more})
        plan: restore_pb2.Plan = (
            await site.call("CreatePlan", pb.CreatePlanRequest(spec=spec))
        ).plan
        assert (plan.undoes_restore_id, plan.snapshot_id) == (restore.id, "")
        return plan

    plan = await undo()
    items = await site.plan_items(plan.id)
    assert plan_digest(plan, items.values()) == plan.digest
    assert sorted(items) == PLAIN[:3]  # what was equal was not written
    assert [(s.stage, s.writes) for s in plan.stages] == [(-2, 1), (-1, 1)]
    assert items[PLAIN[2]].skip == restore_pb2.SKIP_REASON_CHANGED_SINCE
    assert "changed since" in items[PLAIN[2]].warnings[0]
    ended = await site.ended((await site.execute(plan)).id)
    results = await site.items(ended.id)
    assert results[PLAIN[0]].verdict == results[PLAIN[1]].verdict == Verdict.VERDICT_VERIFIED
    assert (
        results[PLAIN[1]].complete_time.ToNanoseconds()
        <= results[PLAIN[0]].send_time.ToNanoseconds()
    )
    assert await read(world, PLAIN[:3]) == {PLAIN[0]: 1.0, PLAIN[1]: 2.0, PLAIN[2]: 9.0}
    # told to, it writes that too; and what is back already is equal
    again = await undo(also_changed=True)
    items = await site.plan_items(again.id)
    assert [name for name in items if not items[name].skip] == [PLAIN[2]]
    await site.ended((await site.execute(again)).id)
    assert await read(world, PLAIN[:3]) == here
    # the way back has a way back
    spec = restore_pb2.PlanSpec(undo={"restore_id": ended.id})
    plan = (await site.call("CreatePlan", pb.CreatePlanRequest(spec=spec))).plan
    assert [(s.stage, s.writes) for s in plan.stages] == [(1, 1), (2, 1)]
