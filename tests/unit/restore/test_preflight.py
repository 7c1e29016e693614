"""What a plan looks at before anything is written: records, limits, order, lost values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.pv_table import Policy
from drey_core.values import ARRAY, Kind
from drey_restore.domain.conversion import by_label
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.planning import (
    PlanInput,
    WayBack,
    make_plan,
)
from drey_restore.domain.policy import PolicyRows
from drey_restore.domain.problems import parse_problems
from drey_restore.domain.record_facts import RecordFacts, refuse_records

from .test_planning import columns, known


def planned(addresses: list[str], **more: object) -> PlanInput:
    n = len(addresses)
    given = known([2.0] * n, [1.0] * n)
    return replace(given, addresses=addresses, **more)


@pytest.mark.parametrize(
    ("first", "second"),
    [("X", "X.VAL"), ("X.VAL", "X.RVAL"), ("X", "X$"), ("X.DESC", "X.DESC$"), ("X.VAL$", "X")],
)
def test_one_field_under_several_names_is_written_once(first: str, second: str) -> None:
    assert make_plan(planned([first, second, "Y"])).skip.tolist() == [
        Skip.NONE,
        Skip.DUPLICATE_ADDRESS,
        Skip.NONE,
    ]
    assert make_plan(planned([first, "X.EGU"])).skip.tolist() == [Skip.NONE] * 2


def test_a_disabled_record_is_not_written() -> None:
    given = planned(["X", "Y"])
    given.live.status[0] = 18
    plan = make_plan(given)
    assert plan.skip.tolist() == [Skip.NOT_WRITABLE, Skip.NONE]
    assert ".DISA" in plan.warnings[0][0]


@pytest.mark.parametrize(
    ("refused", "skips"),
    [
        ("", [Skip.NONE, Skip.NONE]),
        ("invalid", [Skip.NONE, Skip.INVALID_SOURCE]),
        ("undefined", [Skip.INVALID_SOURCE, Skip.NONE]),
        (" undefined, invalid", [Skip.INVALID_SOURCE] * 2),
    ],
)
def test_what_was_no_value_when_it_was_stored_is_told_or_refused(
    refused: str, skips: list[Skip]
) -> None:
    given = planned(["X", "Y", "Z"], refused=parse_problems(refused))
    given.stored.severity[:2], given.stored.status[:2] = 3, [17, 5]
    plan = make_plan(given)
    assert plan.skip.tolist() == [*skips, Skip.NONE]
    assert "never set" in plan.warnings[0][0]
    assert "INVALID" in plan.warnings[1][0]
    assert 2 not in plan.warnings


@pytest.mark.parametrize(("refused", "skip"), [("", Skip.NONE), ("truncated", Skip.INVALID_SOURCE)])
def test_a_text_that_may_have_been_cut_is_told_or_refused(refused: str, skip: Skip) -> None:
    full = b"x" * 39
    stored = [full, full, full[:-1], [b"a", full]]
    kinds = [Kind.STRING] * 3 + [Kind.STRING | ARRAY]
    given = known(stored, [b"", b"", b"", [b"b", b"c"]], kinds)
    given = replace(given, addresses=["X", "X.DESC$", "Z", "W"], refused=parse_problems(refused))
    plan = make_plan(given)
    assert plan.skip.tolist() == [skip, Skip.NONE, Skip.NONE, skip]
    assert sorted(plan.warnings) == [0, 3]
    assert "may have been cut" in plan.warnings[3][0]


LABELS = st.lists(st.sampled_from([b"", b"Off", b"On", b"Hold", b"Trip"]), max_size=5).map(tuple)


@given(st.integers(0, 6), LABELS, LABELS)
def test_what_is_written_means_what_was_stored_or_is_refused(
    index: int, old: tuple[bytes, ...], new: tuple[bytes, ...]
) -> None:
    found = by_label(index, old, new)
    assert found.problem in (Skip.NONE, Skip.LABEL_GONE)
    if not old or not new or old == new:
        assert (found.index, found.problem, found.note) == (index, Skip.NONE, "")
        return
    label = dict(enumerate(old)).get(index, b"")
    now = dict(enumerate(new)).get(found.index, b"")
    if found.problem == Skip.NONE:
        assert label == now
        assert found.note or found.index == index
    else:
        assert found.note
        assert new.count(label) != 1 or not label


def test_a_label_that_stands_twice_and_an_index_beyond_the_labels_are_told() -> None:
    twice = by_label(0, (b"On", b"Off"), (b"On", b"Off", b"On"))
    assert twice.problem == Skip.LABEL_GONE and "ambiguous" in twice.note
    beyond = by_label(9, (b"On", b"Off"), (b"Off", b"On"))
    assert (beyond.problem, beyond.index) == (Skip.NONE, 9) and "as an index" in beyond.note
    got_one = by_label(2, (b"On", b"Off"), (b"On", b"Off", b"Trip"))
    assert got_one.problem == Skip.LABEL_GONE


def looked(plan: PlanItems, refused: str = "disabled", **facts: Any) -> PlanItems:
    """The plan after a look at its records; `disp` and `disabled` are addresses."""
    rows = np.sort(plan.writes)
    named = {
        name: np.isin([plan.addresses[row] for row in rows], list(facts.get(name, ())))
        for name in ("disp", "disabled")
    }
    found = RecordFacts(rows, aliases=facts.get("aliases", {}), **named)
    return refuse_records(plan, found, parse_problems(refused))


def test_records_that_take_no_value_are_left_out_but_for_what_enables_them() -> None:
    addresses = ["A", "B", "B.DRVH", "C.DISP", "D"]
    plan = make_plan(planned(addresses))
    disp, disabled = ["A", "C.DISP"], ["B", "B.DRVH"]
    after = looked(plan, disp=disp, disabled=disabled)
    refused = Skip.NOT_WRITABLE
    # a limit is taken by a record that is disabled, and .DISP itself by one that takes nothing else
    assert after.skip.tolist() == [refused, refused, 0, 0, 0]
    assert ".DISP" in after.warnings[0][0] and ".DISA" in after.warnings[1][0]
    assert after.target.kind[0] == Kind.NONE
    told = looked(plan, "", disp=disp, disabled=disabled)
    assert told.skip.tolist() == plan.skip.tolist()
    assert sorted(told.warnings) == [0, 1]


@pytest.mark.parametrize(
    ("target", "stages", "skip"),
    [
        (0.0, {}, Skip.NONE),  # the plan itself enables it first
        (0.0, {1: 1}, Skip.NOT_WRITABLE),  # too late
        (1.0, {}, Skip.NOT_WRITABLE),  # the plan itself disables it first
        (1.0, {1: 1}, Skip.NONE),  # and here after the value
    ],
)
def test_records_are_judged_as_the_plans_own_earlier_writes_leave_them(
    target: float, stages: dict[int, int], skip: Skip
) -> None:
    policies = {row: Policy(stage=stage) for row, stage in stages.items()}
    given = replace(known([2.0, target], [1.0, 1.0 - target]), addresses=["X", "X.DISP"])
    given = replace(given, policies=PolicyRows.same_for_rows(2, policies))
    after = looked(make_plan(given), disp=["X"] if target == 0.0 else [])
    assert after.skip.tolist() == [skip, Skip.NONE]


def test_an_alias_is_written_once() -> None:
    addresses = ["A", "B", "B.DESC", "C.RVAL"]
    after = looked(make_plan(planned(addresses)), aliases={1: "A", 2: "A", 3: "A"})
    duplicate = Skip.DUPLICATE_ADDRESS
    assert after.skip.tolist() == [Skip.NONE, duplicate, Skip.NONE, duplicate]
    assert after.warnings[1] == ("the same field as A, by an alias",)


def test_limits_are_those_after_the_plans_own_earlier_writes() -> None:
    addresses = ["X", "X.DRVH", "Y", "Y.DRVL", "M.VAL", "M.HLM"]
    given = known([8.0, 10.0, -8.0, -10.0, 8.0, 5.0], [0.0, 5.0, 0.0, -5.0, 0.0, 9.0])
    given = replace(given, addresses=addresses)
    given.control_low[[0, 2, 4]], given.control_high[[0, 2, 4]] = -5.0, 5.0
    given.control_high[4] = 9.0
    plan = make_plan(given)
    # the limit of the motor is lowered below its value by the plan itself
    assert plan.skip.tolist() == [*[Skip.NONE] * 4, Skip.OUT_OF_RANGE, Skip.NONE]
    assert [addresses[row] for row in plan.writes] == ["X.DRVH", "Y.DRVL", "M.HLM", "X", "Y"]
    # written in a later stage the limit does not help
    late = make_plan(
        replace(given, policies=PolicyRows.same_for_rows(len(given.number), {1: Policy(stage=1)}))
    )
    assert late.skip[0] == Skip.OUT_OF_RANGE


NAMES = st.sampled_from(["A", "A.DRVH", "A.DRVL", "A.SPMG", "B", "B.HLM", "C.DESC", "D", "E.VAL"])


@given(st.lists(NAMES, unique=True, min_size=1), st.lists(st.integers(-3, 3), min_size=9))
def test_writes_go_by_stage_and_limits_before_values(names: list[str], stages: list[int]) -> None:
    policies = {row: Policy(stage=stages[row]) for row in range(len(names))}
    plan = make_plan(planned(names, policies=PolicyRows.same_for_rows(len(names), policies)))
    order = plan.writes.tolist()
    assert sorted(order) == np.flatnonzero(plan.skip == 0).tolist()
    keys = [(plan.stage[row], bool(plan.is_value[row])) for row in order]
    assert keys == sorted(keys)
    assert [row for stage in plan.rows_by_stage for row in stage.tolist()] == order


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.booleans()), min_size=1, max_size=8),
    st.booleans(),
)
def test_the_way_back_writes_only_what_nobody_has_changed(
    listed: list[tuple[float, bool]], also_changed: bool
) -> None:
    """Before it was 0, the restore left 1; now it is what `listed` says."""
    n = len(listed)
    given = replace(
        known([0.0] * n, [now for now, _ in listed]),
        back=WayBack(
            columns([1.0] * n), np.arange(1, n + 1), np.arange(n, dtype=np.int32), also_changed
        ),
    )
    plan = make_plan(given)
    for row, (now, _) in enumerate(listed):
        if now == 0.0:
            assert plan.skip[row] == Skip.EQUAL
        elif now == 1.0 or also_changed:
            assert plan.skip[row] == Skip.NONE
            assert plan.target.value(row) == 0.0
        else:
            assert plan.skip[row] == Skip.CHANGED_SINCE
        assert (row in plan.warnings) == (now == 2.0)
    assert plan.stage.tolist() == list(range(n))


@pytest.mark.parametrize("also_changed", [False, True])
def test_the_way_back_writes_no_channel_that_the_restore_did_not_write(also_changed: bool) -> None:
    """Unless told: the second PV has got another address, whose value happens to be the same."""
    back = WayBack(columns([1.0, 1.0]), np.array([1, 99]), np.zeros(2, np.int32), also_changed)
    plan = make_plan(replace(known([0.0, 0.0], [1.0, 1.0]), back=back))
    assert plan.skip.tolist() == [Skip.NONE, Skip.NONE if also_changed else Skip.CHANGED_SINCE]
    assert "re-addressed" in plan.warnings[1][0]
    assert 0 not in plan.warnings


def test_a_field_is_written_once_and_limited_whatever_its_record_is_called() -> None:
    """`A` and `B` are names of the record `R`."""
    addresses = ["R", "A.VAL", "B.RVAL", "B.DRVH", "B.EGU$"]
    given = replace(known([5.0, 5.0, 5, 9.0, "mA"], [1.0, 1.0, 1, 1.0, "A"]), addresses=addresses)
    plan = looked(make_plan(given), aliases={1: "R", 2: "R", 3: "R", 4: "R"})
    assert plan.skip.tolist() == [
        *(Skip.NONE, Skip.DUPLICATE_ADDRESS, Skip.DUPLICATE_ADDRESS),
        *(Skip.NONE, Skip.NONE),
    ]
    assert [plan.field_written(row) for row in range(5)] == ["R", "R", "R", "R.DRVH", "R.EGU"]
    assert (
        PlanItems.decode_items(plan.encode_items()).records
        == plan.records
        == {1: "R", 2: "R", 3: "R", 4: "R"}
    )
    # a limit that is lowered under another name would clip the value
    low = replace(given, stored=columns([5.0, 5.0, 5, 3.0, "mA"]))
    plan = looked(make_plan(low), aliases={1: "R", 2: "R", 3: "R", 4: "R"})
    assert plan.skip[0] == Skip.OUT_OF_RANGE
    assert "B.DRVH" in plan.warnings[0][0]
