"""The whole way on a real IOC: plan, execute, verify; and what may come in between."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc
import nats
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from drey.catalog.v1 import catalog_pb2
from drey.common.v1 import errors_pb2, selector_pb2, state_pb2, value_pb2
from drey.events.v1.instances_pb2 import BreakersForced
from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_client.plan_digest import plan_digest
from drey_core.breaker import HELD_OPEN
from drey_restore.usecases import beginning
from drey_runtime import status
from drey_testing.restore_world import RestoreSite

Skip = restore_pb2.SkipReason
Verdict = restore_pb2.Verdict


def verdicts(restore: restore_pb2.Restore) -> dict[str, int]:
    return {Verdict.Name(v.verdict).removeprefix("VERDICT_"): v.pvs for v in restore.verdicts}


async def refused(awaitable: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable  # type: ignore[misc]
    return status.reason_of(caught.value)[0]


@pytest.mark.parametrize("shards", [1, 3])
async def test_disturbed_magnets_are_put_back_and_verified(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(40, seed=3)
    await site.world.publish()
    plan = await site.plan(snapshot_id)
    assert plan.writes == 40
    assert plan.pvs == len(site.world.rows)
    assert plan.pvs == plan.writes + sum(s.pvs for s in plan.skips)
    items = await site.plan_items(plan.id, writes_only=True)
    assert sorted(items) == sorted(moved)
    one = items[moved[0]]
    assert one.delta == pytest.approx(one.target.float64_value - one.current.float64_value)
    restore = await site.execute(plan)
    ended = await site.ended(restore.id)
    assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED, ended
    assert verdicts(ended)["VERIFIED"] == 40
    assert sum(verdicts(ended).values()) == plan.pvs
    assert not ended.all_verified  # some were left out
    seen = await site.machine.read_channels(moved)
    for name, item in items.items():
        assert seen[name]["value"] == pytest.approx(item.target.float64_value)
    results = await site.items(restore.id)
    assert len(results) == plan.pvs
    assert results[moved[0]].readback_reached
    assert results[moved[0]].epics_status == "ECA_NORMAL"
    assert results[moved[0]].seen.float64_value == pytest.approx(one.target.float64_value)


@pytest.mark.parametrize("shards", [1, 3])
async def test_every_reason_is_given(site: RestoreSite) -> None:
    world = site.world
    snapshot_id = await world.take()
    items = await site.plan_items((await site.plan(snapshot_id)).id)
    by_kind = {row.kind: items[row.setpoint or row.readback] for row in world.rows}
    assert by_kind["dead"].skip == Skip.SKIP_REASON_NOT_IN_SNAPSHOT
    assert by_kind["diagnostic"].skip == Skip.SKIP_REASON_NO_SETPOINT
    assert by_kind["read_only"].skip == Skip.SKIP_REASON_READ_ONLY
    assert by_kind["refuse_asg"].skip == Skip.SKIP_REASON_NOT_WRITABLE
    for kind in ("magnet", "nan", "infinite", "enum", "string", "wave", "wave_char", "int64"):
        assert by_kind[kind].skip == Skip.SKIP_REASON_EQUAL, kind


async def test_writes_of_every_type_arrive(site: RestoreSite) -> None:
    world, machine = site.world, site.machine
    kinds = ("enum", "string", "wave", "int32", "bo", "wave_string", "longstring", "motor")
    chosen = {k: next(r for r in world.rows if r.kind == k) for k in kinds}
    snapshot_id = await world.take()
    before = await machine.read_channels([r.setpoint for r in chosen.values()])
    slots = [world.slots[world.names.index(r.setpoint)] for r in chosen.values()]
    other = {
        "enum": 5,
        "string": "other",
        "wave": [9.0] * 4,
        "int32": 77,
        "bo": 1,
        "wave_string": ["x", "y"],
        "longstring": "another path",
        "motor": 1.5,
    }
    assert len(slots) == len(other)
    errors = await machine.write_channels({chosen[k].setpoint: v for k, v in other.items()})
    assert not any(errors.values()), errors
    await world.publish()
    plan = await site.plan(
        snapshot_id,
        selector=selector_pb2.Selector(names=[r.setpoint for r in chosen.values()]),
    )
    assert plan.writes >= len(kinds) - 1, await site.plan_items(plan.id)
    ended = await site.ended((await site.execute(plan)).id)
    results = await site.items(ended.id)
    assert verdicts(ended) == {"VERIFIED": plan.writes} | (
        {"EQUAL_ALREADY": len(kinds) - plan.writes} if plan.writes < len(kinds) else {}
    ), results
    assert ended.all_verified
    after = await machine.read_channels([r.setpoint for r in chosen.values()])
    assert {n: v["value"] for n, v in after.items()} == {n: v["value"] for n, v in before.items()}


@pytest.mark.parametrize("more_settings", [{"refuse": ""}])
async def test_clipped_refused_and_dead_are_told_apart(site: RestoreSite) -> None:
    world, machine = site.world, site.machine
    pull = next(r for r in world.rows if r.kind == "pull_back")
    disp = next(r for r in world.rows if r.kind == "refuse_disp")
    snapshot_id = await world.take()
    snapshot = world.snapshots[snapshot_id]
    for row, value in ((pull, 50.0), (disp, 9.0)):
        snapshot.setpoint.data.view("f8")[world.number(row) - 1] = value
    await world.publish()
    names = [pull.setpoint, disp.setpoint]
    plan = await site.plan(snapshot_id, selector=selector_pb2.Selector(names=names))
    assert plan.writes == 2
    ended = await site.ended((await site.execute(plan)).id)
    results = await site.items(ended.id)
    assert results[pull.setpoint].verdict == Verdict.VERDICT_NOT_REACHED
    assert results[pull.setpoint].seen.float64_value == 5.0
    assert results[disp.setpoint].verdict == Verdict.VERDICT_REFUSED
    assert results[disp.setpoint].epics_status == "ECA_PUTFAIL"
    assert not ended.all_verified
    assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED
    assert errors_pb2.ErrorReason.Name(ended.error.reason) == "ERROR_REASON_NOT_ALL_VERIFIED"
    assert "1 were refused" in ended.error.message
    assert "look who" in results[pull.setpoint].explanation
    await machine.write_channels({pull.setpoint: 1.0})


async def test_a_machine_that_moved_is_not_written_to(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(5, seed=5)
    await site.world.publish()
    plan = await site.plan(snapshot_id)
    await site.machine.disturb_values(5, seed=5)
    here = await site.machine.read_channels(moved)
    ended = await site.ended((await site.execute(plan)).id)
    assert ended.state == restore_pb2.RESTORE_STATE_FAILED
    assert ended.error.reason == 25  # MACHINE_MOVED
    assert verdicts(ended)["NOT_SENT"] == 5
    assert {n: v["value"] for n, v in (await site.machine.read_channels(moved)).items()} == {
        n: v["value"] for n, v in here.items()
    }
    again = await site.plan(snapshot_id)
    accepted = await site.ended((await site.execute(again, all=pb.AllMoved())).id)
    assert verdicts(accepted)["VERIFIED"] == 5


async def test_a_plan_is_executed_once(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    await site.machine.disturb_values(3, seed=7)
    await site.world.publish()
    same = str(uuid.uuid4())
    plan = await site.plan(snapshot_id, request_id=same)
    assert (await site.plan(snapshot_id, request_id=same)).id == plan.id
    wrong = pb.ExecutePlanRequest(plan_id=plan.id, digest="0" * 64, request_id=str(uuid.uuid4()))
    assert await refused(site.call("ExecutePlan", wrong)) == "PLAN_DIGEST_MISMATCH"
    key = str(uuid.uuid4())
    first, second = await asyncio.gather(
        site.execute(plan, request_id=key), site.execute(plan, request_id=key)
    )
    assert first.id == second.id
    assert await refused(site.execute(plan)) == "WRONG_STATE"
    ended = await site.ended(first.id)
    assert verdicts(ended)["VERIFIED"] == 3
    found = await site.call("GetPlan", pb.GetPlanRequest(id=plan.id))
    assert found.plan.state == restore_pb2.PLAN_STATE_EXECUTED
    assert found.plan.restore_id == first.id


async def test_empty_expired_and_unknown_are_refused(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    await site.world.publish()
    assert await refused(site.plan(str(uuid.uuid4()))) == "NOT_FOUND"
    empty = await site.plan(snapshot_id)
    assert empty.writes == 0
    assert await refused(site.execute(empty)) == "PLAN_EMPTY"
    await site.machine.disturb_values(1, seed=8)
    await site.world.publish()
    state = state_pb2.StateRef(snapshot_id=snapshot_id)
    short = pb.CreatePlanRequest(spec=restore_pb2.PlanSpec(state=state))
    short.spec.lifetime.FromMilliseconds(1)
    plan = (await site.call("CreatePlan", short)).plan
    await asyncio.sleep(0.01)
    assert await refused(site.execute(plan)) == "PLAN_EXPIRED"
    unknown = pb.GetRestoreRequest(id=str(uuid.uuid4()))
    assert await refused(site.call("GetRestore", unknown)) == "NOT_FOUND"


@pytest.mark.parametrize(
    ("path", "spec"),
    [
        ("spec.state.live", {"state": {"live": {}}}),
        ("spec.state.instant_ns", {"state": {"instant_ns": 1}}),
        ("spec.state.golden.scope", {"state": {"golden": {"scope": "injection"}}}),
        ("spec.state.run_end", {"state": {"run_end": {"run_id": "1", "edge": 1}}}),
    ],
)
async def test_what_is_not_built_is_refused_with_its_path(
    site: RestoreSite, path: str, spec: dict[str, Any]
) -> None:
    spec = {"state": {"snapshot_id": str(uuid.uuid4())}} | spec
    request = pb.CreatePlanRequest(spec=restore_pb2.PlanSpec(**spec))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await site.call("CreatePlan", request)
    assert status.reason_of(caught.value)[0] == "NOT_IMPLEMENTED"
    assert path in str(caught.value.details())


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_plan_reads_by_itself_and_believes_no_monitor(site: RestoreSite) -> None:
    """A change within a record's dead band is in no image; nor is any where the monitor is dead."""
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(3, seed=9)
    items = await site.plan_items((await site.plan(snapshot_id)).id, writes_only=True)
    assert sorted(items) == sorted(moved)
    origins = {item.current.origin for item in items.values()}
    assert origins == {value_pb2.VALUE_ORIGIN_READ}

    assert site.world.beats is not None
    site.world.beats.cancel()
    await site.world.beat(image_failing=True)
    items = await site.plan_items((await site.plan(snapshot_id)).id, writes_only=True)
    assert sorted(items) == sorted(moved)


