"""A restore that was interrupted is continued by another: nothing is sent twice on its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import numpy as np
import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_runtime import status
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import read, reason, until, world_of, write
from .test_death import DIES_S, start
from .test_guards import CURRENT, DATABASE, LATER, LOST, MODE, NO_BEAM, RAMPED, slow_plan
from .test_named_points import POINTS, WAITING, standing_still

Verdict = restore_pb2.Verdict
CHUNK = 8
COUNTED = [f"N:{i}" for i in range(20)]
COUNTERS = "\n".join(
    f'record(ao, "{name}") {{ field(PINI, "YES") field(FLNK, "{name}:WRITES") }}\n'
    f'record(calc, "{name}:WRITES") {{ field(CALC, "VAL+1") }}'
    for name in COUNTED
)
"""Each setpoint with the number of times that it was written (and once for its start)."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, DATABASE + COUNTERS) as ioc:
        yield ioc


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    rows = dict.fromkeys([CURRENT, MODE, RAMPED, LATER, LOST], "")
    async with world_of(rows | {name: f"{name}:WRITES" for name in COUNTED}, parts) as found:
        yield found


async def writes_of(world: RestoreWorld) -> np.ndarray:
    """How often each of the counted setpoints was written."""
    found = await read(world, [f"{name}:WRITES" for name in COUNTED])
    return np.array(list(found.values()))


async def counted_plan(site: RestoreSite) -> restore_pb2.Plan:
    """All counted setpoints, from 0 to 1."""
    world = site.world
    await write(world, dict.fromkeys(COUNTED, 1.0))
    await until(world, dict.fromkeys(COUNTED, 1.0))
    snapshot_id = await world.take()
    await write(world, dict.fromkeys(COUNTED, 0.0))
    await until(world, dict.fromkeys(COUNTED, 0.0))
    plan = await site.plan(snapshot_id, selector={"names": COUNTED})
    assert plan.writes == len(COUNTED)
    return plan


async def resume(site: RestoreSite, restore_id: str, **more: Any) -> restore_pb2.Restore:
    request = pb.ResumeRestoreRequest(id=restore_id, **more)
    found: restore_pb2.Restore = (await site.call("ResumeRestore", request)).restore
    return found


