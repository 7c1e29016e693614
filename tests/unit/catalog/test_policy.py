from __future__ import annotations

from dataclasses import fields, replace
from math import inf, nan

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drey_core.errors import InvalidArgument
from drey_core.pv_csv import parse_pvs
from drey_core.pv_csv_writer import write_pvs
from drey_core.pv_table import NO_POLICY, CompletionMode, Policy
from drey_snapshot.catalog.domain.policy import (
    BUILT_IN,
    OF_PV,
    PARTS,
    Effective,
    PolicySpeaker,
    SpeakerKind,
    check_policy,
    effective_policy,
    from_json,
    to_json,
    with_built_in,
)
from drey_snapshot.catalog.mapping import policy_from_proto, policy_to_proto

TAG = PolicySpeaker(SpeakerKind.TAG, "weak", "Kind")
OTHER = PolicySpeaker(SpeakerKind.TAG, "LI21", "Region")
DEVICE = PolicySpeaker(SpeakerKind.DEVICE, "PS:1")
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


@given(POLICIES, st.none() | st.floats(), st.none() | st.floats())
@example(NO_POLICY, -inf, inf)
def test_a_policy_that_is_taken_survives_a_file(policy: Policy, low, high) -> None:
    policy = replace(policy, allowed_low=low, allowed_high=high)
    try:
        check_policy(policy, has_readback=True, path="p")
    except InvalidArgument:
        return
    table = parse_pvs(b"Setpoint\nA\n").table
    table.policy = [policy]
    parsed = parse_pvs(write_pvs(table))
    assert parsed.problems == []
    assert parsed.table.policy == [policy]


def test_a_policy_that_says_nothing_is_empty() -> None:
    assert to_json(NO_POLICY) == ""
    assert from_json("") is NO_POLICY


