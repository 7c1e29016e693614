"""A restore that goes back by itself: where it is asked to, and only what it has written."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_client.plan_digest import plan_digest
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import planned, read, reason, seconds, set_policies, until, world_of, write
from .test_death import DIES_S, start
from .test_guards import CURRENT, LATER, MODE, NO_BEAM, RAMPED, slow_plan
from .test_guards import DATABASE as GUARDED
from .test_named_points import WAITING, Point, standing_still

Verdict = restore_pb2.Verdict
STALLED, IGNORES = "B:STALLED", "B:IGNORES"
PLAIN = [f"B:PLAIN{i}" for i in range(3)]
DATABASE = GUARDED + "\n".join(
    [
        f'record(ao, "{STALLED}") {{ field(PINI, "YES") }}',
        f'record(ao, "{STALLED}:RB") {{ field(PINI, "YES") }}',
        f'record(ao, "{IGNORES}") {{ field(PINI, "YES") field(FLNK, "{IGNORES}:BACK") }}',
        f'record(calcout, "{IGNORES}:BACK") {{ field(CALC, "7") field(OUT, "{IGNORES}.VAL") }}',
        *(f'record(ao, "{name}") {{ field(PINI, "YES") }}' for name in PLAIN),
    ]
)
LAST_STAGE = 9


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, DATABASE) as ioc:
        yield ioc


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    names = [CURRENT, MODE, RAMPED, LATER, STALLED, IGNORES, *PLAIN]
    async with world_of({n: f"{n}:RB" if n == STALLED else "" for n in names}, parts) as found:
        yield found


async def stalled_plan(site: RestoreSite, **rules: Any) -> restore_pb2.Plan:
    """Three stages that go well, one in which a readback does not follow, and one more."""
    world = site.world
    late = {"completion": "COMPLETION_READBACK", "timeout": seconds(1), "stage": 5}
    set_policies(
        world,
        STALLED=late,
        LATER={"stage": LAST_STAGE},
        **{name.partition(":")[2]: {"stage": i} for i, name in enumerate(PLAIN)},
    )
    names = [*PLAIN, STALLED, LATER]
    await write(world, dict.fromkeys([*names, f"{STALLED}:RB"], 5.0))
    await until(world, dict.fromkeys([*names, f"{STALLED}:RB"], 5.0))
    snapshot_id = await world.take()
    here = {name: float(i) for i, name in enumerate(names)} | {f"{STALLED}:RB": 3.0}
    await write(world, here)
    await until(world, here)
    plan = await planned(site, names, snapshot_id=snapshot_id, **rules)
    assert plan.writes == len(names)
    assert plan_digest(plan, (await site.plan_items(plan.id)).values()) == plan.digest
    return plan


async def gone_back(site: RestoreSite, ended: restore_pb2.Restore) -> restore_pb2.Restore:
    """The restore that goes back, at its end."""
    assert ended.rollback_restore_id, ended
    assert not ended.HasField("rollback_error")
    back = await site.ended(ended.rollback_restore_id)
    plan = (await site.call("GetPlan", pb.GetPlanRequest(id=back.plan_id))).plan
    assert plan.undoes_restore_id == ended.id
    assert (back.actor.principal, back.comment) == ("ann", f"rolls back restore {ended.id}")
    return back


async def test_after_too_many_failures_it_goes_back_and_leaves_what_others_changed(
    site: RestoreSite,
) -> None:
    world = site.world
    plan = await stalled_plan(site, rollback={"max_failed": 0})
    restore = await site.execute(plan)
    # the stage that stalls holds for a second: somebody writes what was written before
    await until(world, {PLAIN[1]: 5.0})
    await write(world, {PLAIN[1]: 9.0})
    ended = await site.ended(restore.id)
    assert (ended.state, reason(ended)) == (
        restore_pb2.RESTORE_STATE_INTERRUPTED,
        "TOO_MANY_FAILED",
    )
    assert STALLED in ended.error.message
    results = await site.items(ended.id)
    assert results[LATER].verdict == Verdict.VERDICT_NOT_SENT
    back = await gone_back(site, ended)
    assert back.state == restore_pb2.RESTORE_STATE_COMPLETED, back
    items = await site.items(back.id)
    assert sorted(items) == sorted([*PLAIN, STALLED])  # what was not sent is not written
    assert items[PLAIN[1]].skip == restore_pb2.SKIP_REASON_CHANGED_SINCE
    for name in (PLAIN[0], PLAIN[2], STALLED):
        assert items[name].verdict == Verdict.VERDICT_VERIFIED, items[name]
    order = [items[name] for name in (STALLED, PLAIN[2], PLAIN[0])]
    for earlier, later in pairwise(order):
        assert earlier.complete_time.ToNanoseconds() <= later.send_time.ToNanoseconds()
    assert await read(world, [*PLAIN, STALLED, LATER]) == {
        **{PLAIN[0]: 0.0, PLAIN[1]: 9.0, PLAIN[2]: 2.0},
        **{STALLED: 3.0, LATER: 4.0},
    }


async def test_what_shows_at_the_end_only_counts_too_and_the_number_is_kept(
    site: RestoreSite,
) -> None:
    world = site.world
    names = [IGNORES, PLAIN[0]]

    async def ran(most: int) -> restore_pb2.Restore:
        await write(world, dict.fromkeys(names, 5.0))
        await until(world, {IGNORES: 7.0, PLAIN[0]: 5.0})
        snapshot_id = await world.take()
        stored = world.snapshots[snapshot_id].setpoint
        number = next(i for i, row in enumerate(world.rows, 1) if row.setpoint == IGNORES)
        stored.data.view("f8")[number - 1] = 5.0
        await write(world, {PLAIN[0]: 1.0})
        await until(world, {PLAIN[0]: 1.0})
        rules = {"rollback": {"max_failed": most}}
        plan = await planned(site, names, snapshot_id=snapshot_id, **rules)
        return await site.ended((await site.execute(plan)).id)

    ended = await ran(1)
    assert (ended.state, reason(ended)) == (
        restore_pb2.RESTORE_STATE_COMPLETED,
        "NOT_ALL_VERIFIED",
    )
    assert ended.rollback_restore_id == ""
    assert await read(world, [PLAIN[0]]) == {PLAIN[0]: 5.0}
    ended = await ran(0)
    assert reason(ended) == "TOO_MANY_FAILED"
    await gone_back(site, ended)
    assert await read(world, [PLAIN[0]]) == {PLAIN[0]: 1.0}


@pytest.mark.parametrize("on_guard", [True, False])
async def test_when_a_guard_breaks_it_goes_back_where_the_plan_says_so(
    site: RestoreSite, on_guard: bool
) -> None:
    world = site.world
    rollback = {"on_guard": True} if on_guard else {"max_failed": 1}
    plan = await slow_plan(site, guards=[NO_BEAM], rollback=rollback)
    restore = await site.execute(plan)
    await until(world, {RAMPED: 2.0})
    await write(world, {CURRENT: 1.5})
    ended = await site.ended(restore.id)
    assert reason(ended) == "GUARD_FAILED"
    if not on_guard:
        assert ended.rollback_restore_id == ""
        return
    back = await gone_back(site, ended)
    assert back.all_verified, back
    # by a ramp as well, and nothing of the stage that was not begun
    assert (await site.items(back.id))[RAMPED].ramp_steps_sent > 0
    assert await read(world, [RAMPED, LATER]) == {RAMPED: 0.0, LATER: 0.0}


@pytest.mark.parametrize("roll_back", [False, True])
async def test_an_abort_goes_back_only_where_it_asks(site: RestoreSite, roll_back: bool) -> None:
    world = site.world
    rollback = {"max_failed": 0, "on_guard": True}
    plan = await slow_plan(site, guards=[NO_BEAM], rollback=rollback)
    restore = await site.execute(plan)
    await until(world, {RAMPED: 2.0})
    request = pb.AbortRestoreRequest(id=restore.id, reason="beam loss", roll_back=roll_back)
    await site.call("AbortRestore", request)
    ended = await site.ended(restore.id)
    assert ended.state == restore_pb2.RESTORE_STATE_ABORTED
    if roll_back:
        back = await gone_back(site, ended)
        assert back.all_verified, back
        assert await read(world, [RAMPED]) == {RAMPED: 0.0}
    else:
        assert ended.rollback_restore_id == ""
        there = await read(world, [RAMPED])
        await asyncio.sleep(0.5)
        assert await read(world, [RAMPED]) == there != {RAMPED: 0.0}


async def test_a_rule_that_says_nothing_is_refused(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    for rule in ({}, {"max_failed": -1}):
        with pytest.raises(grpc.aio.AioRpcError, match=r"rollback\.max_failed") as refused:
            await planned(site, [LATER], snapshot_id=snapshot_id, rollback=rule)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"rollback": {"on_guard": True}}, "spec.rollback.on_guard"),
        ({"rollback": {"max_failed": 0, "on_guard": True}}, "spec.rollback.on_guard"),
        ({"rollback": {"max_failed": 2}}, "spec.rollback.max_failed"),
        ({"gates": [{"after_stage": 3, "max_failed": 0}]}, "spec.gates[0].after_stage"),
        ({"gates": [{"after_stage": 1, "must_hold": NO_BEAM}]}, "spec.gates[0].after_stage"),
        ({"edits": [{"selector": {"names": [STALLED]}, "linear": {"scale": 2.0}}]}, "edits[0]"),
        ({"edits": [{"selector": {"names": [LATER]}, "linear": {}}]}, "spec.edits[0].linear.scale"),
    ],
)
async def test_what_would_have_no_effect_is_refused_by_its_field(
    site: RestoreSite, rules: dict[str, Any], field: str
) -> None:
    set_policies(site.world, LATER={"stage": 1})
    snapshot_id = await site.world.take()
    await write(site.world, {RAMPED: 3.0, LATER: 3.0})
    await until(site.world, {RAMPED: 3.0, LATER: 3.0})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await planned(site, [RAMPED, LATER], snapshot_id=snapshot_id, **rules)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in str(refused.value.details())


GOES_BACK = (
    "EXISTS (SELECT FROM restore.restore r JOIN restore.plan p ON p.id = r.plan_id"
    " WHERE r.id = NEW.restore_id AND p.undoes_restore_id IS NOT NULL)"
)


@pytest.mark.parametrize("job_lease", [DIES_S])
async def test_killed_on_its_way_back_it_does_not_go_on_by_itself(
    dead_site: RestoreSite, tmp_path: Path
) -> None:
    site, log, world = dead_site, tmp_path / "restore.log", dead_site.world
    point = Point("journal", "BEFORE UPDATE", GOES_BACK, Verdict.VERDICT_UNKNOWN, is_sent=True)
    process = await start(site, log)
    try:
        plan = await stalled_plan(site, rollback={"max_failed": 0})
        async with standing_still(site, point) as database:
            ended = await site.ended((await site.execute(plan)).id)
            assert reason(ended) == "TOO_MANY_FAILED"
            async with asyncio.timeout(60):
                while not await database.fetchval(f"SELECT EXISTS (SELECT {WAITING})"):
                    await asyncio.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            while await database.fetchval(f"SELECT count(pg_terminate_backend(pid)) {WAITING}"):
                await asyncio.sleep(0.02)
        here = await read(world, [*PLAIN, STALLED, LATER])
        process = await start(site, log)
        back = await site.ended(ended.rollback_restore_id)
        assert back.state == restore_pb2.RESTORE_STATE_INTERRUPTED
        counts = {v.verdict: v.pvs for v in back.verdicts}
        assert counts[Verdict.VERDICT_UNKNOWN] == 1
        assert counts[Verdict.VERDICT_NOT_SENT] == len(PLAIN)
        await asyncio.sleep(1.0)
        assert await read(world, [*PLAIN, STALLED, LATER]) == here
    finally:
        if process.returncode is None:
            process.terminate()
            assert await process.wait() == 0, log
