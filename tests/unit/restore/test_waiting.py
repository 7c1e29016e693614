"""What a plan says of how long it takes, and what it waits for."""

from __future__ import annotations

from dataclasses import replace

from drey_core.pv_table import CompletionMode, Policy
from drey_restore.domain.planning import make_plan
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
    given = replace(known([1.0] * 5, [0.0, 0.0, 0.0, 0.0, 1.0]), policies=policies)
    plan = make_plan(replace(given, done=frozenset({2})))
    assert stage_waits(plan) == (
        StageWait(2 * S, 60 * S, ((CALLBACK, 2),)),
        # one of them has no time-out of its own
        StageWait(0, None, ((CALLBACK, 1), (DONE, 1))),
    )


def test_a_ramp_takes_as_long_as_its_longest_way() -> None:
    plan = make_plan(known([10.0, 4.0], [0.0, 0.0]))
    ramp = Policy(completion=CompletionMode.READBACK, ramp_rate=2.0, settle_s=1.0)
    plan = replace(plan, policies=[ramp], policy_of=plan.policy_of * 0)
    assert stage_waits(plan) == (StageWait(6 * S, None, ((READBACK, 2),)),)


def test_a_plan_that_writes_nothing_waits_for_nothing() -> None:
    assert stage_waits(make_plan(known([1.0], [1.0]))) == ()
