"""A plan of values that the caller gives: planned, executed and verified as any other."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_client.plan_digest import plan_digest
from drey_runtime import status
from drey_testing.restore_world import RestoreSite

Skip = restore_pb2.SkipReason


def spec_of(values: dict[str, Any], **more: Any) -> restore_pb2.PlanSpec:
    given = [
        {
            "name": name,
            "value": {"string_value" if isinstance(value, str) else "float64_value": value},
        }
        for name, value in values.items()
    ]
    return restore_pb2.PlanSpec(values={"values": given}, **more)


async def make(site: RestoreSite, spec: restore_pb2.PlanSpec) -> restore_pb2.Plan:
    return (await site.call("CreatePlan", pb.CreatePlanRequest(spec=spec))).plan


async def test_given_values_are_planned_written_and_undone(site: RestoreSite) -> None:
    world = site.world
    magnets = [row.setpoint for row in world.rows if row.kind == "magnet"][:3]
    mode = next(row.setpoint for row in world.rows if row.kind == "enum")
    limits = next(row.setpoint for row in world.rows if row.kind == "read_only")
    before = await site.machine.read_channels(magnets)
    [now] = (await site.plan_items((await make(site, spec_of({mode: "?"}))).id)).values()
    assert now.skip == Skip.SKIP_REASON_LABEL_GONE
    wanted = {name: before[name]["value"] + 0.5 for name in magnets[:2]}
    wanted[magnets[2]] = before[magnets[2]]["value"]
    label = next(label for label in now.enum_labels if label != now.current.enum_value.label)
    plan = await make(site, spec_of({**wanted, mode: label, limits: 1.0}, comment="tuned"))
    items = await site.plan_items(plan.id)
    assert (plan.snapshot_id, plan.pvs) == ("", 5)
    assert plan.spec.WhichOneof("source") == "values" and not plan.spec.values.values
    assert items[limits].skip == Skip.SKIP_REASON_READ_ONLY
    assert items[magnets[2]].skip == Skip.SKIP_REASON_EQUAL
    assert items[magnets[0]].stored.float64_value == wanted[magnets[0]]
    assert plan_digest(plan, items.values()) == plan.digest
    assert items[mode].target.enum_value.label == label
    ended = await site.ended((await site.execute(plan)).id)
    assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED, ended
    after = await site.machine.read_channels(magnets)
    assert {name: after[name]["value"] for name in magnets} == pytest.approx(wanted)
    assert (await site.items(ended.id))[mode].verdict == restore_pb2.VERDICT_VERIFIED
    undo = await make(site, restore_pb2.PlanSpec(undo={"restore_id": ended.id}))
    way_back = await site.plan_items(undo.id, writes_only=True)
    assert way_back[magnets[0]].target.float64_value == before[magnets[0]]["value"]


async def test_a_selector_chooses_among_given_values(site: RestoreSite) -> None:
    a, b, c = [row.setpoint for row in site.world.rows if row.kind == "magnet"][:3]
    spec = spec_of({a: 1.25, b: 1.25}, selector={"names": [b, c]})
    items = await site.plan_items((await make(site, spec)).id)
    assert {name: item.skip for name, item in items.items()} == {
        b: 0,
        c: Skip.SKIP_REASON_NOT_IN_SNAPSHOT,
    }


@pytest.mark.parametrize(
    ("case", "reason", "field"),
    [
        ("unknown", "NOT_FOUND", "spec.values.values[1].name"),
        ("twice", "INVALID_FIELD", "spec.values.values[1].name"),
        ("no data", "INVALID_FIELD", "spec.values.values[1].value.data"),
    ],
)
async def test_what_cannot_be_a_source_is_refused(
    site: RestoreSite, case: str, reason: str, field: str
) -> None:
    name = next(row.setpoint for row in site.world.rows if row.kind == "magnet")
    spec = spec_of({name: 1.0})
    match case:
        case "unknown":
            spec.values.values.add(name="NOT:THERE").value.float64_value = 1.0
        case "twice":
            spec.values.values.append(spec.values.values[0])
        case "no data":
            spec.values.values.add(name=name).value.SetInParent()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await make(site, spec)
    told = status.reason_of(caught.value)
    assert told[0] == reason
    assert field in str(caught.value.details())
