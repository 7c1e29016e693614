"""Guards and what gates want: looked at when the plan is made, watched while it writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from drey.restore.v1 import restore_pb2
from drey_client.plan_digest import plan_digest
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import planned, read, reason, seconds, set_policies, until, world_of, write

Verdict = restore_pb2.Verdict

CURRENT, MODE, RAMPED, LATER, LOST = "B:CURRENT", "B:MODE", "B:RAMPED", "B:LATER", "B:LOST"
DATABASE = f"""
record(ao, "{CURRENT}") {{ field(PINI, "YES") }}
record(bo, "{MODE}") {{ field(DOL, "0") field(PINI, "YES") field(ZNAM, "MD") field(ONAM, "USER") }}
record(ao, "{RAMPED}") {{ field(PINI, "YES") }}
record(ao, "{LATER}") {{ field(PINI, "YES") }}
# never processed: UDF, and so INVALID
record(ao, "{LOST}") {{ }}
"""
NO_BEAM = {"expression": f'pv["{CURRENT}"] < 0.1 && pv["{MODE}"] == "MD"', "description": "no beam"}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, DATABASE) as ioc:
        yield ioc


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    async with world_of(dict.fromkeys([CURRENT, MODE, RAMPED, LATER, LOST], ""), parts) as found:
        yield found


async def slow_plan(site: RestoreSite, **rules: Any) -> restore_pb2.Plan:
    """A hundred steps of a fifth of a second, and then another stage."""
    world = site.world
    set_policies(world, RAMPED={"ramp_step": 1.0, "ramp_rate": 5.0}, LATER={"stage": 1})
    await write(world, {RAMPED: 100.0, LATER: 5.0})
    await until(world, {RAMPED: 100.0, LATER: 5.0})
    snapshot_id = await world.take()
    await write(world, {RAMPED: 0.0, LATER: 0.0})
    await until(world, {RAMPED: 0.0, LATER: 0.0})
    return await planned(site, [RAMPED, LATER], snapshot_id=snapshot_id, **rules)


async def test_a_guard_that_breaks_stops_new_writes_and_is_named(site: RestoreSite) -> None:
    world = site.world
    plan = await slow_plan(site, guards=[NO_BEAM])
    assert plan_digest(plan, (await site.plan_items(plan.id)).values()) == plan.digest
    restore = await site.execute(plan)
    await until(world, {RAMPED: 2.0})
    await write(world, {CURRENT: 1.5})
    ended = await site.ended(restore.id)
    assert (ended.state, reason(ended)) == (restore_pb2.RESTORE_STATE_INTERRUPTED, "GUARD_FAILED")
    assert "no beam" in ended.error.message
    assert f"{CURRENT} is 1.5" in ended.error.message
    results = await site.items(ended.id)
    assert results[LATER].verdict == Verdict.VERDICT_NOT_SENT
    assert results[RAMPED].verdict in (Verdict.VERDICT_RAMP_STOPPED, Verdict.VERDICT_UNKNOWN)
    stopped_at = await read(world, [RAMPED, LATER])
    assert stopped_at[RAMPED] < 100
    await asyncio.sleep(0.5)
    assert await read(world, [RAMPED, LATER]) == stopped_at
    assert sum(v.pvs for v in ended.verdicts) == plan.pvs


async def test_a_guard_that_does_not_hold_lets_nothing_begin(site: RestoreSite) -> None:
    world = site.world
    plan = await slow_plan(site, guards=[NO_BEAM])
    await write(world, {MODE: 1})
    await until(world, {MODE: 1.0})
    ended = await site.ended((await site.execute(plan)).id)
    assert (ended.state, reason(ended)) == (restore_pb2.RESTORE_STATE_FAILED, "GUARD_FAILED")
    assert f"{MODE} is 'USER'" in ended.error.message
    assert await read(world, [RAMPED, LATER]) == {RAMPED: 0.0, LATER: 0.0}


async def test_a_guard_that_cannot_be_known_any_more_stops_too(
    site: RestoreSite, machine: Ioc
) -> None:
    world = site.world
    plan = await slow_plan(site, guards=[{"expression": f'pv["{CURRENT}"] < 0.1'}])
    restore = await site.execute(plan)
    await until(world, {RAMPED: 2.0})
    await write(world, {CURRENT: float("nan")})
    ended = await site.ended(restore.id)
    assert (ended.state, reason(ended)) == (restore_pb2.RESTORE_STATE_INTERRUPTED, "GUARD_FAILED")
    assert CURRENT in ended.error.message


@pytest.mark.parametrize(
    ("expression", "code", "why"),
    [
        (f'pv["{CURRENT}"] <', grpc.StatusCode.INVALID_ARGUMENT, "no expression"),
        ('pv["B:NOBODY"] < 1', grpc.StatusCode.INVALID_ARGUMENT, "no PV B:NOBODY"),
        (f'pv["{MODE}"] < 1', grpc.StatusCode.INVALID_ARGUMENT, "overload"),
        (f'pv["{LOST}"] < 1', grpc.StatusCode.FAILED_PRECONDITION, f"{LOST} is INVALID"),
    ],
)
async def test_a_guard_that_cannot_be_judged_makes_no_plan(
    site: RestoreSite, expression: str, code: grpc.StatusCode, why: str
) -> None:
    snapshot_id = await site.world.take()
    for rules in (
        {"guards": [NO_BEAM, {"expression": expression}]},
        {"gates": [{"after_stage": 0, "must_hold": {"expression": expression}}]},
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=why) as refused:
            await planned(site, [RAMPED], snapshot_id=snapshot_id, **rules)
        assert refused.value.code() == code
        assert "expression" in str(refused.value.details())


async def test_a_gate_waits_for_what_must_hold(site: RestoreSite) -> None:
    world = site.world
    set_policies(world, LATER={"stage": 2})
    await write(world, {RAMPED: 1.0, LATER: 5.0})
    await until(world, {RAMPED: 1.0, LATER: 5.0})
    snapshot_id = await world.take()
    gates = [{"after_stage": 1, "must_hold": {"expression": f'setpoint["{MODE}"] == "USER"'}}]

    async def plan() -> restore_pb2.Plan:
        await write(world, {RAMPED: 0.0, LATER: 0.0})
        await until(world, {RAMPED: 0.0, LATER: 0.0})
        return await planned(site, [RAMPED, LATER], snapshot_id=snapshot_id, gates=gates)

    ended = await site.ended((await site.execute(await plan(), verify_timeout=seconds(1))).id)
    assert (ended.state, reason(ended)) == (restore_pb2.RESTORE_STATE_INTERRUPTED, "GATE_NOT_MET")
    assert f"{MODE} is 'MD'" in ended.error.message
    assert await read(world, [RAMPED, LATER]) == {RAMPED: 1.0, LATER: 0.0}
    restore = await site.execute(await plan(), verify_timeout=seconds(60))
    await until(world, {RAMPED: 1.0})
    await write(world, {MODE: 1})
    ended = await site.ended(restore.id)
    assert ended.all_verified, ended
