"""Values that the caller gives as the source of a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from drey_core.pv_table import CompletionMode, Policy
from drey_core.values import Columns, Kind, encode_value
from drey_restore.domain.edits import Given, Linear
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.planning import PlanInput, make_plan
from drey_restore.domain.policy import PolicyRows

from .test_planning import known

MODES = (b"Off", b"On", b"On")


def value(what: object, kind: int | None = None) -> Given:
    return Given(*encode_value(what, kind))


def planned(base: PlanInput, **given: Given) -> PlanItems:
    """A plan of values by row: `_0=...`."""
    rows = {int(name.strip("_")): each for name, each in given.items()}
    nothing = Columns.empty_columns(len(base.number))
    return make_plan(replace(base, stored=nothing, stored_readback=nothing, given=rows))


def test_given_values_are_a_source_like_any_other() -> None:
    base = known([0.0] * 5, [1.0, 2.0, 3, [1.0], 4.0], [None, None, Kind.INT32, None, None])
    plan = planned(
        base, _0=value(1.5), _1=value(2.0), _2=value(7.0), _3=value([1.0, 2.0]), _4=value("x")
    )
    assert plan.skip.tolist() == [Skip.NONE, Skip.EQUAL, Skip.NONE, Skip.NONE, Skip.TYPE_CHANGED]
    assert [plan.target.value(0), plan.target.value(2)] == [1.5, 7]
    assert plan.target.kind[2] == Kind.INT32
    assert plan.stored.value(0) == 1.5 and plan.delta[0] == 0.5
    assert not plan.warnings, "nothing was edited"


def test_what_is_selected_and_not_given_is_left_out() -> None:
    plan = planned(known([0.0] * 2, [1.0, 1.0]), _1=value(2.0))
    assert plan.skip.tolist() == [Skip.NOT_IN_SNAPSHOT, Skip.NONE]


def test_a_label_means_the_index_that_has_it_today() -> None:
    base = known([0] * 3, [1] * 3, [Kind.ENUM] * 3)
    base = replace(base, live_labels=lambda row: MODES)
    plan = planned(base, _0=value("Off", Kind.STRING), _1=value("On", Kind.STRING), _2=value("Up"))
    assert plan.skip.tolist() == [Skip.NONE, Skip.LABEL_GONE, Skip.LABEL_GONE]
    assert plan.target.data[0] == 0
    assert "stands twice" in plan.warnings[1][0] and "not among" in plan.warnings[2][0]


def test_given_values_are_held_against_limits_and_policies_and_can_be_edited() -> None:
    base = known([0.0] * 4, [0.0] * 4)
    base.control_low[0], base.control_high[0] = -1.0, 1.0
    back = Policy(completion=CompletionMode.READBACK)
    base = replace(
        base,
        readback_addresses=["R"] * 4,
        policies=PolicyRows.same_for_rows(4, {1: Policy(allowed_high=1.0), 2: back}),
        edits=[(np.array([3]), Linear(2.0))],
    )
    plan = planned(base, _0=value(2.0), _1=value(2.0), _2=value(2.0), _3=value(2.0))
    assert plan.skip.tolist() == [Skip.OUT_OF_RANGE, Skip.OUT_OF_RANGE, Skip.POLICY, Skip.NONE]
    assert plan.target.value(3) == 4.0 and plan.stored.value(3) == 2.0


def test_a_text_that_the_protocol_does_not_carry_is_left_out() -> None:
    base = known(["", "", ""], ["a", "a", "a"])
    base = replace(base, addresses=["A", "B$", "C"])
    long, fits = "x" * 40, "x" * 39
    plan = planned(base, _0=value(long), _1=value(long), _2=value(fits))
    assert plan.skip.tolist() == [Skip.COUNT_TOO_LARGE, Skip.NONE, Skip.NONE]
    assert "40 bytes" in plan.warnings[0][0]
    # what was given has not been cut by anybody
    assert 2 not in plan.warnings


@pytest.mark.parametrize("text", ["a\0b", ["a", "b\0"]])
def test_a_text_with_a_nul_byte_is_left_out(text: Any) -> None:
    plan = planned(known([text], ["a" if isinstance(text, str) else ["a", "b"]]), _0=value(text))
    assert plan.skip.tolist() == [Skip.COUNT_TOO_LARGE]
    assert "NUL" in plan.warnings[0][0]
