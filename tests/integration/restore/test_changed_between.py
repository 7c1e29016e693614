"""What changes between the plan and the first write, or while it writes, stops it by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_core.values import I8
from drey_restore.adapters.store import Permission, RestoreStore
from drey_restore.usecases.course import Course
from drey_runtime.jobs import Job
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import planned, read, reason, set_policies, until, world_of, write
from .test_records import put

State = restore_pb2.RestoreState
Verdict = restore_pb2.Verdict
QUICK, LOCKED, GATED, RAMPED, MODE, CURRENT = (
    f"R:{name}" for name in ("QUICK", "LOCKED", "GATED", "RAMPED", "MODE", "CURRENT")
)
ACCESS = """
ASG(DEFAULT) { RULE(1, READ) RULE(1, WRITE) }
ASG(GATED) { INPA("R:GATE") RULE(1, READ) RULE(1, WRITE) { CALC("A=0") } }
"""
DATABASE = f"""
record(ao, "{QUICK}") {{ field(PINI, "YES") }}
record(ao, "{LOCKED}") {{ field(PINI, "YES") }}
record(ao, "{GATED}") {{ field(PINI, "YES") field(ASG, "GATED") }}
record(ao, "R:GATE") {{ field(PINI, "YES") }}
record(ao, "{RAMPED}") {{ field(PINI, "YES") }}
"""


def other_database(second: str = "Run") -> str:
    return f"""
record(mbbo, "{MODE}") {{ field(PINI, "YES") field(DOL, "0") field(ZRST, "Off")
    field(ONST, "{second}") field(TWST, "Hold") }}
record(ao, "{CURRENT}") {{ field(PINI, "YES") }}
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, DATABASE, access=ACCESS) as ioc:
        yield ioc


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Ioc]:
    """An IOC of its own with what guards look at, and an enumeration."""
    with Ioc(tmp_path, other_database()) as ioc:
        yield ioc


@pytest.fixture
async def world(
    parts: tuple[Postgres, Nats, Valkey], machine: Ioc, other: Ioc
) -> AsyncIterator[RestoreWorld]:
    names = [QUICK, LOCKED, GATED, RAMPED, MODE, CURRENT]
    async with world_of(dict.fromkeys(names, ""), parts) as found:
        yield found


@dataclass(frozen=True)
class Change:
    """What happens after the plan, and how the restore ends that does not accept it, and does."""

    fields: dict[str, Any]
    pv: str
    words: str
    accepted: int


