"""What a plan looks at before anything is written: records, limits, order, lost values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.pv_table import Policy
from drey_restore.domain.kinds import Skip
from drey_restore.domain.planning import PlanInput, WayBack, make_plan

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


@pytest.mark.parametrize(("refuse", "skip"), [(False, Skip.NONE), (True, Skip.INVALID_SOURCE)])
def test_what_was_invalid_when_it_was_stored_is_told_or_refused(refuse: bool, skip: Skip) -> None:
    given = planned(["X", "Y", "Z"], refuse_invalid=refuse)
    given.stored.severity[:2], given.stored.status[:2] = 3, [17, 5]
    plan = make_plan(given)
    assert plan.skip.tolist() == [skip, skip, Skip.NONE]
    assert "never set" in plan.warnings[0][0]
    assert "INVALID" in plan.warnings[1][0]
    assert 2 not in plan.warnings


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
    late = make_plan(replace(given, policies={1: Policy(stage=1)}))
    assert late.skip[0] == Skip.OUT_OF_RANGE


NAMES = st.sampled_from(["A", "A.DRVH", "A.DRVL", "A.SPMG", "B", "B.HLM", "C.DESC", "D", "E.VAL"])


@given(st.lists(NAMES, unique=True, min_size=1), st.lists(st.integers(-3, 3), min_size=9))
def test_writes_go_by_stage_and_limits_before_values(names: list[str], stages: list[int]) -> None:
    policies = {row: Policy(stage=stages[row]) for row in range(len(names))}
    plan = make_plan(planned(names, policies=policies))
    order = plan.writes.tolist()
    assert sorted(order) == np.flatnonzero(plan.skip == 0).tolist()
    keys = [(plan.stage[row], bool(plan.is_value[row])) for row in order]
    assert keys == sorted(keys)
    assert [row for stage in plan.stages for row in stage.tolist()] == order


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
        back=WayBack(columns([1.0] * n), np.arange(n, dtype=np.int32), also_changed),
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