async def test_a_policy_that_cannot_be_followed_leaves_the_pv_out(site: RestoreSite) -> None:
    world = site.world
    snapshot_id = await world.take()
    moved = await site.machine.disturb_values(4, seed=10)
    rows = {row.setpoint: world.number(row) for row in world.rows}
    ramped, staged, default, quiet = moved
    world.policies = {
        rows[ramped]: catalog_pb2.RestorePolicy(ramp_rate=1e-9),
        rows[staged]: catalog_pb2.RestorePolicy(
            stage=2, completion=catalog_pb2.COMPLETION_DONE_CHANNEL, done_channel="X.DMOV"
        ),
        rows[default]: catalog_pb2.RestorePolicy(
            stage=0, completion=catalog_pb2.COMPLETION_PUT_CALLBACK
        ),
    }
    plan = await site.plan(snapshot_id)
    items = await site.plan_items(plan.id)
    assert items[ramped].skip == items[staged].skip == Skip.SKIP_REASON_POLICY
    assert "has a ramp" in items[ramped].warnings[0]
    assert "X.DMOV, which is not connected" in items[staged].warnings[0]
    assert items[staged].stage == 2
    assert {name for name in items if not items[name].skip} == {default, quiet}
    assert {s.reason: s.pvs for s in plan.skips}[Skip.SKIP_REASON_POLICY] == 2
    ended = await site.ended((await site.execute(plan)).id)
    results = await site.items(ended.id)
    assert results[ramped].skip == Skip.SKIP_REASON_POLICY
    assert "has a ramp" in results[ramped].explanation
    assert results[default].verdict == results[quiet].verdict == Verdict.VERDICT_VERIFIED