@given(POLICIES)
def test_what_a_pv_says_holds(policy: Policy) -> None:
    found = effective_policy(
        policy, [(TAG, Policy(CompletionMode.SENT, 1.0))], (DEVICE, Policy(stage=4))
    )
    for field in fields(Policy):
        said = getattr(policy, field.name)
        if said != field.default:
            assert getattr(found.policy, field.name) == said


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (Policy(done_channel="X.DMOV"), "done_channel"),
        (Policy(CompletionMode.DONE_CHANNEL, done_channel="ca://X.DMOV"), "done_channel"),
        (Policy(CompletionMode.DONE_CHANNEL, done_channel="PVA://X"), "done_channel"),
        (Policy(CompletionMode.DONE_CHANNEL, done_channel="."), "done_channel"),
        (Policy(CompletionMode.DONE_CHANNEL, done_channel=".A.B"), "done_channel"),
        (Policy(CompletionMode.DONE_CHANNEL, done_channel="X", done_value=nan), "done_value"),
        (Policy(CompletionMode.DONE_CHANNEL, done_channel="X", done_value=inf), "done_value"),
        (Policy(CompletionMode.READBACK, done_value=1.0), "done_value"),
        (Policy(CompletionMode.SENT, ramp_rate=1.0), "ramp_rate"),
        (Policy(CompletionMode.SENT, ramp_step=1.0), "ramp_step"),
        (Policy(CompletionMode.READBACK, timeout_s=2.0, settle_s=2.0), "settle"),
        (Policy(CompletionMode.READBACK, settle_s=10.0), "settle"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(policy: Policy, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_policy(policy, has_readback=True, path="pv.restore_policy")
    assert caught.value.field == f"pv.restore_policy.{field}"


def test_a_policy_that_can_be_followed_is_taken() -> None:
    for policy in (
        Policy(CompletionMode.DONE_CHANNEL, 60.0, 1.0, done_channel="X.DMOV", done_value=1.0),
        Policy(CompletionMode.READBACK, 60.0, 5.0, ramp_rate=1.0),
        Policy(settle_s=30.0, timeout_s=2.0),
    ):
        check_policy(policy, has_readback=True, path="p")


def test_each_part_comes_from_the_pv_then_a_tag_then_the_device_then_drey() -> None:
    found = effective_policy(
        Policy(stage=1),
        [(TAG, Policy(stage=2, settle_s=1.0))],
        (DEVICE, Policy(stage=3, settle_s=2.0, ramp_step=0.5)),
    )
    assert found.policy == Policy(stage=1, settle_s=1.0, ramp_step=0.5)
    assert found.sources == (("settle", TAG), ("stage", OF_PV), ("ramp_step", DEVICE))
    whole = with_built_in(found)
    assert whole.policy.completion == CompletionMode.PUT_CALLBACK
    assert dict(whole.sources)["completion"] == BUILT_IN
    assert {part for part, _ in whole.sources} == set(PARTS)


def test_a_completion_brings_its_done_channel() -> None:
    of_tag = Policy(CompletionMode.DONE_CHANNEL, done_channel=".DMOV")
    assert effective_policy(Policy(CompletionMode.SENT), [(TAG, of_tag)]).policy == Policy(
        CompletionMode.SENT
    )
    assert effective_policy(
        NO_POLICY, [(TAG, of_tag)], (DEVICE, Policy(CompletionMode.SENT))
    ) == Effective(of_tag, (("completion", TAG),))


def test_of_several_tags_the_strictest_counts() -> None:
    one = Policy(settle_s=1.0, ramp_rate=2.0, ramp_step=0.5, allowed_low=-5.0, allowed_high=5.0)
    other = Policy(settle_s=3.0, ramp_rate=1.0, ramp_step=0.7, allowed_low=-2.0)
    found = effective_policy(NO_POLICY, [(TAG, one), (OTHER, other)])
    assert found.policy == Policy(
        settle_s=3.0, ramp_rate=1.0, ramp_step=0.5, allowed_low=-2.0, allowed_high=5.0
    )
    assert found.sources == (
        ("settle", OTHER),
        ("ramp_rate", OTHER),
        ("ramp_step", TAG),
        ("allowed", TAG),
        ("allowed", OTHER),
    )
    assert found.contradictions == ()


@pytest.mark.parametrize(
    ("own", "one", "other", "why"),
    [
        (NO_POLICY, Policy(stage=1), Policy(stage=2), "different things of stage"),
        (NO_POLICY, Policy(timeout_s=1.0), Policy(timeout_s=2.0), "different things of timeout"),
        (
            NO_POLICY,
            Policy(CompletionMode.SENT),
            Policy(CompletionMode.READBACK),
            "the tag Kind=weak and the tag Region=LI21 say different things of completion",
        ),
        (NO_POLICY, Policy(allowed_high=1.0), Policy(allowed_low=2.0), "nothing in common"),
        (Policy(CompletionMode.SENT), Policy(ramp_step=1.0), NO_POLICY, "a ramp waits"),
        (Policy(CompletionMode.READBACK), Policy(settle_s=60.0), NO_POLICY, "does not fit"),
    ],
)
def test_what_cannot_be_followed_together_is_said(
    own: Policy, one: Policy, other: Policy, why: str
) -> None:
    found = effective_policy(own, [(TAG, one), (OTHER, other)])
    assert len(found.contradictions) == 1 and why in found.contradictions[0]
    # where the PV itself says it, tags contradict nobody
    says_it = Policy(CompletionMode.PUT_CALLBACK, 5.0, 0.0, 1, allowed_low=0.0)
    assert effective_policy(says_it, [(TAG, one), (OTHER, other)]).contradictions == ()


@given(st.lists(POLICIES, max_size=3), POLICIES, POLICIES)
def test_every_part_has_a_source_exactly_where_it_is_said(
    tags: list[Policy], device: Policy, own: Policy
) -> None:
    named = [(PolicySpeaker(SpeakerKind.TAG, str(i), "G"), tag) for i, tag in enumerate(tags)]
    found = effective_policy(own, named, (DEVICE, device))
    said = {
        part
        for part, names in PARTS.items()
        if any(
            getattr(policy, name) != getattr(NO_POLICY, name)
            for policy in (own, device, *tags)
            for name in names
        )
    }
    assert {part for part, _ in found.sources} == said
