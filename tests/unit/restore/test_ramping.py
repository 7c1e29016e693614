"""No change on the way to a target is larger than a step, wherever it begins."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.pv_table import Policy
from drey_restore.domain.kinds import Skip
from drey_restore.domain.planning import make_plan
from drey_restore.domain.policy import MAX_STEPS, PolicyRows
from drey_restore.domain.ramping import (
    Climbing,
    expected_readback,
    step_size,
    steps_between,
    steps_passed,
)

from .test_planning import known

VALUES = st.floats(-1000, 1000)
SIZES = st.floats(0.01, 2000)
NUMBERS = st.integers(-5000, 5000)


@given(VALUES, VALUES, SIZES)
def test_steps_are_even_and_small_enough(now: float, target: float, size: float) -> None:
    steps = steps_between(now, target, size)
    if steps is None:
        assert abs(target - now) > size * MAX_STEPS
        return
    way = [now, *steps, target]
    assert all(abs(b - a) <= size * (1 + 1e-6) for a, b in pairwise(way))
    assert way == sorted(way, reverse=target < now)
    assert len(steps) <= MAX_STEPS


@given(NUMBERS, NUMBERS, st.floats(0.5, 300))
def test_steps_of_whole_numbers_are_whole(now: int, target: int, size: float) -> None:
    steps = steps_between(float(now), float(target), size, whole=True)
    if steps is None:
        assert size < 1 or abs(target - now) > MAX_STEPS
        return
    way = [now, *steps, target]
    assert all(step.is_integer() for step in steps)
    assert all(abs(b - a) <= size * (1 + 1e-6) for a, b in pairwise(way))


@given(VALUES, VALUES, SIZES, VALUES)
def test_from_elsewhere_it_goes_on_or_not_at_all(
    now: float, target: float, size: float, moved: float
) -> None:
    steps = steps_between(now, target, size)
    if steps is None:
        return
    passed = steps_passed(steps, moved, target, size)
    if passed is not None:
        way = [moved, *steps[passed:], target]
        assert all(abs(b - a) <= size * (1 + 1e-6) for a, b in pairwise(way))
    assert steps_passed(steps, now, target, size) == 0


def test_a_ramp_that_would_jump_does_not_begin() -> None:
    steps = steps_between(0.0, 10.0, 1.0)
    assert steps is not None
    assert steps_passed(steps, 8.5, 10.0, 1.0) == 8
    assert steps_passed(steps, -5.0, 10.0, 1.0) is None
    assert steps_passed(steps, 20.0, 10.0, 1.0) is None


@pytest.mark.parametrize(
    ("policy", "size"),
    [
        (Policy(), None),
        (Policy(ramp_step=2.0), 2.0),
        (Policy(ramp_rate=0.5), 0.5),
        (Policy(ramp_rate=4.0, ramp_step=2.0), 2.0),
        (Policy(ramp_rate=1.0, ramp_step=2.0), 1.0),
    ],
)
def test_rate_and_step(policy: Policy, size: float | None) -> None:
    assert step_size(policy) == size


def climb(policies: list[Policy]) -> Climbing:
    n = len(policies)
    return Climbing(np.zeros(n), [(2.0, 4.0)] * n, [0] * n, policies, 100.0)


def test_a_step_follows_the_one_that_was_reached_as_soon_as_the_rate_allows() -> None:
    ramps, both = climb([Policy(ramp_step=2.0), Policy(ramp_rate=0.5)]), np.arange(2)
    assert ramps.due_ramps(100.0).tolist() == [0, 1]
    assert ramps.next_values(both).tolist() == [2.0, 2.0]
    ramps.begin_step(both)
    assert ramps.due_ramps(200.0).tolist() == []
    assert ramps.next_due() is None
    ramps.arrive_at_step(both, np.array([True, True]), 100.0)
    assert ramps.value.tolist() == [2.0, 2.0]
    assert ramps.due_ramps(100.0).tolist() == [0]
    assert ramps.next_due() == 100.0
    assert ramps.due_ramps(104.0).tolist() == [0, 1]
    ramps.begin_step(both)
    ramps.arrive_at_step(both, np.array([True, False]), 104.0)
    assert ramps.stopped.tolist() == [False, True]
    assert ramps.done.tolist() == [True, False]
    ramps.leave_ramps(np.array([0]))
    assert not ramps.open_ramps.any()


def test_a_readback_goes_with_its_setpoint() -> None:
    step = np.array([0.0, 5.0, 10.0])
    same = np.ones(3)
    found = expected_readback(100 * same, 200 * same, 0 * same, 10 * same, step)
    assert found.tolist() == [100.0, 150.0, 200.0]


def test_steps_are_in_the_plan() -> None:
    policy = Policy(ramp_step=2.0)
    given = replace(
        known([6.0, 6.0, 6.0], [0.0, 5.0, 0.0]),
        policies=PolicyRows.same_for_rows(3, {0: policy, 1: policy}),
    )
    plan = make_plan(given)
    assert plan.skip.tolist() == [Skip.NONE] * 3
    assert dict(plan.ramps) == {0: (2.0, 4.0)}
    assert dict(type(plan).decode_items(plan.encode_items()).ramps) == {0: (2.0, 4.0)}


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (Policy(ramp_step=0.001), "too many"),
        (Policy(ramp_step=2.0, allowed_low=5.5), "a step outside the range"),
    ],
)
def test_a_ramp_that_cannot_be_told_leaves_its_pv_out(policy: Policy, why: str) -> None:
    plan = make_plan(
        replace(known([6.0], [0.0]), policies=PolicyRows.same_for_rows(1, {0: policy}))
    )
    assert plan.skip.tolist() == [Skip.POLICY], why
    assert "ramp" in plan.warnings[0][0]
    assert not plan.ramps


def test_what_is_no_number_has_no_ramp() -> None:
    given = replace(
        known(["on"], ["off"]), policies=PolicyRows.same_for_rows(1, {0: Policy(ramp_step=2.0)})
    )
    plan = make_plan(given)
    assert plan.skip.tolist() == [Skip.POLICY]
    assert "ramp" in plan.warnings[0][0]
