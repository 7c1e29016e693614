"""What a rehearsal makes of the items of a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drey.catalog.v1 import catalog_pb2
from drey.common.v1 import value_pb2
from drey.monitor.v1 import monitor_service_pb2, watch_pb2
from drey.restore.v1 import restore_pb2
from drey_client import ClientError
from drey_machine.rehearsal import (
    MOST_CHANNELS,
    KnownPv,
    Rehearsal,
    condition_names,
    known_pvs,
    make_rehearsal,
    planned_otherwise,
    recorded_seconds,
    refuse_too_much,
    rehearsed_items,
)
from drey_machine.rehearsal_run import RehearsedCourse, refuse_other_hosts


def _item(name: str = "X", now: float = 1.0, then: float = 2.0, **more: Any) -> Any:
    return restore_pb2.PlanItem(
        number=7,
        name=name,
        address=name,
        current={"float64_value": now},
        stored={"float64_value": then},
        target={"float64_value": then},
        **more,
    )


def _known(name: str, setpoint: Any = None, readback: Any = None, **metadata: Any) -> KnownPv:
    row = value_pb2.PvRow(name=name, setpoint=setpoint, readback=readback)
    return KnownPv(row, watch_pb2.MetadataRow(name=name, **metadata))


def test_the_machine_is_as_it_is_now_and_as_it_was_stored() -> None:
    item = _item(readback_address="X:RB", stored_readback={"float64_value": 2.1}, stage=3)
    control = {"low": -5.0, "high": 5.0}
    known = _known(
        "X",
        readback={"float64_value": 1.1},
        setpoint={"float64_value": 1.0},
    )
    known.metadata.setpoint.address = "X"
    known.metadata.setpoint.control.low = control["low"]
    known.metadata.setpoint.control.high = control["high"]
    made = make_rehearsal(restore_pb2.PlanSpec(), [item], {"X": known}, {"X": 0.25})
    now = {channel.address: channel for channel in made.now.channels}
    stored = {channel.address: channel.value for channel in made.stored.channels}
    assert {address: channel.value for address, channel in now.items()} == {"X": 1.0, "X:RB": 1.1}
    assert (now["X"].low, now["X"].high) == (-5.0, 5.0)
    assert stored == {"X": 2.0, "X:RB": 2.1}
    [write] = made.now.writes
    assert (write.seconds, write.target, write.reached) == (0.25, 2.0, 2.1)
    assert made.pvs[0].restore_policy.stage == 3
    assert (made.recorded, made.assumed, made.missing) == ({"X": 0.25}, {}, {})


def test_labels_of_the_stored_value_are_those_of_then() -> None:
    item = _item(enum_labels=["Off", "Standby", "On"])
    item.current.enum_value.index = 1
    item.stored.enum_value.index, item.stored.enum_value.label = 1, "On"
    item.target.enum_value.index = 2
    made = make_rehearsal(restore_pb2.PlanSpec(), [item], {}, {})
    assert made.stored.channels[0].labels == ("Off", "On", "On")
    assert made.now.channels[0].labels == ("Off", "Standby", "On")


def test_of_an_edited_plan_the_target_is_what_is_stored() -> None:
    spec = restore_pb2.PlanSpec()
    spec.edits.add().linear.scale = 2.0
    item = _item(then=4.0)
    item.stored.float64_value = 2.0
    assert make_rehearsal(spec, [item], {}, {}).stored.channels[0].value == 4.0


def test_a_done_channel_that_is_a_field_of_the_record_is_found() -> None:
    policy = catalog_pb2.RestorePolicy(
        completion=catalog_pb2.COMPLETION_DONE_CHANNEL, done_channel=".DMOV"
    )
    policy.settle.seconds = 2
    item = _item("M.VAL", policy=policy)
    made = make_rehearsal(restore_pb2.PlanSpec(), [item], {}, {})
    [write] = made.now.writes
    assert (write.setpoint, write.done, write.seconds) == ("M.VAL", "M.DMOV", 2.0)
    [done] = [each for each in made.now.channels if each.address == "M.DMOV"]
    assert made.pvs[0].restore_policy.done_channel == done.served_at
    assert made.assumed == {"M.VAL": 2.0}


def test_what_cannot_be_simulated_is_named() -> None:
    spec = restore_pb2.PlanSpec(guards=[{"expression": 'pv["GONE"] < 1.0'}])
    large = _item("L")
    large.target.int64_value = large.current.int64_value = large.stored.int64_value = 1
    late = _item("X", readback_address="X:RB")
    made = make_rehearsal(spec, [large, late], {}, {})
    assert set(made.missing) == {"L", "X (readback X:RB)", "GONE"}
    assert [pv.name for pv in made.pvs] == ["X"]


def test_writes_and_what_is_equal_take_part() -> None:
    equal = restore_pb2.PlanItem(name="E", skip=restore_pb2.SKIP_REASON_EQUAL)
    other = restore_pb2.PlanItem(name="D", skip=restore_pb2.SKIP_REASON_DISCONNECTED)
    assert [item.name for item in rehearsed_items([_item(), equal, other])] == ["X", "E"]


def test_names_in_conditions() -> None:
    spec = restore_pb2.PlanSpec(
        guards=[{"expression": 'pv["A:B"] < 0.1 && setpoint["C\\"D"] == "MD"'}],
        gates=[{"after_stage": 0, "must_hold": {"expression": "pv['E'] > 1.0"}}],
    )
    assert condition_names(spec) == ["A:B", 'C"D', "E"]


def test_how_long_a_write_took_is_without_its_settle_time() -> None:
    policy = catalog_pb2.RestorePolicy(completion=catalog_pb2.COMPLETION_READBACK)
    policy.settle.seconds = 2
    planned = {"X": _item(policy=policy), "Y": _item("Y")}
    done = restore_pb2.RestoreItem(number=7, name="X")
    done.send_time.FromSeconds(100)
    done.complete_time.FromSeconds(105)
    other = restore_pb2.RestoreItem(number=8, name="Y")  # another PV had that name then
    other.send_time.FromSeconds(100)
    other.complete_time.FromSeconds(105)
    unsent = restore_pb2.RestoreItem(number=7, name="X")
    assert recorded_seconds([done, other, unsent], planned) == {"X": 3.0}


def test_a_plan_that_is_another_one_there_is_said() -> None:
    meant = {"X": _item(), "Y": _item("Y"), "Z": _item("Z")}
    left_out = restore_pb2.PlanItem(name="X", skip=restore_pb2.SKIP_REASON_POLICY, warnings=["so"])
    other = _item("Y")
    other.target.float64_value = 2.5
    assert planned_otherwise(meant, [left_out, other]) == {
        "X": "left out: policy; so",
        "Y": "another value is written",
        "Z": "it is not in that plan",
    }
    assert planned_otherwise(meant, list(meant.values())) == {}


def test_another_host_than_the_simulated_machine_is_refused() -> None:
    row = watch_pb2.MetadataRow(name="X", setpoint={"address": "X", "host": "localhost:5064"})
    refuse_other_hosts(row, 5064)
    with pytest.raises(ClientError, match="not the simulated machine at port 7"):
        refuse_other_hosts(row, 7)


@pytest.mark.parametrize(
    ("least_s", "recorded_s", "most_s", "reason"),
    [
        (60, 0.0, 120.0, ""),
        (3600, 0.0, 1800.0, "REHEARSAL_TOO_LONG"),
        (1, 7200.0, 1800.0, "REHEARSAL_TOO_LONG"),
    ],
)
def test_what_is_known_to_take_too_long_is_not_begun(
    least_s: int, recorded_s: float, most_s: float, reason: str
) -> None:
    made = make_rehearsal(restore_pb2.PlanSpec(), [_item()], {"X": _known("X")}, {"X": recorded_s})
    stage = restore_pb2.StageCount(stage=0, least_duration={"seconds": least_s})
    plan = restore_pb2.Plan(id="7", stages=[stage, restore_pb2.StageCount(stage=1)])
    assert _refusal(plan, made, most_s) == reason


def test_a_machine_that_is_too_large_is_not_made() -> None:
    made = make_rehearsal(restore_pb2.PlanSpec(), [_item()], {"X": _known("X")}, {})
    many = replace(made.now, channels=[*made.now.channels] * (MOST_CHANNELS + 1))
    too_large = replace(made, now=many)
    assert _refusal(restore_pb2.Plan(id="7"), too_large, 1800.0) == "REHEARSAL_TOO_LARGE"


def _refusal(plan: restore_pb2.Plan, rehearsal: Rehearsal, most_s: float) -> str:
    try:
        refuse_too_much(plan, rehearsal, most_s)
    except ClientError as error:
        return error.reason
    return ""


def test_a_stage_takes_from_the_end_of_the_one_before_to_its_last_completion() -> None:
    def done(stage: int, second: int, verdict: Any) -> restore_pb2.RestoreItem:
        complete = {"seconds": second} if second else None
        return restore_pb2.RestoreItem(
            stage=stage, verdict=verdict, complete_time=complete, target={"float64_value": 1.0}
        )

    verified, late = restore_pb2.VERDICT_VERIFIED, restore_pb2.VERDICT_TIMED_OUT
    plan = restore_pb2.Plan(stages=[{"stage": 0}, {"stage": 1}, {"stage": 2}])
    restore = restore_pb2.Restore(start_time={"seconds": 10})
    equal = restore_pb2.RestoreItem(skip=restore_pb2.SKIP_REASON_EQUAL)
    items = [done(0, 12, verified), done(0, 11, verified), done(1, 0, late), done(2, 15, verified)]
    courses = RehearsedCourse(plan, restore, [*items, equal]).stage_courses()
    took_s = [None if each.took_ns is None else each.took_ns / 1e9 for each in courses]
    assert took_s == [2.0, None, 3.0]
    assert [dict(each.verdicts) for each in courses] == [{verified: 2}, {late: 1}, {verified: 1}]


def test_a_pv_is_known_by_its_rows_and_its_metadata() -> None:
    first = monitor_service_pb2.GetValuesResponse()
    first.metadata.add(number=1)
    first.rows.add(number=1, name="A", setpoint={"float64_value": 1.0})
    second = monitor_service_pb2.GetValuesResponse()
    second.rows.add(number=2, name="B", setpoint={"float64_value": 2.0})
    known = known_pvs([first, second])
    assert list(known) == ["A"]
    assert known["A"].row.setpoint.float64_value == 1.0 and known["A"].metadata.number == 1
