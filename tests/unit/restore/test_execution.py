"""Laws of an execution: every PV has one verdict, whatever happens, and nothing is sent twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey_core.errors import Internal, Reason
from drey_core.values import Columns
from drey_restore.domain.execution import Batch, Execution, all_verified, replay, shortfall
from drey_restore.domain.items import Outcome, PlanItems
from drey_restore.domain.kinds import RestoreState, Skip, Verdict, may_follow

CODES = (1, 80, 192, 160, 376, 440)


def items_of(skips: list[int]) -> PlanItems:
    n = len(skips)
    zeros = np.zeros(n)
    return PlanItems(
        number=np.arange(1, n + 1),
        names=[f"PV:{i}" for i in range(n)],
        addresses=[f"PV:{i}:SP" for i in range(n)],
        readback_addresses=[""] * n,
        current=Columns.empty(n),
        stored=Columns.empty(n),
        target=Columns.empty(n),
        stored_readback=Columns.empty(n),
        absolute=zeros,
        relative=zeros,
        readback_absolute=zeros,
        readback_relative=zeros,
        delta=zeros,
        deviation=zeros,
        stage=np.zeros(n, np.int32),
        policy_of=np.zeros(n, np.int32),
        skip=np.array(skips, np.uint8),
        label_of=np.full(n, -1, np.int32),
        stored_label_of=np.full(n, -1, np.int32),
        warnings={0: ("mind the gap", "and the step")} if n else {},
    )


@st.composite
def stories(draw: st.DrawFn) -> tuple[PlanItems, list[Batch], bool]:
    """A plan, a journal in which some batches have no result, and whether reading worked."""
    items = items_of(draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 14]), max_size=40)))
    rows = items.writes.tolist()
    batches, at = [], 0
    stop = draw(st.integers(0, len(rows)))
    while at < stop:
        size = draw(st.integers(1, 7))
        part = np.array(rows[at : min(at + size, stop)], np.int64)
        codes = np.array(draw(st.lists(st.sampled_from(CODES), min_size=size, max_size=size)))
        known = draw(st.booleans())
        batches.append(
            Batch(part, 100 + at, codes[: len(part)].astype(np.int32) if known else None, 200)
        )
        at += size
    return items, batches, draw(st.booleans())


@settings(deadline=None)
@given(stories())
def test_the_verdicts_add_up_to_the_plan_at_every_moment(
    story: tuple[PlanItems, list[Batch], bool],
) -> None:
    items, batches, read = story
    execution = Execution(items)
    for batch in batches:
        execution.intend(batch.rows, batch.intent_time)
        assert sum(execution.counts) == len(items)
        if batch.codes is not None:
            execution.result(batch.rows, batch.codes, batch.result_time)
        assert sum(execution.counts) == len(items)
    told = replay(items, batches)
    assert told.verdict.tolist() == execution.verdict.tolist()
    assert told.code.tolist() == execution.code.tolist()
    execution.close()
    counts = execution.counts
    assert sum(counts) == len(items)
    assert counts[Verdict.PENDING] == counts[Verdict.UNSPECIFIED] == 0
    announced = sum(len(b.rows) for b in batches)
    assert counts[Verdict.NOT_SENT] == len(items.writes) - announced
    rows = items.writes
    before = execution.verdict.copy()
    no = np.zeros(len(rows), bool)
    execution.verify(rows, ~no, np.full(len(rows), read), np.full(len(rows), -1, np.int8), no)
    changed = before != execution.verdict
    assert (before[changed] == Verdict.WRITTEN).all()
    assert sum(execution.counts) == len(items)


@settings(deadline=None)
@given(stories())
def test_nothing_is_announced_twice(story: tuple[PlanItems, list[Batch], bool]) -> None:
    items, batches, _ = story
    told = replay(items, batches)
    for batch in batches:
        with pytest.raises(Internal):
            told.intend(batch.rows[:1], 1)


def test_what_was_never_handed_over_is_not_sent() -> None:
    execution = Execution(items_of([0, 0]))
    execution.intend(np.array([0, 1]), 5)
    execution.result(np.array([0, 1]), np.array([80, 480], np.int32), 6)
    assert execution.verdict.tolist() == [Verdict.TIMED_OUT, Verdict.NOT_SENT]
    assert execution.sent_time.tolist() == [5, 0]


def test_a_result_needs_an_intent() -> None:
    execution = Execution(items_of([0, 0]))
    with pytest.raises(Internal):
        execution.result(np.array([0]), np.array([1], np.int32), 5)


def test_what_is_not_announced_after_the_end() -> None:
    execution = Execution(items_of([0, 0]))
    execution.close()
    with pytest.raises(Internal):
        execution.intend(np.array([0]), 5)


def test_all_verified_is_said_only_of_what_was() -> None:
    counts = [0] * len(Verdict)
    assert not all_verified(counts)
    counts[Verdict.VERIFIED], counts[Verdict.EQUAL_ALREADY] = 3, 4
    assert all_verified(counts)
    for verdict in set(Verdict) - {Verdict.VERIFIED, Verdict.EQUAL_ALREADY}:
        other = list(counts)
        other[verdict] = 1
        assert not all_verified(other)


def test_completion_by_readback_needs_the_readback() -> None:
    items = items_of([0, 0, 0])
    items.completion[:] = 3
    execution = Execution(items)
    rows = np.arange(3)
    execution.intend(rows, 1)
    execution.result(rows, np.ones(3, np.int32), 2)
    reached = np.array([1, 0, -1], np.int8)
    execution.verify(rows, np.ones(3, bool), np.ones(3, bool), reached, np.zeros(3, bool))
    assert execution.verdict.tolist() == [
        Verdict.VERIFIED,
        Verdict.NOT_REACHED,
        Verdict.NOT_REACHED,
    ]


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, 1, 3]), max_size=20))
def test_items_and_outcomes_survive_their_bytes(skips: list[int]) -> None:
    items = items_of(skips)
    raw = items.encode()
    back = PlanItems.decode(raw)
    assert back.encode() == raw
    assert back.names == items.names
    assert dict(back.warnings) == dict(items.warnings)
    outcome = Outcome.fresh(items, Execution(items).verdict)
    assert Outcome.decode(outcome.encode()).encode() == outcome.encode()


def test_states_end_for_good() -> None:
    for state in RestoreState:
        for other in RestoreState:
            if state.ended:
                assert not may_follow(state, other)
    assert not may_follow(RestoreState.WRITING, RestoreState.FAILED)
    assert int(Skip.NONE) == 0


def test_a_refusal_that_only_the_alarm_shows_is_not_verified() -> None:
    execution = Execution(items_of([0, 0]))
    rows, yes = np.arange(2), np.ones(2, bool)
    execution.intend(rows, 1)
    execution.result(rows, np.ones(2, np.int32), 2)
    execution.verify(rows, yes, yes, np.full(2, -1, np.int8), np.array([True, False]))
    assert execution.verdict.tolist() == [Verdict.IN_ALARM, Verdict.VERIFIED]
    # the last read counts
    execution.verify(rows, ~yes, yes, np.full(2, -1, np.int8), ~yes)
    assert execution.verdict.tolist() == [Verdict.NOT_REACHED] * 2


def test_what_was_equal_is_looked_at_too() -> None:
    items = items_of([Skip.EQUAL, Skip.EQUAL, Skip.READ_ONLY, 0])
    execution = Execution(items)
    execution.check_equal(np.arange(3), np.array([True, False, False]))
    assert execution.verdict.tolist() == [
        Verdict.EQUAL_ALREADY,
        Verdict.NO_LONGER_EQUAL,
        Verdict.SKIPPED,
        Verdict.PENDING,
    ]
    execution.intend(np.array([3]), 1)
    execution.result(np.array([3]), np.ones(1, np.int32), 2)
    yes = np.ones(1, bool)
    execution.verify(np.array([3]), yes, yes, np.full(1, -1, np.int8), ~yes)
    execution.close()
    state, error = shortfall(items, execution, 1.0)
    assert state == RestoreState.COMPLETED
    assert error is not None
    assert error.reason == Reason.NOT_ALL_VERIFIED
    assert items.names[1] in error.message
