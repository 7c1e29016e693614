"""How restores end whose IOC is slow, hangs, or is gone; and what may happen afterwards.

The service is a process of its own: its circuits are not those by which the test looks.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_core.values import Columns
from drey_runtime import status
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import read, reason, world_of
from .test_death import start

Verdict = restore_pb2.Verdict
FAST = [f"T:{i}" for i in range(20)]
SLOW = "T:SLOW.A"
SLOW_S = 20


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    """Ordinary setpoints, and one whose record takes its time to say that it is done."""
    records = [f'record(ao, "{name}") {{}}' for name in FAST]
    records.append('record(calcout, "T:SLOW") { field(CALC, "A") }')
    with Ioc(tmp_path, "\n".join(records)) as ioc:
        yield ioc


def make_slow(machine: Ioc, seconds: float = SLOW_S) -> None:
    """What is written to the slow record from now on takes so long; 0: no longer than others."""
    machine.shell(f'dbpf "T:SLOW.ODLY" {seconds}')


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    async with world_of(dict.fromkeys([*FAST, SLOW], ""), parts) as found:
        yield found


@pytest.fixture(params=["aioca", "native"])
async def running(
    dead_site: RestoreSite, request: Any, tmp_path: Path
) -> AsyncIterator[RestoreSite]:
    """The service in its own process, with short patience for what does not answer."""
    dead_site.settings = dead_site.settings.model_copy(
        update={"channel_access": request.param, "read_timeout": 1.0}
    )
    process = await start(dead_site, tmp_path / "restore.log")
    try:
        yield dead_site
    finally:
        process.terminate()
        assert await process.wait() == 0, tmp_path / "restore.log"


async def write(site: RestoreSite, names: Sequence[str], value: float) -> None:
    """By the test's own circuit, without waiting for completion."""
    slots = np.array([site.world.slots[site.world.names.index(n)] for n in names], np.int64)
    columns = Columns.from_values(slots, [value] * len(names), [None] * len(names))
    codes = await site.world.table.write_values(slots, columns, 60, completion=False)
    assert (codes == 1).all()
    while set((await values(site, names)).values()) != {value}:
        await asyncio.sleep(0.05)


async def values(site: RestoreSite, names: Sequence[str]) -> dict[str, float]:
    return await read(site.world, list(names))


@asynccontextmanager
async def watched(site: RestoreSite, name: str) -> AsyncIterator[int]:
    """A channel beside those of the world."""
    slots = await site.world.table.add_channels([name])
    assert (await site.world.table.wait_connected(slots, 60)).all()
    try:
        yield int(slots[0])
    finally:
        await site.world.table.remove_slots(slots)


async def until_done(site: RestoreSite) -> None:
    """The slow record has finished all that it began."""
    async with watched(site, "T:SLOW.PACT") as slot, asyncio.timeout(120):
        while (await site.world.table.read_values(np.array([slot]), 60)).values.data[0]:
            await asyncio.sleep(0.1)


def counts(restore: restore_pb2.Restore) -> dict[str, int]:
    return {Verdict.Name(v.verdict).removeprefix("VERDICT_"): v.pvs for v in restore.verdicts}