CHANGES = {
    "the value": Change({"QUICK": 3.0}, QUICK, "have changed", Verdict.VERDICT_VERIFIED),
    ".DISP": Change({"LOCKED__DISP": 1.0}, LOCKED, "do not take", Verdict.VERDICT_REFUSED),
    ".DISA": Change({"LOCKED__DISA": 1.0}, LOCKED, "do not take", Verdict.VERDICT_VERIFIED),
    "access": Change({"GATE": 1.0}, GATED, "access away", Verdict.VERDICT_REFUSED),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_what_changed_after_the_plan_is_found_before_the_first_write(
    site: RestoreSite, name: str
) -> None:
    world, change = site.world, CHANGES[name]
    names = [QUICK, LOCKED, GATED]
    await write(world, dict.fromkeys(names, 5.0))
    await until(world, dict.fromkeys(names, 5.0))
    snapshot_id = await world.take()
    await write(world, dict.fromkeys(names, 0.0))
    await until(world, dict.fromkeys(names, 0.0))
    plans = [await planned(site, names, snapshot_id=snapshot_id) for _ in range(2)]
    await put(world, **change.fields)
    if name == "access":
        await until_access(site, writable=False)
    here = await read(world, names)
    ended = await site.ended((await site.execute(plans[0])).id)
    assert (ended.state, reason(ended)) == (State.RESTORE_STATE_FAILED, "MACHINE_MOVED")
    assert change.pv in ended.error.message
    assert change.words in ended.error.message
    assert await read(world, names) == here
    # whoever accepts it sees what the IOC makes of it
    ended = await site.ended((await site.execute(plans[1], all=pb.AllMoved())).id)
    results = await site.items(ended.id)
    assert results[change.pv].verdict == change.accepted, results[change.pv]
    others = [each for each in names if each != change.pv]
    assert {results[each].verdict for each in others} == {Verdict.VERDICT_VERIFIED}


async def until_access(site: RestoreSite, *, writable: bool) -> None:
    """The service has heard of the access: its plans leave the PV out, or do not."""
    snapshot_id = await site.world.take()
    spec = {"edits": [{"selector": {"names": [GATED]}, "value": {"float64_value": 77.0}}]}
    async with asyncio.timeout(60):
        while True:
            plan = await planned(site, [GATED], snapshot_id=snapshot_id, **spec)
            if bool(plan.writes) == writable:
                return
            await asyncio.sleep(0.1)


async def ramping(site: RestoreSite, after: str = MODE, **rules: Any) -> restore_pb2.Restore:
    """A restore on its ramp; one of the other IOC comes after it, the enumeration say."""
    world = site.world
    policies: dict[str, Any] = {"RAMPED": {"ramp_step": 1.0, "ramp_rate": 5.0}}
    set_policies(world, **policies, **{after.partition(":")[2]: {"stage": 1}})
    await write(world, {RAMPED: 20.0, after: 1.0})
    await until(world, {RAMPED: 20.0, after: 1.0})
    snapshot_id = await world.take()
    await write(world, {RAMPED: 0.0, after: 0.0})
    await until(world, {RAMPED: 0.0, after: 0.0})
    plan = await planned(site, [RAMPED, after], snapshot_id=snapshot_id, **rules)
    restore = await site.execute(plan)
    await until(world, {RAMPED: 2.0})
    return restore


COMES_BACK = {
    # 1 was Run when the plan was made
    "other labels": (MODE, other_database("Explode")),
    "no enumeration": (MODE, f'record(ao, "{MODE}") {{ field(PINI, "YES") }}'),
    "an enumeration": (CURRENT, other_database().partition("record(ao")[0].replace(MODE, CURRENT)),
}


@pytest.mark.parametrize("name", COMES_BACK)
async def test_an_ioc_that_comes_back_in_between_with_another_meaning_gets_no_value(
    site: RestoreSite, other: Ioc, name: str
) -> None:
    world, (pv, database) = site.world, COMES_BACK[name]
    restore = await ramping(site, pv)
    await site.call("PauseRestore", pb.PauseRestoreRequest(id=restore.id))
    await come_back(world, other, database, pv)
    await site.call("ResumeRestore", pb.ResumeRestoreRequest(id=restore.id))
    ended = await site.ended(restore.id)
    results = await site.items(ended.id)
    assert (await read(world, [pv])) == {pv: 0.0}
    if results[pv].verdict == Verdict.VERDICT_DISCONNECTED:
        return  # the service had not found it again, so that nothing was sent
    assert (ended.state, reason(ended)) == (State.RESTORE_STATE_INTERRUPTED, "LABELS_MOVED")
    assert pv in ended.error.message
    assert results[pv].verdict == Verdict.VERDICT_NOT_SENT
    assert results[RAMPED].verdict == Verdict.VERDICT_VERIFIED


def after_intent(
    monkeypatch: pytest.MonkeyPatch, number: int, happens: Callable[[], Awaitable[None]]
) -> None:
    """Let something happen when the intent of batch `number` is durable, before it is sent."""
    journal_intent = RestoreStore.journal_intent

    async def announce(
        store: RestoreStore, restore_id: str, job: Job, batch: int, *args: Any, **rest: Any
    ) -> Permission:
        permission = await journal_intent(store, restore_id, job, batch, *args, **rest)
        if batch == number:
            await happens()
        return permission

    monkeypatch.setattr(RestoreStore, "journal_intent", announce)


async def come_back(world: RestoreWorld, ioc: Ioc, database: str | None, pv: str) -> None:
    """The IOC of a PV is started anew, and found."""
    ioc.kill()
    ioc.start(database)
    slots = world.slots[[world.names.index(pv)]]
    assert (await world.table.wait_connected(slots, 60)).all()
    await until(world, {pv: 0.0})


async def stored_at_one(world: RestoreWorld, pv: str) -> str:
    """A snapshot of the PV at 1.0, where it is not any more."""
    await write(world, {pv: 1.0})
    await until(world, {pv: 1.0})
    snapshot_id = await world.take()
    await write(world, {pv: 0.0})
    await until(world, {pv: 0.0})
    return snapshot_id


@pytest.mark.parametrize("name", COMES_BACK)
async def test_an_ioc_that_comes_back_between_the_last_look_and_the_write_gets_no_value(
    site: RestoreSite, other: Ioc, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, (pv, database) = site.world, COMES_BACK[name]
    plan = await planned(site, [pv], snapshot_id=await stored_at_one(world, pv))
    after_intent(monkeypatch, 1, partial(come_back, world, other, database, pv))
    restore = await site.execute(plan)
    ended = await site.ended(restore.id)
    result = (await site.items(ended.id))[pv]
    assert (await read(world, [pv])) == {pv: 0.0}
    if result.verdict != Verdict.VERDICT_DISCONNECTED:  # the service had found it again
        assert (ended.state, reason(ended)) == (State.RESTORE_STATE_INTERRUPTED, "LABELS_MOVED")
        assert result.verdict == Verdict.VERDICT_NOT_SENT


async def test_a_ramp_whose_ioc_comes_back_before_a_step_as_an_enumeration_gets_none(
    site: RestoreSite, other: Ioc, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, (pv, database) = site.world, COMES_BACK["an enumeration"]
    set_policies(world, CURRENT={"ramp_step": 0.25, "ramp_rate": 5.0})
    plan = await planned(site, [pv], snapshot_id=await stored_at_one(world, pv))
    after_intent(monkeypatch, 2, partial(come_back, world, other, database, pv))
    ended = await site.ended((await site.execute(plan)).id)
    assert (await read(world, [pv])) == {pv: 0.0}
    verdict = (await site.items(ended.id))[pv].verdict
    assert verdict not in {Verdict.VERDICT_VERIFIED, Verdict.VERDICT_WRITTEN}
    if verdict != Verdict.VERDICT_DISCONNECTED:  # the service had found it again
        assert (ended.state, reason(ended)) == (State.RESTORE_STATE_INTERRUPTED, "LABELS_MOVED")


async def test_nothing_is_sent_to_a_new_connection_once_it_is_to_stop(
    site: RestoreSite, other: Ioc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is aborted while what came back, and means the same, is looked at."""
    world = site.world
    plan = await planned(site, [CURRENT], snapshot_id=await stored_at_one(world, CURRENT))
    after_intent(monkeypatch, 1, partial(come_back, world, other, None, CURRENT))
    relabelled_since, looks = Course.relabelled_since, 0

    async def look_and_abort(course: Course, rows: I8) -> I8:
        nonlocal looks
        looks += 1
        relabelled = await relabelled_since(course, rows)
        if looks == 2:
            await site.call("AbortRestore", pb.AbortRestoreRequest(id=course.restore.id))
            while not course.is_stopping():
                await asyncio.sleep(0.02)
        return relabelled

    monkeypatch.setattr(Course, "relabelled_since", look_and_abort)
    ended = await site.ended((await site.execute(plan)).id)
    assert looks == 2, "it was connected anew, and looked at"
    assert ended.state == State.RESTORE_STATE_ABORTED
    assert (await read(world, [CURRENT])) == {CURRENT: 0.0}


@pytest.mark.parametrize("name", COMES_BACK)
async def test_another_meaning_at_the_start_cannot_be_accepted(
    site: RestoreSite, other: Ioc, name: str
) -> None:
    world, (pv, database) = site.world, COMES_BACK[name]
    plan = await planned(site, [pv], snapshot_id=await stored_at_one(world, pv))
    await come_back(world, other, database, pv)
    ended = await site.ended((await site.execute(plan, all=pb.AllMoved())).id)
    if reason(ended) != "DISCONNECTED":  # the service had not found it again
        assert (ended.state, reason(ended)) == (State.RESTORE_STATE_FAILED, "LABELS_MOVED")
    assert (await read(world, [pv])) == {pv: 0.0}


GUARD = {"expression": f'pv["{CURRENT}"] < 0.1', "description": "no beam"}


async def test_a_guard_whose_ioc_dies_stops_new_writes(site: RestoreSite, other: Ioc) -> None:
    world = site.world
    restore = await ramping(site, guards=[GUARD])
    other.kill()
    ended = await site.ended(restore.id)
    assert (ended.state, reason(ended)) == (State.RESTORE_STATE_INTERRUPTED, "GUARD_FAILED")
    assert "no beam" in ended.error.message
    assert f"{CURRENT} is not connected" in ended.error.message
    there = await read(world, [RAMPED])
    assert there[RAMPED] < 20.0
    await asyncio.sleep(0.5)
    assert await read(world, [RAMPED]) == there


async def nothing(site: RestoreSite, other: Ioc) -> None:
    """Its IOC is gone."""
    other.kill()


async def never_set(site: RestoreSite, other: Ioc) -> None:
    """Its IOC comes back, and the record has no value yet: UDF, and so INVALID."""
    other.kill()
    other.start(f'{other_database().partition("record(ao")[0]} record(ao, "{CURRENT}") {{}}')


UNKNOWN: dict[str, tuple[Callable[[RestoreSite, Ioc], Any], str]] = {
    "disconnected": (nothing, "is not connected"),
    "INVALID": (never_set, "is INVALID"),
}


@pytest.mark.parametrize("name", UNKNOWN)
async def test_a_guard_that_is_not_known_at_the_start_lets_nothing_begin(
    site: RestoreSite, other: Ioc, name: str
) -> None:
    world, (happens, words) = site.world, UNKNOWN[name]
    await write(world, {QUICK: 5.0})
    await until(world, {QUICK: 5.0})
    snapshot_id = await world.take()
    await write(world, {QUICK: 0.0})
    await until(world, {QUICK: 0.0})
    plan = await planned(site, [QUICK], snapshot_id=snapshot_id, guards=[GUARD])
    await happens(site, other)
    ended = await site.ended((await site.execute(plan)).id)
    assert (ended.state, reason(ended)) == (State.RESTORE_STATE_FAILED, "GUARD_FAILED")
    assert words in ended.error.message
    assert await read(world, [QUICK]) == {QUICK: 0.0}
