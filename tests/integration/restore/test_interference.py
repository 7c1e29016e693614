"""Somebody else writes while a restore does: it is seen, told, and judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from pathlib import Path

import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import planned, reason, set_policies, until, world_of, write

Verdict = restore_pb2.Verdict
QUICK = [f"I:QUICK{i}" for i in range(4)]
RAMPED, MARKER = "I:RAMPED", "I:MARKER"
DATABASE = "\n".join(
    f'record(ao, "{name}") {{ field(PINI, "YES") field(MDEL, "-1") }}'
    for name in [*QUICK, RAMPED, MARKER]
)
HOLDS_S = 600.0
"""How long the ramp of the last stage would take: the others are watched meanwhile."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, DATABASE) as ioc:
        yield ioc


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    async with world_of(dict.fromkeys([*QUICK, RAMPED, MARKER], ""), parts) as found:
        yield found


async def written_and_watched(site: RestoreSite) -> restore_pb2.Restore:
    """A restore that has written the quick ones, and climbs a ramp for as long as it may."""
    world = site.world
    set_policies(world, RAMPED={"ramp_step": 1.0, "ramp_rate": 100 / HOLDS_S, "stage": 1})
    for i in range(1, len(QUICK) + 1):
        world.tolerances[i] = (0.5, 0.0)
    world.version += 1
    await world.publish()
    names = [*QUICK, MARKER, RAMPED]
    await write(world, dict.fromkeys(names, 100.0))
    await until(world, dict.fromkeys(names, 100.0))
    snapshot_id = await world.take()
    await write(world, dict.fromkeys(names, 0.0))
    await until(world, dict.fromkeys(names, 0.0))
    plan = await planned(site, names, snapshot_id=snapshot_id)
    restore = await site.execute(plan)
    await until(world, {MARKER: 100.0, RAMPED: 1.0})
    await until_marked(site, restore.id)
    return restore


async def until_marked(site: RestoreSite, restore_id: str) -> None:
    """Until the restore has seen what all its channels were by now.

    The IOC holds a write long before whoever watches has heard of it, and of values that follow
    each other at once the last is heard. A change that is seen says that all before it were: so
    one of the channels is changed until it is.
    """
    seen = asyncio.create_task(until_interfered(site, restore_id, 1))
    for value in cycle((7.0, 8.0)):
        await write(site.world, {MARKER: value})
        done, _ = await asyncio.wait({seen}, timeout=0.2)
        if done:
            await seen
            return


async def until_interfered(site: RestoreSite, restore_id: str, pvs: int) -> None:
    """By the stream of those who watch it."""
    watch = site.stub.WatchRestore(
        pb.WatchRestoreRequest(id=restore_id), timeout=120, metadata=site.metadata()
    )
    async for message in watch:
        if message.restore.interfered >= pvs:
            watch.cancel()
            return
    raise AssertionError("it ended before")


async def test_a_change_that_is_not_its_own_is_told_while_it_runs_and_judged(
    site: RestoreSite,
) -> None:
    world = site.world
    restore = await written_and_watched(site)
    # within the tolerance, and the value once more: nothing
    await write(world, {QUICK[3]: 100.3})
    await write(world, {QUICK[3]: 100.0})
    # back to what was there before, by somebody else
    await write(world, {QUICK[0]: 0.0})
    await until_interfered(site, restore.id, 2)
    # another value, and the target again
    await write(world, {QUICK[1]: 7.0})
    await until_interfered(site, restore.id, 3)
    await write(world, {QUICK[1]: 100.0})
    await until(world, {QUICK[1]: 100.0})
    # the ramp itself: it stops
    await write(world, {RAMPED: 50.0})
    ended = await site.ended(restore.id)
    assert (ended.state, reason(ended)) == (
        restore_pb2.RESTORE_STATE_COMPLETED,
        "NOT_ALL_VERIFIED",
    )
    results = await site.items(ended.id)
    assert ended.interfered == 4
    assert results[QUICK[0]].verdict == Verdict.VERDICT_NOT_REACHED
    assert results[QUICK[0]].interference.float64_value == 0.0
    assert results[QUICK[1]].verdict == Verdict.VERDICT_VERIFIED
    assert results[QUICK[1]].interference.float64_value == 7.0
    assert results[QUICK[1]].interferences == 1
    assert "changed it to 7.0" in results[QUICK[1]].explanation
    begun, over = restore.create_time.ToNanoseconds(), ended.end_time.ToNanoseconds()
    assert begun < results[QUICK[1]].interference.receive_time_ns < over
    assert results[RAMPED].verdict == Verdict.VERDICT_RAMP_STOPPED
    assert results[RAMPED].interference.float64_value == 50.0
    for name in QUICK[2:]:
        assert results[name].verdict == Verdict.VERDICT_VERIFIED
        assert not results[name].HasField("interference")
        assert results[name].interferences == 0


async def test_steps_of_its_own_ramp_are_none(site: RestoreSite) -> None:
    world = site.world
    set_policies(world, RAMPED={"ramp_step": 10.0, "ramp_rate": 1000.0}, QUICK0={"stage": 1})
    await write(world, {RAMPED: 100.0, QUICK[0]: 1.0})
    await until(world, {RAMPED: 100.0, QUICK[0]: 1.0})
    snapshot_id = await world.take()
    await write(world, {RAMPED: 0.0, QUICK[0]: 0.0})
    await until(world, {RAMPED: 0.0, QUICK[0]: 0.0})
    plan = await planned(site, [RAMPED, QUICK[0]], snapshot_id=snapshot_id)
    ended = await site.ended((await site.execute(plan)).id)
    assert ended.all_verified
    assert ended.interfered == 0


async def test_an_ioc_that_comes_back_with_other_values_is_seen(
    site: RestoreSite, machine: Ioc
) -> None:
    """Nobody wrote, and yet what was restored is not there any more."""
    restore = await written_and_watched(site)
    machine.kill()
    machine.start(DATABASE)
    await until_interfered(site, restore.id, len(QUICK) + 1)
    await site.call("AbortRestore", pb.AbortRestoreRequest(id=restore.id))
    ended = await site.ended(restore.id)
    results = await site.items(ended.id)
    for name in QUICK:
        assert results[name].interference.float64_value == 0.0
        assert results[name].verdict != Verdict.VERDICT_VERIFIED
    assert sum(v.pvs for v in ended.verdicts) == len(QUICK) + 2