async def test_plans_of_others_keep_no_restore_waiting(site: RestoreSite) -> None:
    """Forty plans stand still in the middle; a restore does not need what they wait for."""
    world = site.world
    snapshot_id = await world.take()
    await site.machine.disturb_values(30, seed=13)
    plan = await site.plan(snapshot_id)
    world.gate.clear()
    others = [asyncio.create_task(site.plan(snapshot_id)) for _ in range(40)]
    try:
        await asyncio.wait_for(world.at_gate.wait(), 60)
        ended = await site.ended((await site.execute(plan)).id)
        assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED, ended
        assert verdicts(ended)["VERIFIED"] == 30
    finally:
        world.gate.set()
    made = await asyncio.gather(*others)
    assert len({each.id for each in made}) == 40


async def test_one_key_leaves_others_their_turn_to_plan(site: RestoreSite) -> None:
    world = site.world
    snapshot_id = await world.take()
    spec = restore_pb2.PlanSpec(state=state_pb2.StateRef(snapshot_id=snapshot_id))
    world.gate.clear()
    asked = [
        asyncio.create_task(site.call("CreatePlan", pb.CreatePlanRequest(spec=spec)))
        for _ in range(51)
    ]
    try:
        await asyncio.wait_for(world.at_gate.wait(), 60)
        (ended,), _ = await asyncio.wait(asked, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        error = ended.exception()
        assert isinstance(error, grpc.aio.AioRpcError)
        assert status.reason_of(error)[0] == "RESOURCE_EXHAUSTED"
        assert "this key has 50 plans" in str(error.details())
        world.at_gate.clear()
        request = pb.CreatePlanRequest(spec=spec)
        other = asyncio.create_task(site.call("CreatePlan", request, name="bob"))
        await asyncio.wait_for(world.at_gate.wait(), 60)  # bob's: ann has had hers
    finally:
        world.gate.set()
    assert (await other).plan.actor.principal == "bob"
    made = await asyncio.gather(*(task for task in asked if task is not ended))
    assert len({each.plan.id for each in made}) == 50


async def test_a_breaker_that_is_held_open_is_named(site: RestoreSite) -> None:
    """Its IOC lives: that a PV is not connected would not be the whole truth."""
    world = site.world
    snapshot_id = await world.take()
    moved = await site.machine.disturb_values(1, seed=16)
    ramped = world.number(next(row for row in world.rows if row.setpoint == moved[0]))
    # ramped, so that there is a middle
    world.policies = {ramped: catalog_pb2.RestorePolicy(ramp_rate=0.006)}
    selector = selector_pb2.Selector(names=moved)
    slot = world.slots[[world.names.index(moved[0])]]
    begin = (await world.table.read_values(slot, 60)).values.value(0)
    restore = await site.execute(await site.plan(snapshot_id, selector=selector))
    async with asyncio.timeout(60):
        while (await world.table.read_values(slot, 60)).values.value(0) == begin:
            await asyncio.sleep(0.05)
    connections = world.table.connection_columns()
    address = connections.servers[connections.server[slot[0]]]
    forced = BreakersForced(changed_ns=1)
    forced.breakers.add(address=address, mode=HELD_OPEN)
    bus = await nats.connect(site.settings.nats_url)
    try:
        await bus.publish(f"{world.namespace}.v1.breakers", forced.SerializeToString())
        await bus.flush()
    finally:
        await bus.close()
    why = "an administrator holds its breaker open"
    ended = await site.ended(restore.id)
    assert verdicts(ended)["RAMP_STOPPED"] == 1
    assert why in ended.error.message and address in ended.error.message
    plan = await site.plan(snapshot_id, selector=selector)
    (item,) = (await site.plan_items(plan.id)).values()
    assert item.skip == Skip.SKIP_REASON_DISCONNECTED
    assert why in item.warnings[0] and address in item.warnings[0]


async def test_restores_that_take_long_let_those_of_others_begin(
    site: RestoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ramps that take minutes, more of them than a worker's usual places, and one more person."""
    monkeypatch.setattr(beginning, "MOST_OPEN", 12)
    world = site.world
    snapshot_id = await world.take()
    *slow, seventh, quick = await site.machine.disturb_values(8, seed=15)
    number = {row.setpoint: i for i, row in enumerate(world.rows, 1)}
    ramp = catalog_pb2.RestorePolicy(ramp_rate=0.006)
    world.policies = {number[name]: ramp for name in sorted(slow, key=number.__getitem__)}

    async def begin(pv: str, **who: Any) -> restore_pb2.Restore:
        plan = await site.plan(snapshot_id, selector=selector_pb2.Selector(names=[pv]))
        assert plan.writes == 1
        request = pb.ExecutePlanRequest(
            plan_id=plan.id, digest=plan.digest, request_id=str(uuid.uuid4())
        )
        found: restore_pb2.Restore = (await site.call("ExecutePlan", request, **who)).restore
        return found

    begun = [await begin(name) for name in slow]
    assert await refused(begin(seventh)) == "RESOURCE_EXHAUSTED"
    ended = await site.ended((await begin(quick, name="bob")).id)
    assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED, ended
    for restore in begun:
        await site.call("AbortRestore", pb.AbortRestoreRequest(id=restore.id))
        ended = await site.ended(restore.id)
        assert ended.state == restore_pb2.RESTORE_STATE_ABORTED


async def test_what_was_not_sent_in_time_is_an_end_that_says_so(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(100, seed=14)
    here = await site.machine.read_channels(moved)
    plan = await site.plan(snapshot_id)
    ended = await site.ended((await site.execute(plan, write_timeout={"nanos": 1})).id)
    assert ended.state == restore_pb2.RESTORE_STATE_INTERRUPTED
    assert errors_pb2.ErrorReason.Name(ended.error.reason) == "ERROR_REASON_DEADLINE_EXCEEDED"
    assert verdicts(ended)["NOT_SENT"] == 100
    assert "100 of 100" in ended.error.message
    results = await site.items(ended.id)
    assert "Nothing was sent" in results[moved[0]].explanation
    assert {n: v["value"] for n, v in (await site.machine.read_channels(moved)).items()} == {
        n: v["value"] for n, v in here.items()
    }


async def test_lists_are_filtered(site: RestoreSite) -> None:
    first, second = await site.world.take(), await site.world.take()
    await site.machine.disturb_values(2, seed=62)
    await site.world.publish()
    plans = [await site.plan(snapshot_id) for snapshot_id in (first, second, second)]
    restore = await site.ended((await site.execute(plans[2])).id)

    async def listed(**filters: Any) -> list[str]:
        answer = await site.call("ListPlans", pb.ListPlansRequest(**filters))
        known = {plan.id for plan in plans}
        return [plan.id for plan in answer.plans if plan.id in known]

    async def restores(**filters: Any) -> list[str]:
        answer = await site.call("ListRestores", pb.ListRestoresRequest(**filters))
        return [each.id for each in answer.restores if each.id == restore.id]

    assert await listed(snapshot_id=first) == [plans[0].id]
    assert await listed(states=["PLAN_STATE_EXECUTED"]) == [plans[2].id]
    assert await listed(states=["PLAN_STATE_READY"]) == [plans[1].id, plans[0].id]
    assert await listed(from_time=plans[1].create_time, to_time=plans[2].create_time) == [
        plans[1].id
    ]
    assert await listed(principal="nobody") == []
    assert await restores(snapshot_id=second, principal="ann") == [restore.id]
    assert await restores(snapshot_id=first) == []
    assert await restores(states=["RESTORE_STATE_COMPLETED"]) == [restore.id]
    assert await restores(states=["RESTORE_STATE_FAILED"]) == []
    assert await restores(to_time=restore.create_time) == []
    # as far as a Timestamp reaches, which is beyond 64 bits of nanoseconds
    assert await restores(to_time=Timestamp(seconds=253_402_300_799)) == [restore.id]
    assert await refused(listed(pv_name="X")) == "NOT_IMPLEMENTED"
    assert await refused(restores(pv_number=1)) == "NOT_IMPLEMENTED"


async def test_a_plan_shows_what_it_was_made_of_and_its_digest_can_be_computed(
    site: RestoreSite,
) -> None:
    snapshot_id = await site.world.take()
    await site.machine.disturb_values(20, seed=63)
    plan = await site.plan(snapshot_id, comment="back", exact=True)
    assert plan.spec.state.snapshot_id == plan.snapshot_id == snapshot_id
    assert (plan.spec.comment, plan.spec.exact, plan.digest_recipe) == ("back", True, 3)
    items = await site.plan_items(plan.id)
    assert plan_digest(plan, items.values()) == plan.digest
    written = [item for item in items.values() if item.HasField("target")]
    assert all(item.HasField("stored") and item.policy.completion for item in written)
    assert any(item.enum_labels for item in items.values())


async def test_a_plan_is_made_of_what_is_golden_when_it_is_made(site: RestoreSite) -> None:
    world = site.world
    first = await world.take()
    moved = await site.machine.disturb_values(4, seed=64)
    second = await world.take()
    world.golden = {("", "beam"): second, ("", ""): first}

    async def planned(label: str) -> restore_pb2.Plan:
        state = state_pb2.StateRef(golden=state_pb2.GoldenRef(label=label))
        request = pb.CreatePlanRequest(spec=restore_pb2.PlanSpec(state=state))
        plan: restore_pb2.Plan = (await site.call("CreatePlan", request)).plan
        return plan

    plan = await planned("")
    assert (plan.snapshot_id, plan.writes) == (first, len(moved))
    assert plan.spec.state.golden == state_pb2.GoldenRef(label="")
    assert (await planned("beam")).snapshot_id == second
    assert await refused(planned("none such")) == "NOT_FOUND"
    await site.ended((await site.execute(plan)).id)


async def test_a_plan_says_what_was_re_addressed_since_its_snapshot(site: RestoreSite) -> None:
    world = site.world
    snapshot_id = await world.take()
    moved = await site.machine.disturb_values(2, seed=65)
    row = next(r for r in world.rows if r.setpoint == moved[0])
    world.stored_addresses[world.number(row)] = ("OLD:SP", row.readback)
    plan = await site.plan(snapshot_id)
    items = await site.plan_items(plan.id)
    assert list(items[moved[0]].warnings) == [
        f"setpoint re-addressed since the snapshot: was OLD:SP, is {row.setpoint}"
    ]
    assert not items[moved[1]].warnings
    assert plan_digest(plan, items.values()) == plan.digest
    items[moved[0]].ClearField("warnings")
    assert plan_digest(plan, items.values()) != plan.digest


async def test_chosen_pvs_are_edited_and_verified_by_what_was_written(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    magnets = [r for r in site.world.rows if r.kind == "magnet"][:2]
    names = [r.setpoint for r in magnets]
    stored = await site.machine.read_channels(names)
    plan = await site.plan(
        snapshot_id,
        selector=selector_pb2.Selector(names=names),
        edits=[
            restore_pb2.PlanEdit(
                selector=selector_pb2.Selector(names=names),
                linear=restore_pb2.LinearEdit(scale=0.5, offset=0.25),
            ),
            restore_pb2.PlanEdit(
                selector=selector_pb2.Selector(names=names[1:]),
                value=value_pb2.Value(float64_value=1.75),
            ),
        ],
    )
    items = await site.plan_items(plan.id)
    half = stored[names[0]]["value"] * 0.5 + 0.25
    assert items[names[0]].target.float64_value == half
    assert items[names[0]].stored.float64_value == stored[names[0]]["value"]
    assert items[names[0]].warnings == ["edited: the stored value * 0.5 + 0.25"]
    assert items[names[1]].target.float64_value == 1.75
    assert plan_digest(plan, items.values()) == plan.digest
    ended = await site.ended((await site.execute(plan)).id)
    assert ended.all_verified, await site.items(ended.id)
    await site.machine.write_channels({name: stored[name]["value"] for name in names})


async def test_lists_are_paged_newest_first(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    made = [(await site.plan(snapshot_id)).id for _ in range(3)]
    first = await site.call("ListPlans", pb.ListPlansRequest(page_size=2))
    assert [p.id for p in first.plans] == made[:0:-1]
    request = pb.ListPlansRequest(page_size=2, page_token=first.next_page_token)
    rest = await site.call("ListPlans", request)
    assert [p.id for p in rest.plans] == made[:1]
    assert not rest.next_page_token
    bad = pb.ListRestoresRequest(page_token=first.next_page_token)
    assert await refused(site.call("ListRestores", bad)) == "MALFORMED_PAGE_TOKEN"


@pytest.mark.parametrize("chunk", [2])
async def test_abort_stops_new_writes_and_every_pv_has_a_verdict(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(150, seed=11)
    await site.world.publish()
    plan = await site.plan(snapshot_id)
    restore = await site.execute(plan)
    watch = site.stub.WatchRestore(
        pb.WatchRestoreRequest(id=restore.id), timeout=60, metadata=site.metadata()
    )
    async for message in watch:
        if verdicts(message.restore).get("WRITTEN", 0) >= 10:
            break
    other = await site.plan(snapshot_id)
    assert await refused(site.execute(other)) == "CHANNELS_HELD"
    aborting = pb.AbortRestoreRequest(id=restore.id, reason="changed my mind")
    await site.call("AbortRestore", aborting)
    ended = await site.ended(restore.id)
    assert ended.state == restore_pb2.RESTORE_STATE_ABORTED
    found = verdicts(ended)
    assert sum(found.values()) == plan.pvs
    assert found["NOT_SENT"] > 0
    assert found["NOT_SENT"] + found["VERIFIED"] == plan.writes
    results = await site.items(restore.id)
    seen = await site.machine.read_channels(moved)
    for name in moved:
        want = "target" if results[name].verdict == Verdict.VERDICT_VERIFIED else "before"
        assert seen[name]["value"] == pytest.approx(getattr(results[name], want).float64_value)
    again = await site.call("AbortRestore", aborting)
    assert again.restore.state == restore_pb2.RESTORE_STATE_ABORTED


async def test_channels_that_only_the_image_has_are_left_out(site: RestoreSite) -> None:
    """Channels that the image has as connected, and that are not there any more."""
    world = site.world
    dead = [row for row in world.rows if row.kind == "dead"]
    assert dead
    snapshot_id = await world.take()
    numbers = [world.number(row) for row in dead]
    await site.machine.disturb_values(3, seed=12)
    await world.publish(pretend=[2 * n for n in numbers])
    stored = world.snapshots[snapshot_id].setpoint
    for n in numbers:
        stored.kind[n - 1], stored.state[n - 1] = 11, 3
        stored.data.view("f8")[n - 1] = 4.0
    plan = await site.plan(snapshot_id)
    assert plan.writes == 3
    items = await site.plan_items(plan.id)
    for row in dead:
        if row.setpoint:
            assert items[row.setpoint].skip == Skip.SKIP_REASON_DISCONNECTED
    ended = await site.ended((await site.execute(plan)).id)
    assert verdicts(ended)["VERIFIED"] == 3
