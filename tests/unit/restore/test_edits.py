"""Edits of chosen PVs: what is written instead, what is said of it, and what stays as it was."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.pv_table import CompletionMode, Policy
from drey_core.values import ARRAY, Kind, encode_value
from drey_restore.domain.edits import Given, Linear
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.planning import PlanInput, make_plan
from drey_restore.domain.policy import PolicyRows

from .test_planning import columns, known


def value(what: object, kind: int = Kind.FLOAT64, label: bytes = b"") -> Given:
    return Given(*encode_value(what, kind), label)


def edited(base: PlanInput, *edits: tuple[list[int], Given | Linear]) -> PlanItems:
    return make_plan(replace(base, edits=[(np.array(rows), edit) for rows, edit in edits]))


def test_setpoints_are_scaled_and_moved_and_the_items_say_so() -> None:
    base = known([2.0, 2.0, [1.0, 2.0]], [1.0, 1.0, [0.0, 0.0]])
    base = replace(base, stored_readback=columns([2.0, 2.0, None]), readback_addresses=["R"] * 3)
    plan = edited(base, ([0, 2], Linear(1.5, 0.25)))
    assert plan.target.value(0) == 3.25
    assert plan.target.value(1) == 2.0
    assert plan.target.value(2).tolist() == [1.75, 3.25]
    assert plan.stored.value(0) == 2.0
    assert plan.warnings == {
        0: ("edited: the stored value * 1.5 + 0.25",),
        2: ("edited: the stored value * 1.5 + 0.25",),
    }
    # no readback of the source says where an edited value ends
    assert plan.stored_readback.kind[0] == Kind.NONE != plan.stored_readback.kind[1]
    back = {0: Policy(completion=CompletionMode.READBACK)}
    assert (
        edited(replace(base, policies=PolicyRows.same_for_rows(3, back)), ([0], Linear(2.0))).skip[
            0
        ]
        == Skip.POLICY
    )


@given(st.integers(1 - 2**31, 2**31 - 1), st.integers(-3, 3), st.integers(-5, 5))
def test_integers_stay_integers_or_are_refused(number: int, scale: int, offset: int) -> None:
    base = known([number], [number - 1], [Kind.INT32])
    plan = edited(base, ([0], Linear(scale, offset)))
    wanted = number * scale + offset
    if wanted == number - 1:
        assert plan.skip[0] == Skip.EQUAL
    elif -(2**31) <= wanted < 2**31:
        assert (plan.skip[0], plan.target.value(0)) == (Skip.NONE, wanted)
        assert plan.target.kind[0] == Kind.INT32
    else:
        assert plan.skip[0] == Skip.TYPE_CHANGED
    half = edited(known([3], [0], [Kind.INT32]), ([0], Linear(0.5)))
    assert half.skip[0] == Skip.TYPE_CHANGED


def test_a_given_value_needs_no_stored_one_and_the_later_edit_counts() -> None:
    base = known([None, 1.0, None], [5.0, 5.0, 5.0])
    plan = edited(base, ([0, 1], Linear(2.0)), ([0, 1], value(7.0)), ([2], Linear(2.0)))
    assert plan.skip.tolist() == [Skip.NONE, Skip.NONE, Skip.NOT_IN_SNAPSHOT]
    assert [plan.target.value(row) for row in (0, 1)] == [7.0, 7.0]
    assert plan.warnings[1] == ("edited: 7.0, instead of the value of the source",)


def test_what_is_edited_is_judged_like_any_other_value() -> None:
    base = known([1.0, 1.0, 1.0], [5.0, 6.0, 5.0])
    base.control_low[:], base.control_high[:] = 0.0, 10.0
    plan = edited(base, ([0], value(11.0)), ([1], Linear(6.0)), ([2], value(math.nan)))
    assert plan.skip.tolist() == [Skip.OUT_OF_RANGE, Skip.EQUAL, Skip.NOT_FINITE]
    base.stored.severity[:] = 3
    told = edited(base, ([0], value(2.0)), ([1], Linear(2.0)))
    assert len(told.warnings[0]) == 1 and "INVALID" in told.warnings[1][1]


@pytest.mark.parametrize(
    ("edit", "skip", "index"),
    [
        (value(1, Kind.ENUM), Skip.NONE, 1),
        (value(0, Kind.ENUM, b"Hold"), Skip.NONE, 2),
        (value(b"Hold", Kind.STRING), Skip.NONE, 2),
        (value(b"Gone", Kind.STRING), Skip.LABEL_GONE, 0),
        (value(b"Off", Kind.STRING), Skip.EQUAL, 0),
        (Linear(2.0), Skip.TYPE_CHANGED, 0),
    ],
)
def test_enumerations_are_given_by_label(edit: Given | Linear, skip: Skip, index: int) -> None:
    labels = {0: (b"Off", b"On", b"Hold")}
    base = known([1], [0], [Kind.ENUM], labels=(labels, labels))
    plan = edited(base, ([0], edit))
    assert plan.skip[0] == skip, plan.warnings
    if skip == Skip.NONE:
        assert plan.target.value(0) == index


def test_texts_are_given_and_never_scaled() -> None:
    base = known([b"a", b"a"], [b"b", b"b"], [Kind.STRING] * 2)
    plan = edited(base, ([0], value(b"c", Kind.STRING)), ([1], Linear(2.0)))
    assert plan.skip.tolist() == [Skip.NONE, Skip.TYPE_CHANGED]
    assert plan.target.value(0) == b"c"
    assert "cannot be scaled" in plan.warnings[1][1]


def test_what_is_scaled_beyond_its_type_is_infinite_and_left_out() -> None:
    base = known([3e38, [3e38, 1.0]], [1.0, [0.0, 0.0]], [Kind.FLOAT32, Kind.FLOAT32 | ARRAY])
    plan = edited(base, ([0, 1], Linear(10.0)))
    assert plan.skip.tolist() == [Skip.NOT_FINITE] * 2
