"""Laws of an execution: every PV has one verdict, whatever happens, and nothing is sent twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey_core.errors import Internal, Reason
from drey_core.values import Columns
from drey_restore.domain.execution import (
    Execution,
    JournalBatch,
    counts_by_journal,
    end_by_shortfall,
    replay_execution,
)
from drey_restore.domain.items import Carried, Outcome, PlanItems
from drey_restore.domain.kinds import TRANSITIONS, RestoreState, Skip, Verdict, all_verified

CODES = (1, 80, 192, 160, 376, 440)


def items_of(skips: list[int]) -> PlanItems:
    n = len(skips)
    zeros = np.zeros(n)
    return PlanItems(
        number=np.arange(1, n + 1),
        names=[f"PV:{i}" for i in range(n)],
        addresses=[f"PV:{i}:SP" for i in range(n)],
        readback_addresses=[""] * n,
        current=Columns.empty_columns(n),
        stored=Columns.empty_columns(n),
        target=Columns.empty_columns(n),
        stored_readback=Columns.empty_columns(n),
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
def stories(draw: st.DrawFn) -> tuple[PlanItems, list[JournalBatch], bool]:
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
            JournalBatch(
                part, 100 + at, codes[: len(part)].astype(np.int32) if known else None, 200
            )
        )
        at += size
    return items, batches, draw(st.booleans())


@settings(deadline=None)
@given(stories())
def test_the_verdicts_add_up_to_the_plan_at_every_moment(
    story: tuple[PlanItems, list[JournalBatch], bool],
) -> None:
    items, batches, read = story
    execution = Execution(items)
    for batch in batches:
        execution.mark_intended(batch.rows, batch.intent_time)
        assert sum(execution.counts) == len(items)
        if batch.codes is not None:
            execution.mark_result(batch.rows, batch.codes, batch.result_time)
        assert sum(execution.counts) == len(items)
    told = replay_execution(items, batches)
    assert told.verdict.tolist() == execution.verdict.tolist()
    assert told.code.tolist() == execution.code.tolist()
    execution.close_books()
    counts = execution.counts
    assert sum(counts) == len(items)
    assert counts[Verdict.PENDING] == counts[Verdict.UNSPECIFIED] == 0
    announced = sum(len(b.rows) for b in batches)
    assert counts[Verdict.NOT_SENT] == len(items.writes) - announced
    rows = items.writes
    before = execution.verdict.copy()
    no = np.zeros(len(rows), bool)
    execution.verify_rows(rows, ~no, np.full(len(rows), read), np.full(len(rows), -1, np.int8), no)
    changed = before != execution.verdict
    assert (before[changed] == Verdict.WRITTEN).all()
    assert sum(execution.counts) == len(items)


@settings(deadline=None)
@given(stories())
def test_nothing_is_announced_twice(story: tuple[PlanItems, list[JournalBatch], bool]) -> None:
    items, batches, _ = story
    told = replay_execution(items, batches)
    for batch in batches:
        with pytest.raises(Internal):
            told.mark_intended(batch.rows[:1], 1)


def test_what_was_never_handed_over_is_not_sent() -> None:
    execution = Execution(items_of([0, 0]))
    execution.mark_intended(np.array([0, 1]), 5)
    execution.mark_result(np.array([0, 1]), np.array([80, 480], np.int32), 6)
    assert execution.verdict.tolist() == [Verdict.TIMED_OUT, Verdict.NOT_SENT]
    assert execution.sent_time.tolist() == [5, 0]


def test_a_result_needs_an_intent() -> None:
    execution = Execution(items_of([0, 0]))
    with pytest.raises(Internal):
        execution.mark_result(np.array([0]), np.array([1], np.int32), 5)


def test_what_is_not_announced_after_the_end() -> None:
    execution = Execution(items_of([0, 0]))
    execution.close_books()
    with pytest.raises(Internal):
        execution.mark_intended(np.array([0]), 5)


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
    execution.mark_intended(rows, 1)
    execution.mark_result(rows, np.ones(3, np.int32), 2)
    reached = np.array([1, 0, -1], np.int8)
    execution.verify_rows(rows, np.ones(3, bool), np.ones(3, bool), reached, np.zeros(3, bool))
    assert execution.verdict.tolist() == [
        Verdict.VERIFIED,
        Verdict.NOT_REACHED,
        Verdict.NOT_REACHED,
    ]


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, 1, 3]), max_size=20))
def test_items_and_outcomes_survive_their_bytes(skips: list[int]) -> None:
    items = items_of(skips)
    raw = items.encode_items()
    back = PlanItems.decode_items(raw)
    assert back.encode_items() == raw
    assert back.names == items.names
    assert dict(back.warnings) == dict(items.warnings)
    outcome = Outcome.fresh_outcome(items, Execution(items).verdict)
    assert (
        Outcome.decode_outcome(outcome.encode_outcome()).encode_outcome()
        == outcome.encode_outcome()
    )


def test_states_end_for_good() -> None:
    assert not any(TRANSITIONS.get(state) for state in RestoreState if state.ended)
    assert RestoreState.FAILED not in TRANSITIONS[RestoreState.WRITING]
    assert int(Skip.NONE) == 0


def test_a_refusal_that_only_the_alarm_shows_is_not_verified() -> None:
    execution = Execution(items_of([0, 0]))
    rows, yes = np.arange(2), np.ones(2, bool)
    execution.mark_intended(rows, 1)
    execution.mark_result(rows, np.ones(2, np.int32), 2)
    execution.verify_rows(rows, yes, yes, np.full(2, -1, np.int8), np.array([True, False]))
    assert execution.verdict.tolist() == [Verdict.IN_ALARM, Verdict.VERIFIED]
    # the last read counts
    execution.verify_rows(rows, ~yes, yes, np.full(2, -1, np.int8), ~yes)
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
    execution.mark_intended(np.array([3]), 1)
    execution.mark_result(np.array([3]), np.ones(1, np.int32), 2)
    yes = np.ones(1, bool)
    execution.verify_rows(np.array([3]), yes, yes, np.full(1, -1, np.int8), ~yes)
    execution.close_books()
    state, error = end_by_shortfall(items, execution, 1.0)
    assert state == RestoreState.COMPLETED
    assert error is not None
    assert error.reason == Reason.NOT_ALL_VERIFIED
    assert items.names[1] in error.message


@st.composite
def ramped_stories(draw: st.DrawFn) -> tuple[PlanItems, list[JournalBatch]]:
    """A journal of ramps: of each row some steps in order, and perhaps the target; then the end.

    It is cut anywhere, as by a crash or an abort. A row goes on only after a step that is done.
    """
    items = items_of(draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=1, max_size=8)))
    rows = items.writes.tolist()
    total = {row: draw(st.integers(0, 4)) for row in rows}
    sent = dict.fromkeys(rows, 0)
    batches: list[JournalBatch] = []
    for at in range(draw(st.integers(0, 12))):
        open_rows = [row for row in rows if sent[row] >= 0]
        if not open_rows:
            break
        chosen = draw(st.lists(st.sampled_from(open_rows), min_size=1, max_size=4, unique=True))
        steps = [sent[row] + 1 if sent[row] < total[row] else 0 for row in chosen]
        known = draw(st.booleans())
        codes = draw(
            st.lists(st.sampled_from((1, 1, 1, *CODES)), min_size=len(steps), max_size=len(steps))
        )
        for row, step, code in zip(chosen, steps, codes, strict=True):
            sent[row] = step if step and known and code == 1 else -1
        batches.append(
            JournalBatch(
                np.array(chosen, np.int64),
                100 + at,
                np.array(codes, np.int32) if known else None,
                200 + at,
                np.array(steps, np.int32),
            )
        )
    return items, batches


@settings(deadline=None)
@given(ramped_stories())
def test_ramps_add_up_to_the_plan_wherever_they_are_cut(
    story: tuple[PlanItems, list[JournalBatch]],
) -> None:
    items, batches = story
    told = replay_execution(items, batches)
    assert sum(told.counts) == len(items)
    told.close_books()
    counts = told.counts
    assert sum(counts) == len(items)
    assert counts[Verdict.PENDING] == 0
    # what the journal alone tells is the same
    first = [0] * len(Verdict)
    first[Verdict.PENDING] = len(items.writes)
    by_journal = counts_by_journal(first, batches)
    left_out = (Verdict.EQUAL_ALREADY, Verdict.SKIPPED)
    assert by_journal == [0 if v in left_out else counts[v] for v in range(len(counts))]
    for row in items.writes.tolist():
        entries = [
            (int(b.steps[i]), None if b.codes is None else int(b.codes[i]))
            for b in batches
            for i in np.flatnonzero(b.rows == row).tolist()
            if b.steps is not None
        ]
        done = [step for step, code in entries if code == 1 and step]
        verdict = Verdict(int(told.verdict[row]))
        if not entries:
            assert verdict == Verdict.NOT_SENT
        elif entries[-1][1] is None:
            assert verdict == Verdict.UNKNOWN
        elif entries[-1] == (0, 1):
            assert verdict == Verdict.WRITTEN
        elif done and entries[-1][1] not in (80, 440):
            # somewhere between: neither as it was, nor at its target
            assert verdict == Verdict.RAMP_STOPPED
        # what was sent has a way back
        assert bool(told.sent_time[row]) == bool(
            done or (entries and entries[-1][1] not in (192, 480, 0))
        )
        with pytest.raises(Internal):
            told.mark_intended(np.array([row]), 1)


@settings(deadline=None)
@given(ramped_stories())
def test_no_step_is_announced_twice(story: tuple[PlanItems, list[JournalBatch]]) -> None:
    items, batches = story
    told = replay_execution(items, batches)
    for batch in batches:
        assert batch.steps is not None
        stepped = batch.steps != 0
        if stepped.any():
            with pytest.raises(Internal):
                told.mark_intended(batch.rows[stepped], 1, batch.steps[stepped])


def test_a_ramp_that_is_refused_on_its_way_is_not_as_it_was() -> None:
    execution = Execution(items_of([0, 0]))
    both, first = np.arange(2), np.ones(2, np.int32)
    execution.mark_intended(both, 5, first)
    execution.mark_result(both, np.array([1, 376], np.int32), 6, first)
    assert execution.verdict.tolist() == [Verdict.PENDING, Verdict.REFUSED]
    execution.mark_intended(both[:1], 7)
    execution.mark_result(both[:1], np.array([192], np.int32), 8)
    assert execution.verdict.tolist() == [Verdict.RAMP_STOPPED, Verdict.REFUSED]
    assert execution.sent_time.tolist() == [7, 5]


@pytest.mark.parametrize(("code", "verdict"), [(0, 10), (192, 10), (376, 10), (80, 7), (1, 3)])
def test_what_an_earlier_execution_may_have_sent_stays_unknown_unless_it_is_sent_now(
    code: int, verdict: int
) -> None:
    items, row = items_of([0, 0]), np.array([0])
    first = Execution(items)
    first.mark_intended(row, 5)
    first.close_books()
    assert first.verdict.tolist() == [Verdict.UNKNOWN, Verdict.NOT_SENT]
    outcome = replace(Outcome.fresh_outcome(items, first.verdict), sent_time=first.sent_time)
    left = Columns.empty_columns(2)
    assert Execution(items, Carried(outcome, left)).pending_rows.tolist() == [1]
    second = Execution(items, Carried(outcome, left, also_unknown=True))
    assert second.pending_rows.tolist() == [0, 1]
    second.mark_intended(row, 7)
    second.mark_result(row, np.array([code], np.int32), 8)
    second.close_books()
    assert second.verdict.tolist() == [verdict, Verdict.NOT_SENT]
    assert second.sent_time[0] != 0  # it has a way back, whatever became of it now


def test_a_channel_that_is_gone_when_it_is_continued_leaves_the_doubt() -> None:
    items = items_of([0, 0])
    outcome = Outcome.fresh_outcome(items, np.array([Verdict.UNKNOWN, Verdict.NOT_SENT], np.uint8))
    second = Execution(items, Carried(outcome, Columns.empty_columns(2), also_unknown=True))
    second.disconnected(np.array([0, 1]))
    assert second.verdict.tolist() == [Verdict.UNKNOWN, Verdict.DISCONNECTED]