async def refusal(awaitable: Any) -> tuple[str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    name, details = status.reason_of(caught.value)
    return str(name), dict(details)


async def kill_at(site: RestoreSite, name: str, process: Any, begin: Any) -> restore_pb2.Restore:
    """Begin a restore, and kill the service where it stands at a point."""
    async with standing_still(site, POINTS[name]) as database:
        restore: restore_pb2.Restore = await begin
        async with asyncio.timeout(60):
            while not await database.fetchval(f"SELECT EXISTS (SELECT {WAITING})"):
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        while await database.fetchval(f"SELECT count(pg_terminate_backend(pid)) {WAITING}"):
            await asyncio.sleep(0.02)
    return restore


def counts(restore: restore_pb2.Restore) -> dict[str, int]:
    return {Verdict.Name(v.verdict).removeprefix("VERDICT_"): v.pvs for v in restore.verdicts}


@pytest.mark.parametrize(("chunk", "job_lease"), [(CHUNK, DIES_S)])
@pytest.mark.parametrize("also_unknown", [False, True])
async def test_after_a_kill_what_is_left_is_sent_and_the_rest_where_a_person_says_so(
    dead_site: RestoreSite, tmp_path: Path, also_unknown: bool
) -> None:
    site, log, world = dead_site, tmp_path / "restore.log", dead_site.world
    process = await start(site, log)
    try:
        plan = await counted_plan(site)
        first = await writes_of(world)
        killed = await kill_at(site, "after the send", process, site.execute(plan))
        process = await start(site, log)
        ended = await site.ended(killed.id)
        assert counts(ended) == {"UNKNOWN": CHUNK, "NOT_SENT": len(COUNTED) - CHUNK}
        request = {"also_unknown": also_unknown, "request_id": str(killed.id)}
        # the writes of which nobody knows hold their channels until their IOC has answered
        async with asyncio.timeout(60):
            while True:
                try:
                    again = await resume(site, killed.id, **request)
                    break
                except grpc.aio.AioRpcError as error:
                    assert status.reason_of(error)[0] == "CHANNELS_HELD"
                    await asyncio.sleep(0.2)
        assert (again.continues_restore_id, again.plan_id) == (killed.id, plan.id)
        assert (await resume(site, killed.id, **request)).id == again.id
        second = await site.ended(again.id)
        assert sum(counts(second).values()) == plan.pvs
        written = await writes_of(world) - first
        if also_unknown:
            assert counts(second) == {"VERIFIED": len(COUNTED)}
            assert second.all_verified
            assert sorted(written.tolist()) == [1] * (len(COUNTED) - CHUNK) + [2] * CHUNK
        else:
            # the process was killed after the send, so what nobody knows had taken place
            assert counts(second) == {"UNKNOWN": CHUNK, "VERIFIED": len(COUNTED) - CHUNK}
            assert reason(second) == "NOT_ALL_VERIFIED"
            assert written.tolist() == [1] * len(COUNTED)
        first_restore = (await site.call("GetRestore", pb.GetRestoreRequest(id=killed.id))).restore
        assert first_restore.continued_by_restore_id == again.id
        assert first_restore.state == restore_pb2.RESTORE_STATE_INTERRUPTED
        name, details = await refusal(resume(site, killed.id))
        assert (name, details["restore_id"]) == ("WRONG_STATE", again.id)
        # the way back of the second is that of both
        undo = restore_pb2.PlanSpec(undo={"restore_id": again.id})
        back = (await site.call("CreatePlan", pb.CreatePlanRequest(spec=undo))).plan
        assert back.writes == len(COUNTED)
        items = await site.plan_items(back.id)
        assert {item.target.float64_value for item in items.values()} == {0.0}
    finally:
        if process.returncode is None:
            process.terminate()
            assert await process.wait() == 0, log


@pytest.mark.parametrize(("chunk", "job_lease"), [(CHUNK, DIES_S)])
async def test_one_that_continues_can_be_killed_and_continued_too(
    dead_site: RestoreSite, tmp_path: Path
) -> None:
    site, log, world = dead_site, tmp_path / "restore.log", dead_site.world
    process = await start(site, log)
    try:
        plan = await counted_plan(site)
        before = await writes_of(world)
        killed = await kill_at(site, "after the result", process, site.execute(plan))
        process = await start(site, log)
        assert counts(await site.ended(killed.id))["WRITTEN"] == CHUNK
        second = await kill_at(site, "after the result", process, resume(site, killed.id))
        process = await start(site, log)
        ended = await site.ended(second.id)
        assert counts(ended) == {"WRITTEN": 2 * CHUNK, "NOT_SENT": len(COUNTED) - 2 * CHUNK}
        third = await site.ended((await resume(site, second.id)).id)
        assert third.all_verified, third
        assert (await writes_of(world) - before).tolist() == [1] * len(COUNTED)
        name, _ = await refusal(resume(site, third.id))
        assert name == "WRONG_STATE"
    finally:
        if process.returncode is None:
            process.terminate()
            assert await process.wait() == 0, log


async def interrupted_ramp(site: RestoreSite) -> restore_pb2.Restore:
    """A guard breaks while a ramp climbs; another stage is not begun."""
    world = site.world
    await write(world, {CURRENT: 0.0})
    await until(world, {CURRENT: 0.0})
    plan = await slow_plan(site, guards=[NO_BEAM])
    restore = await site.execute(plan)
    await until(world, {RAMPED: 2.0})
    await write(world, {CURRENT: 1.5})
    ended = await site.ended(restore.id)
    assert reason(ended) == "GUARD_FAILED"
    return ended


async def steps_of(site: RestoreSite, restore_id: str, number: int) -> list[int]:
    database = await asyncpg.connect(site.url)
    try:
        rows = await database.fetch(
            "SELECT numbers, steps FROM restore.journal WHERE restore_id = $1 ORDER BY batch",
            restore_id,
        )
        return [
            step
            for row in rows
            for n, step in zip(row["numbers"], row["steps"] or [], strict=False)
            if n == number
        ]
    finally:
        await database.close()


async def test_a_ramp_goes_on_from_its_last_step(site: RestoreSite) -> None:
    world = site.world
    ended = await interrupted_ramp(site)
    item = (await site.items(ended.id))[RAMPED]
    if item.verdict != Verdict.VERDICT_RAMP_STOPPED:
        pytest.skip("it was cut in the middle of a step, which nobody can force")
    assert item.seen.float64_value == float(item.ramp_steps_sent)
    # the guard does not hold yet: the one that continues sends nothing, and does not count
    failed = await site.ended((await resume(site, ended.id)).id)
    assert (failed.state, reason(failed)) == (restore_pb2.RESTORE_STATE_FAILED, "GUARD_FAILED")
    assert sum(counts(failed).values()) == sum(counts(ended).values())
    await write(world, {CURRENT: 0.0})
    await until(world, {CURRENT: 0.0})
    following = await site.ended((await resume(site, ended.id)).id)
    assert following.all_verified, following
    assert await read(world, [RAMPED, LATER]) == {RAMPED: 100.0, LATER: 5.0}
    sent = await steps_of(site, ended.id, item.number)
    sent_after = await steps_of(site, following.id, item.number)
    assert sent == list(range(1, item.ramp_steps_sent + 1))
    assert sent_after == list(range(item.ramp_steps_sent + 1, 100))


async def test_what_moved_since_it_was_interrupted_is_not_written(site: RestoreSite) -> None:
    world = site.world
    ended = await interrupted_ramp(site)
    await write(world, {CURRENT: 0.0, LATER: 7.0})
    await until(world, {CURRENT: 0.0, LATER: 7.0})
    failed = await site.ended((await resume(site, ended.id)).id)
    assert (failed.state, reason(failed)) == (restore_pb2.RESTORE_STATE_FAILED, "MACHINE_MOVED")
    assert LATER in failed.error.message
    assert "interrupted" in failed.error.message
    # moved back on its way, a ramp does not begin anew: that would send steps again
    await write(world, {RAMPED: 0.0})
    await until(world, {RAMPED: 0.0})
    following = await site.ended((await resume(site, ended.id, all={})).id)
    results = await site.items(following.id)
    assert results[LATER].verdict == Verdict.VERDICT_VERIFIED
    assert results[RAMPED].verdict in (Verdict.VERDICT_RAMP_STOPPED, Verdict.VERDICT_UNKNOWN)
    assert await read(world, [RAMPED, LATER]) == {RAMPED: 0.0, LATER: 5.0}


async def test_only_an_interrupted_restore_is_continued(site: RestoreSite) -> None:
    plan = await counted_plan(site)
    ended = await site.ended((await site.execute(plan)).id)
    assert ended.all_verified
    assert (await refusal(resume(site, ended.id)))[0] == "WRONG_STATE"
