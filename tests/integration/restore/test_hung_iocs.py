"""An IOC that hangs: its circuits stay open, and nothing is told or answered on them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from drey.restore.v1 import restore_pb2
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import planned, read, reason, seconds, set_policies, until, world_of, write

Verdict = restore_pb2.Verdict

MANY = [f"B:SET{i}" for i in range(40)]
QUICK, LAZY, CLIMBS = "B:QUICK", "B:LAZY", "B:CLIMBS"
BEAM, DEAD_BAND, STUCK = "H:BEAM", "H:DEADBAND", "H:STUCK"


def plain(*names: str) -> str:
    return "\n".join(f'record(ao, "{name}") {{ field(PINI, "YES") }}' for name in names)


HEALTHY = (
    plain(*MANY, LAZY, CLIMBS)
    + f"""
record(ao, "{QUICK}") {{ field(PINI, "YES") }}
record(calcout, "{QUICK}:DELAY") {{ field(INPA, "{QUICK} CP") field(CALC, "A") field(ODLY, "0.3")
    field(OUT, "{QUICK}:RB PP") }}
record(ao, "{QUICK}:RB") {{ field(PINI, "YES") }}
"""
)
HANGS = (
    plain(BEAM, STUCK, f"{LAZY}:RB", f"{LAZY}:DONE")
    + f"""
