"""What a plan says of how long it takes, and what it waits for."""

from __future__ import annotations

from dataclasses import replace

from drey_core.pv_table import CompletionMode, Policy
from drey_restore.domain.planning import make_plan
from drey_restore.domain.policy import PolicyRows
from drey_restore.domain.waiting import StageWait, stage_waits

from .test_planning import known

CALLBACK, DONE, READBACK = (
    int(CompletionMode.PUT_CALLBACK),
    int(CompletionMode.DONE_CHANNEL),
    int(CompletionMode.READBACK),
)
S = 10**9


def test_each_stage_says_what_it_waits_for_and_how_long() -> None:
    policies = {
        0: Policy(settle_s=2.0, timeout_s=30.0),
        1: Policy(timeout_s=60.0),
        2: Policy(stage=5, completion=CompletionMode.DONE_CHANNEL, done_channel="D", timeout_s=9.0),
        3: Policy(stage=5),
    }
    given = replace(
        known([1.0] * 5, [0.0, 0.0, 0.0, 0.0, 1.0]), policies=PolicyRows.same_for_rows(5, policies)
    )
    plan = make_plan(replace(given, done=frozenset({2})))
    assert stage_waits(plan) == (
        StageWait(2 * S, 60 * S, ((CALLBACK, 2),)),
        # one of them has no time-out of its own
        StageWait(0, None, ((CALLBACK, 1), (DONE, 1))),
    )


def ramped(policy: Policy, target: float = 10.0) -> StageWait:
    [wait] = stage_waits(
        make_plan(
            replace(known([target], [0.0]), policies=PolicyRows.same_for_rows(1, {0: policy}))
        )
    )
    return wait


def test_a_ramp_takes_as_long_as_its_rate_and_its_settle_times() -> None:
    """Steps at 2, 4, 6 and 8 a second apart, and then the target, which settles."""
    wait = ramped(Policy(ramp_rate=2.0, settle_s=0.5, timeout_s=3.0))
    assert wait == StageWait(4_500_000_000, 15 * S, ((CALLBACK, 1),), 1, 5, 0)
    # each step settles, which takes longer than its rate asks for
    assert ramped(Policy(ramp_rate=2.0, settle_s=1.5)).least_ns == 7_500_000_000
    assert ramped(Policy(ramp_rate=2.0)).most_ns is None


def test_a_ramp_without_a_rate_takes_its_settle_times_and_says_that_it_is_not_paced() -> None:
    wait = ramped(Policy(ramp_step=1.0, settle_s=0.5, timeout_s=3.0))
    assert wait == StageWait(5 * S, 30 * S, ((CALLBACK, 1),), 1, 10, 1)
    assert ramped(Policy(ramp_step=1.0)).unpaced_ramps == 1
    # one step away is no ramp
    assert ramped(Policy(ramp_step=10.0)) == StageWait(0, None, ((CALLBACK, 1),))


def test_limits_are_complete_before_values() -> None:
    given = known([1.0, 1.0], [0.0, 0.0])
    policy = Policy(settle_s=2.0, timeout_s=5.0)
    given = replace(
        given,
        addresses=["A.DRVH", "B"],
        policies=PolicyRows.same_for_rows(2, {0: policy, 1: policy}),
    )
    assert stage_waits(make_plan(given)) == (StageWait(4 * S, 10 * S, ((CALLBACK, 2),)),)


def test_a_plan_that_writes_nothing_waits_for_nothing() -> None:
    assert stage_waits(make_plan(known([1.0], [1.0]))) == ()
