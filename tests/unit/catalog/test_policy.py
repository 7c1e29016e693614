from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.errors import InvalidArgument
from drey_core.pv_table import NO_POLICY, CompletionMode, Policy
from drey_snapshot.catalog.domain.policy import check, effective, from_json, to_json
from drey_snapshot.catalog.mapping import policy_from_proto, policy_to_proto

FINITE = st.none() | st.floats(allow_nan=False, allow_infinity=False)
SECONDS = st.none() | st.integers(0, 10**12).map(lambda ns: ns / 10**9)
POLICIES = st.builds(
    Policy,
    completion=st.sampled_from(CompletionMode),
    timeout_s=SECONDS,
    settle_s=SECONDS,
    stage=st.none() | st.integers(-(2**31), 2**31 - 1),
    done_channel=st.sampled_from(["", "M:1.DMOV", 'x"\\']),
    done_value=st.none() | st.floats(allow_nan=False),
    ramp_rate=FINITE,
    ramp_step=FINITE,
    allowed_low=FINITE,
    allowed_high=FINITE,
)


@given(POLICIES)
def test_policies_survive_the_database(policy: Policy) -> None:
    assert from_json(to_json(policy)) == policy


@given(POLICIES)
def test_policies_survive_the_wire(policy: Policy) -> None:
    assert policy_from_proto(policy_to_proto(policy), "p") == policy


def test_a_policy_that_says_nothing_is_empty() -> None:
    assert to_json(NO_POLICY) == ""
    assert from_json("") is NO_POLICY


@given(POLICIES)
def test_what_a_pv_says_holds(policy: Policy) -> None:
    found = effective(policy)
    for field in fields(Policy):
        said = getattr(policy, field.name)
        if said != field.default:
            assert getattr(found.policy, field.name) == said


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (Policy(done_channel="X.DMOV"), "done_channel"),
        (Policy(CompletionMode.READBACK, done_value=1.0), "done_value"),
        (Policy(CompletionMode.SENT, ramp_rate=1.0), "ramp_rate"),
        (Policy(CompletionMode.SENT, ramp_step=1.0), "ramp_step"),
        (Policy(CompletionMode.READBACK, timeout_s=2.0, settle_s=2.0), "settle"),
        (Policy(CompletionMode.READBACK, settle_s=6.0), "settle"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(policy: Policy, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(policy, has_readback=True, path="pv.restore_policy")
    assert caught.value.field == f"pv.restore_policy.{field}"


def test_a_policy_that_can_be_followed_is_taken() -> None:
    for policy in (
        Policy(CompletionMode.DONE_CHANNEL, 60.0, 1.0, done_channel="X.DMOV", done_value=1.0),
        Policy(CompletionMode.READBACK, 60.0, 5.0, ramp_rate=1.0),
        Policy(settle_s=30.0, timeout_s=2.0),
    ):
        check(policy, has_readback=True, path="p")