record(ao, "{DEAD_BAND}") {{ field(PINI, "YES") field(MDEL, "10") }}
"""
)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, HEALTHY) as ioc:
        yield ioc


@pytest.fixture
def hung(tmp_path: Path, machine: Ioc) -> Iterator[Ioc]:
    with Ioc(tmp_path, HANGS) as ioc:
        yield ioc


@pytest.fixture
async def world(
    parts: tuple[Postgres, Nats, Valkey], machine: Ioc, hung: Ioc
) -> AsyncIterator[RestoreWorld]:
    readbacks = {QUICK: f"{QUICK}:RB", LAZY: f"{LAZY}:RB"}
    names = [*MANY, QUICK, LAZY, CLIMBS, BEAM, DEAD_BAND, STUCK]
    async with world_of({name: readbacks.get(name, "") for name in names}, parts) as found:
        yield found


@contextmanager
def stopped(ioc: Ioc) -> Iterator[None]:
    os.kill(ioc.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(ioc.pid, signal.SIGCONT)


async def plan_to(
    site: RestoreSite, values: dict[str, float], also: dict[str, float], **rules: Any
) -> restore_pb2.Plan:
    """From zero to `values`; `also` has what else was so when they were stored."""
    world = site.world
    for factor in (1, 0):
        moved = {name: factor * value for name, value in (values | also).items()}
        await write(world, moved)
        await until(world, moved)
        if factor:
            snapshot_id = await world.take()
    return await planned(site, list(values), snapshot_id=snapshot_id, **rules)


async def long_plan(site: RestoreSite, **rules: Any) -> restore_pb2.Plan:
    """Forty stages that wait for two seconds each."""
    policies = {
        name.partition(":")[2]: {"stage": i, "settle": seconds(2), "timeout": seconds(60)}
        for i, name in enumerate(MANY)
    }
    set_policies(site.world, **policies)
    return await plan_to(site, dict.fromkeys(MANY, 1.0), {}, **rules)


async def check_stopped(site: RestoreSite, ended: restore_pb2.Restore) -> None:
    """By its guard; what was not sent is as it was."""
    assert (ended.state, reason(ended)) == (restore_pb2.RESTORE_STATE_INTERRUPTED, "GUARD_FAILED")
    results = await site.items(ended.id)
    unsent = [name for name in MANY if results[name].verdict == Verdict.VERDICT_NOT_SENT]
    assert MANY[-1] in unsent
    assert MANY[0] not in unsent
    assert await read(site.world, unsent) == dict.fromkeys(unsent, 0.0)


@pytest.mark.parametrize("more_settings", [{"guard_silence": 1.5}])
async def test_a_guard_whose_ioc_hangs_stops_new_writes_by_name(
    site: RestoreSite, hung: Ioc
) -> None:
    guards = [{"expression": f'pv["{BEAM}"] < 0.1', "description": "no beam"}]
    restore = await site.execute(await long_plan(site, guards=guards))
    await until(site.world, {MANY[0]: 1.0})
    with stopped(hung):
        ended = await site.ended(restore.id)
    await check_stopped(site, ended)
    assert f"'no beam': {BEAM} has not answered for 1.5 s" in ended.error.message
    assert f":{hung.port})" in ended.error.message


async def test_a_guard_that_breaks_within_a_dead_band_stops_new_writes(site: RestoreSite) -> None:
    guards = [{"expression": f'pv["{DEAD_BAND}"] < 0.1'}]
    restore = await site.execute(await long_plan(site, guards=guards))
    await until(site.world, {MANY[0]: 1.0})
    await write(site.world, {DEAD_BAND: 5.0})
    ended = await site.ended(restore.id)
    await check_stopped(site, ended)
    assert f"{DEAD_BAND} is 5.0" in ended.error.message


LAZY_POLICIES = {
    "readback": {"completion": "COMPLETION_READBACK"},
    "done channel": {"completion": "COMPLETION_DONE_CHANNEL", "done_channel": f"{LAZY}:DONE"},
}


@pytest.mark.parametrize("completes_by", LAZY_POLICIES)
async def test_what_completes_by_a_hung_ioc_is_late_and_holds_up_no_other(
    site: RestoreSite, hung: Ioc, completes_by: str
) -> None:
    """All in one batch, of one manner."""
    lazy = LAZY_POLICIES[completes_by] | {"timeout": seconds(4)}
    quick = lazy | ({"done_channel": f"{QUICK}:RB"} if "done_channel" in lazy else {})
    set_policies(site.world, QUICK=quick, LAZY=lazy)
    values = {QUICK: 1.0, LAZY: 1.0}
    plan = await plan_to(site, values, {f"{QUICK}:RB": 1.0, f"{LAZY}:RB": 1.0})
    with stopped(hung):
        restore = await site.execute(plan, write_timeout=seconds(60), verify_timeout=seconds(1))
        ended = await site.ended(restore.id)
    results = await site.items(ended.id)
    assert results[QUICK].verdict == Verdict.VERDICT_VERIFIED, results[QUICK]
    assert results[LAZY].verdict == Verdict.VERDICT_TIMED_OUT, results[LAZY]


async def test_a_ramp_of_a_hung_ioc_stops_and_holds_up_no_other(
    site: RestoreSite, hung: Ioc
) -> None:
    ramp = {"ramp_step": 1.0, "settle": seconds(0.2), "timeout": seconds(6)}
    set_policies(site.world, CLIMBS=ramp, STUCK=ramp)
    plan = await plan_to(site, {CLIMBS: 15.0, STUCK: 15.0}, {})
    restore = await site.execute(plan, verify_timeout=seconds(1))
    await until(site.world, {CLIMBS: 1.0})
    with stopped(hung):
        ended = await site.ended(restore.id)
    results = await site.items(ended.id)
    assert results[CLIMBS].verdict == Verdict.VERDICT_VERIFIED, results[CLIMBS]
    # late is a step that was not reached, or one whose write was not answered
    late = (Verdict.VERDICT_RAMP_STOPPED, Verdict.VERDICT_TIMED_OUT)
    assert results[STUCK].verdict in late, results[STUCK]
    assert results[STUCK].ramp_steps_sent < 14


async def test_ramps_go_on_while_the_step_of_a_hung_ioc_is_waited_for(
    site: RestoreSite, hung: Ioc
) -> None:
    ramp = {"ramp_step": 1.0, "settle": seconds(0.2), "timeout": seconds(600)}
    set_policies(site.world, CLIMBS=ramp, STUCK=ramp)
    plan = await plan_to(site, {CLIMBS: 15.0, STUCK: 15.0}, {})
    restore = await site.execute(plan)
    await until(site.world, {CLIMBS: 1.0})
    with stopped(hung):
        await until(site.world, {CLIMBS: 15.0})
    ended = await site.ended(restore.id)
    results = await site.items(ended.id)
    assert results[CLIMBS].verdict == Verdict.VERDICT_VERIFIED, results[CLIMBS]
    # a read between two steps does not wait as long as a step
    assert results[STUCK].verdict in (
        Verdict.VERDICT_VERIFIED,
        Verdict.VERDICT_RAMP_STOPPED,
    ), results[STUCK]