async def refusal(awaitable: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value


async def executed(site: RestoreSite, plan: restore_pb2.Plan, **more: Any) -> restore_pb2.Restore:
    return await site.ended((await site.execute(plan, **more)).id)


async def test_a_slow_put_callback_delays_no_restore_and_nothing_fires_after_the_end(
    running: RestoreSite, machine: Ioc
) -> None:
    site = running
    snapshot_id = await site.world.take()
    await write(site, [*FAST, SLOW], 1.0)
    make_slow(machine)
    plan = await site.plan(snapshot_id)
    again = await site.plan(snapshot_id)
    first = await executed(site, plan, write_timeout={"seconds": 1})
    assert first.state == restore_pb2.RESTORE_STATE_COMPLETED
    assert counts(first) == {"VERIFIED": len(FAST), "TIMED_OUT": 1}
    assert reason(first) == "NOT_ALL_VERIFIED"
    if site.settings.channel_access == "aioca":
        # it cannot close a channel: the write is held until its answer comes
        assert first.may_still_fire == 1
        name, details = status.reason_of(await refusal(site.execute(again, all=pb.AllMoved())))
        assert (name, details["pv"]) == ("CHANNELS_HELD", SLOW)
        async with asyncio.timeout(120):
            request = pb.GetRestoreRequest(id=first.id)
            while (await site.call("GetRestore", request)).restore.may_still_fire:
                await asyncio.sleep(0.1)
        return
    assert first.may_still_fire == 0
    item = (await site.items(first.id))[SLOW]
    assert item.seen.float64_value == item.target.float64_value == 0.0
    assert "shows the target" in item.explanation
    # its record is busy for seconds: the next write of it waits at the IOC, and no other does
    await write(site, [*FAST, SLOW], 2.0)
    second = await executed(site, await site.plan(snapshot_id), write_timeout={"seconds": 1})
    assert counts(second) == {"VERIFIED": len(FAST), "TIMED_OUT": 1}
    assert second.may_still_fire == 0
    item = (await site.items(second.id))[SLOW]
    assert item.seen.float64_value == 2.0
    assert "cannot take place any more" in item.explanation
    after = await values(site, [*FAST, SLOW])
    make_slow(machine, 0)  # one that waits at the IOC is done with this one
    await until_done(site)
    assert await values(site, [*FAST, SLOW]) == after


async def test_what_may_still_fire_is_told_and_held_until_its_ioc_has_answered(
    running: RestoreSite, machine: Ioc
) -> None:
    site = running
    snapshot_id = await site.world.take()
    await write(site, [*FAST, SLOW], 1.0)
    make_slow(machine)
    everything = await site.plan(snapshot_id)
    again, one = [
        await site.plan(snapshot_id, **more) for more in ({}, {"selector": {"names": FAST[:1]}})
    ]
    restore = await site.execute(everything, write_timeout={"seconds": 3})
    while set((await values(site, [*FAST, SLOW])).values()) != {0.0}:
        await asyncio.sleep(0.02)
    os.kill(machine.pid, signal.SIGSTOP)
    try:
        ended = await site.ended(restore.id)
        assert counts(ended)["TIMED_OUT"] == 1
        assert ended.may_still_fire == 1
        item = (await site.items(restore.id))[SLOW]
        assert item.may_still_fire
        assert "may still take place" in item.explanation
        # the same PV: refused at once, by name
        error = await refusal(site.execute(again, all=pb.AllMoved()))
        name, details = status.reason_of(error)
        assert (name, details["pv"], details["held_by"]) == ("CHANNELS_HELD", SLOW, "ann")
        # another on the same circuit, which is silent: refused when it is looked at
        other = await executed(site, one, all=pb.AllMoved())
        assert other.state == restore_pb2.RESTORE_STATE_FAILED
        assert reason(other) == "CHANNELS_HELD"
        assert SLOW in other.error.message
    finally:
        os.kill(machine.pid, signal.SIGCONT)
    async with asyncio.timeout(60):
        while (
            await site.call("GetRestore", pb.GetRestoreRequest(id=restore.id))
        ).restore.may_still_fire:
            await asyncio.sleep(0.1)
    assert not (await site.items(restore.id))[SLOW].may_still_fire
    await until_done(site)
    make_slow(machine, 0)
    free = await executed(site, again, all=pb.AllMoved(), write_timeout={"seconds": 30})
    assert counts(free).get("VERIFIED", 0) == len(FAST) + 1, free


async def test_more_unreachable_than_allowed_are_refused_before_the_first_write(
    running: RestoreSite, machine: Ioc
) -> None:
    site = running
    snapshot_id = await site.world.take()
    await write(site, FAST[:3], 1.0)
    plan = await site.plan(snapshot_id)
    again = await site.plan(snapshot_id)
    assert plan.writes == 3
    machine.kill()
    machine.start(f'record(ao, "{FAST[2]}") {{ field(VAL, "1") field(UDF, "0") }}')
    async with asyncio.timeout(90):  # until the service has found it again
        while not (await site.plan_items((await site.plan(snapshot_id)).id))[FAST[2]].HasField(
            "target"
        ):
            await asyncio.sleep(0.2)
    slots = np.array([site.world.slots[site.world.names.index(FAST[2])]], np.int64)
    assert (await site.world.table.wait_connected(slots, 60)).all()
    ended = await executed(site, plan, max_unreachable=1)
    assert (ended.state, reason(ended)) == (restore_pb2.RESTORE_STATE_FAILED, "DISCONNECTED")
    assert f"2 of the PVs to write are not connected or do not answer, the first is {FAST[0]}" in (
        ended.error.message
    )
    assert (await values(site, FAST[2:3]))[FAST[2]] == 1.0
    ended = await executed(site, again, max_unreachable=2, all=pb.AllMoved())
    assert counts(ended)["DISCONNECTED"] == 2
    assert (await values(site, FAST[2:3]))[FAST[2]] == 0.0


async def test_gone_before_the_first_write_it_says_that_it_was_disconnected(
    running: RestoreSite, machine: Ioc
) -> None:
    site = running
    snapshot_id = await site.world.take()
    await write(site, FAST[:1], 1.0)
    plan = await site.plan(snapshot_id)
    assert plan.writes == 1
    machine.kill()
    ended = await executed(site, plan)
    assert ended.state == restore_pb2.RESTORE_STATE_FAILED
    assert reason(ended) == "DISCONNECTED"
    assert FAST[0] in ended.error.message
    assert counts(ended)["DISCONNECTED"] == 1
    assert "nothing was sent" in (await site.items(ended.id))[FAST[0]].explanation
