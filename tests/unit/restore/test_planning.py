"""Why a PV is left out, in order, and what is written otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drey_core.compare import DifferenceClass, compare
from drey_core.pv_table import CompletionMode, Policy
from drey_core.values import ARRAY, Columns, Kind, State
from drey_restore.domain import blob
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import Completion, Skip
from drey_restore.domain.planning import PlanInput, make_plan
from drey_restore.domain.policy import PolicyRows


def columns(values: list[object], kinds: list[int | None] | None = None) -> Columns:
    n = len(values)
    there = [v is not None for v in values]
    out = Columns.from_values(
        np.arange(n), [0.0 if v is None else v for v in values], kinds or [None] * n
    )
    out.state[:] = State.CONNECTED
    out.kind[~np.array(there, bool)] = 0
    out.state[~np.array(there, bool)] = State.NEVER_CONNECTED
    return out


def known(
    stored: list[object],
    live: list[object],
    kinds: list[int | None] | None = None,
    live_kinds: list[int | None] | None = None,
    labels: tuple[dict[int, tuple[bytes, ...]], dict[int, tuple[bytes, ...]]] = ({}, {}),
) -> PlanInput:
    n = len(stored)
    zeros, no = np.zeros(n), np.zeros(n, bool)
    return PlanInput(
        number=np.arange(1, n + 1),
        names=[f"PV:{i}" for i in range(n)],
        addresses=[f"SP:{i}" for i in range(n)],
        readback_addresses=[""] * n,
        setpoint_channel=np.arange(1, n + 1),
        readback_channel=np.zeros(n, np.int64),
        protocol=np.ones(n, np.uint8),
        read_only=no.copy(),
        deleted=no.copy(),
        absolute=zeros.copy(),
        relative=zeros.copy(),
        readback_absolute=zeros.copy(),
        readback_relative=zeros.copy(),
        stored=columns(stored, kinds),
        stored_readback=Columns.empty_columns(n),
        stored_labels=labels[0],
        live=columns(live, live_kinds or kinds),
        live_count=np.full(n, 4),
        live_labels=lambda row: labels[1].get(row, ()),
        stale=no.copy(),
        writable=~no,
        control_low=np.full(n, np.nan),
        control_high=np.full(n, np.nan),
        policies=PolicyRows.same_for_rows(n, {}),
    )


def test_a_difference_is_written() -> None:
    plan = make_plan(known([1.5, 2.0], [1.0, 2.0]))
    assert plan.skip.tolist() == [Skip.NONE, Skip.EQUAL]
    assert plan.target.value(0) == 1.5
    assert plan.target.kind.tolist() == [Kind.FLOAT64, Kind.NONE]
    assert plan.delta[0] == 0.5
    assert plan.deviation[0] == np.inf


def test_the_first_reason_is_given() -> None:
    """Row i breaks the rules i, i + 1, ...; the reasons come in their order."""
    given = known([1.0] * 9, [2.0] * 9)
    given.deleted[:1] = True
    given.setpoint_channel[:2] = 0
    given.read_only[:3] = True
    given.protocol[:4] = 2
    given.stored.kind[:5] = 0
    given.live.state[:6] = State.DISCONNECTED
    given.stale[:7] = True
    given.writable[:8] = False
    assert make_plan(given).skip.tolist() == [
        Skip.DELETED,
        Skip.NO_SETPOINT,
        Skip.READ_ONLY,
        Skip.UNSUPPORTED,
        Skip.NOT_IN_SNAPSHOT,
        Skip.DISCONNECTED,
        Skip.STALE,
        Skip.NOT_WRITABLE,
        Skip.NONE,
    ]
    excluded = replace(given, excluded=np.ones(9, bool))
    assert set(make_plan(excluded).skip.tolist()) == {Skip.EXCLUDED}


def test_tolerance_and_exact() -> None:
    given = known([1.0, 1.0, -0.0], [1.05, 1.0, 0.0])
    given.absolute[:] = 0.1
    assert make_plan(given).skip.tolist() == [Skip.EQUAL] * 3
    assert make_plan(given, exact=True).skip.tolist() == [Skip.NONE, Skip.EQUAL, Skip.NONE]


def test_values_that_a_record_would_refuse() -> None:
    nan, inf = float("nan"), float("inf")
    given = known([nan, nan, inf, 7.0, 7.0], [nan, 1.0, 1.0, 1.0, 1.0])
    given.control_low[3:], given.control_high[3:] = -5.0, [5.0, -5.0]
    assert make_plan(given).skip.tolist() == [
        Skip.EQUAL,
        Skip.NOT_FINITE,
        Skip.NOT_FINITE,
        Skip.OUT_OF_RANGE,
        Skip.NONE,
    ]


def test_arrays_are_looked_into() -> None:
    kind = Kind.FLOAT64 | ARRAY
    stored: list[object] = [[1.0, 9.0], [1.0, float("nan")], [1.0] * 5, [1.0, 2.0]]
    live: list[object] = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]
    given = known(stored, live, [kind] * 4)
    given.control_low[:], given.control_high[:] = -5.0, 5.0
    assert make_plan(given).skip.tolist() == [
        Skip.OUT_OF_RANGE,
        Skip.NOT_FINITE,
        Skip.COUNT_TOO_LARGE,
        Skip.EQUAL,
    ]


def test_types_that_changed() -> None:
    f8, i4, enum, text = Kind.FLOAT64, Kind.INT32, Kind.ENUM, Kind.STRING
    given = known(
        [3.0, 3.5, 1e12, b"on", 1, [4.0], [4.0, 5.0]],
        [1, 1, 1, 1.0, 1.0, 0.0, 0.0],
        [f8, f8, f8, text, enum, f8 | ARRAY, f8 | ARRAY],
        [i4, i4, i4, f8, f8, f8, f8],
    )
    plan = make_plan(given)
    assert plan.skip.tolist() == [
        Skip.NONE,
        Skip.TYPE_CHANGED,
        Skip.TYPE_CHANGED,
        Skip.TYPE_CHANGED,
        Skip.TYPE_CHANGED,
        Skip.NONE,
        Skip.COUNT_TOO_LARGE,
    ]
    assert plan.target.kind[0] == i4
    assert plan.target.value(0) == 3
    assert plan.target.value(5) == 4.0
    assert "int32" in plan.warnings[0][0]


def test_enums_go_by_label() -> None:
    old, new = (b"Off", b"On", b"Hold"), (b"Hold", b"Off", b"On")
    given = known(
        [1, 1, 2, 1],
        [1, 2, 1, 0],
        [Kind.ENUM] * 4,
        labels=(
            {0: old, 1: old, 2: (b"A", b"B", b"Gone"), 3: old},
            {0: new, 1: new, 2: new, 3: old},
        ),
    )
    plan = make_plan(given)
    assert plan.skip.tolist() == [Skip.NONE, Skip.EQUAL, Skip.LABEL_GONE, Skip.NONE]
    assert plan.target.value(0) == 2
    assert plan.warnings[0] == ("enum index moved from 1 to 2",)
    assert plan.labels(0) == new
    assert 3 not in plan.warnings


def test_one_record_is_written_once() -> None:
    given = known([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    given.addresses[:] = ["A", "A.VAL", "B"]
    assert make_plan(given).skip.tolist() == [Skip.NONE, Skip.DUPLICATE_ADDRESS, Skip.NONE]


def test_the_digest_covers_every_item() -> None:
    plan = make_plan(known([1.0, b"x"], [0.0, b"y"]))
    raw = plan.encode_items()
    assert PlanItems.decode_items(raw).encode_items() == raw
    other = make_plan(known([1.0, b"z"], [0.0, b"y"]))
    assert blob.digest(raw) != blob.digest(other.encode_items())
    assert len(blob.digest(raw)) == 64


@pytest.mark.parametrize("n", [0, 1])
def test_small_plans(n: int) -> None:
    assert len(make_plan(known([1.0] * n, [2.0] * n))) == n


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (Policy(completion=CompletionMode.DONE_CHANNEL, done_channel="X.DMOV"), "X.DMOV"),
        (Policy(completion=CompletionMode.READBACK), "the PV has none"),
        (Policy(ramp_rate=1e-6), "has a ramp"),
        (Policy(ramp_step=1e-6), "has a ramp"),
    ],
)
def test_a_policy_that_cannot_be_followed_leaves_out(policy: Policy, why: str) -> None:
    given = replace(
        known([1.0, 1.0, 2.0], [2.0, 2.0, 2.0]),
        policies=PolicyRows.same_for_rows(3, {0: policy, 2: policy}),
    )
    plan = make_plan(given)
    assert plan.skip.tolist() == [Skip.POLICY, Skip.NONE, Skip.EQUAL]
    assert plan.target.kind[0] == Kind.NONE
    assert why in plan.warnings[0][0]
    assert 2 not in plan.warnings


def test_completion_by_readback_needs_a_value_of_it_in_the_source() -> None:
    policies = dict.fromkeys(range(2), Policy(completion=CompletionMode.READBACK))
    given = replace(
        known([1.0, 1.0], [2.0, 2.0]),
        policies=PolicyRows.same_for_rows(2, policies),
        readback_addresses=["RB:0", "RB:1"],
        stored_readback=columns([1.0, None]),
    )
    plan = make_plan(given)
    assert plan.skip.tolist() == [Skip.NONE, Skip.POLICY]
    assert plan.completion.tolist() == [Completion.READBACK] * 2


def test_policies_are_followed_in_their_stages() -> None:
    policies = {
        0: Policy(stage=2),
        1: Policy(stage=-1, completion=CompletionMode.SENT),
        2: Policy(completion=CompletionMode.DONE_CHANNEL, done_channel="X.DMOV", timeout_s=90.0),
        3: Policy(stage=2, settle_s=1.0),
    }
    given = replace(
        known([1.0] * 5, [2.0] * 5),
        policies=PolicyRows.same_for_rows(5, policies),
        done=frozenset({2}),
    )
    plan = make_plan(given)
    assert plan.skip.tolist() == [Skip.NONE] * 5
    assert [rows.tolist() for rows in plan.rows_by_stage] == [[1], [2, 4], [0, 3]]
    assert [plan.done_address(row) for row in range(5)] == ["", "", "X.DMOV", "", ""]


def test_what_a_policy_does_not_allow_is_not_written() -> None:
    allowed = Policy(allowed_low=0.0, allowed_high=5.0)
    wave = Kind.FLOAT64 | ARRAY
    given = known(
        [5.0, 5.1, -0.1, [1.0, 6.0], b"x"],
        [1.0, 1.0, 1.0, [1.0, 1.0], b"y"],
        [None, None, None, wave, None],
    )
    plan = make_plan(
        replace(given, policies=PolicyRows.same_for_rows(5, dict.fromkeys(range(5), allowed)))
    )
    assert plan.skip.tolist() == [Skip.NONE, *[Skip.OUT_OF_RANGE] * 3, Skip.POLICY]
    assert plan.warnings[1] == ("its restore policy allows 0 to 5",)
    assert "not a number" in plan.warnings[4][0]


@pytest.mark.parametrize(
    ("stored", "live", "skip"),
    [
        (1.5, [2.5], Skip.NONE),
        ([1.5], 2.5, Skip.NONE),
        (1.5, [1.5], Skip.EQUAL),
        ([1.5], 1.5, Skip.EQUAL),
        (b"a", [b"b"], Skip.NONE),
        ([b"a"], b"b", Skip.NONE),
        (1.5, [2.5, 3.5], Skip.TYPE_CHANGED),
        ([1.5, 2.5], 2.5, Skip.COUNT_TOO_LARGE),
    ],
)
def test_a_scalar_and_an_array_of_one_are_the_same_for_plan_and_compare(
    stored: object, live: object, skip: Skip
) -> None:
    kinds = [_kind(value) for value in (stored, live)]
    given = known([stored], [live], [kinds[0]], [kinds[1]])
    plan = make_plan(given)
    assert plan.skip.tolist() == [skip]
    cls = compare(given.stored, given.live, np.zeros(1), np.zeros(1)).cls[0]
    assert (cls == DifferenceClass.TYPE_CHANGED) == (
        skip in (Skip.TYPE_CHANGED, Skip.COUNT_TOO_LARGE)
    )
    if skip == Skip.NONE:
        assert plan.target.kind[0] == kinds[1]


def _kind(value: object) -> int:
    listed = value if isinstance(value, list) else [value]
    kind = Kind.STRING if isinstance(listed[0], bytes) else Kind.FLOAT64
    return int(kind) | (ARRAY if isinstance(value, list) else 0)
