"""Each verdict in words that tell an operator whether it is done, and what to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drey_core.errors import Reason
from drey_core.values import Columns, State
from drey_restore.domain.execution import (
    Execution,
    JournalBatch,
    count_verdicts,
    counts_by_journal,
    end_by_shortfall,
    initial_verdicts,
    replay_execution,
)
from drey_restore.domain.explaining import explain_rows
from drey_restore.domain.items import Outcome, PlanItems, scatter_rows
from drey_restore.domain.kinds import RestoreState, Skip, Verdict
from drey_restore.domain.planning import make_plan

from .test_planning import known


def plan(n: int) -> PlanItems:
    return make_plan(known([float(i) for i in range(n)], [100.0] * n))


def outcome(items: PlanItems, verdict: Verdict, seen: float | None, **more: int) -> Outcome:
    n = len(items)
    found = Outcome.fresh_outcome(items, np.full(n, verdict, np.uint8))
    columns = Columns.from_values(np.arange(n), [seen or 0.0] * n, [None] * n)
    columns.state[:] = State.CONNECTED
    if seen is None:
        columns.kind[:] = 0
    extra = {name: np.full(n, value, np.int8) for name, value in more.items()}
    return replace(found, seen=columns, **extra)


@pytest.mark.parametrize(
    ("verdict", "seen", "more", "words"),
    [
        (Verdict.VERIFIED, 0.0, {}, "Done: written"),
        (Verdict.TIMED_OUT, 0.0, {}, "done as far as values show"),
        (Verdict.TIMED_OUT, 0.0, {"readback_reached": 0, "moving": 1}, "Wait until it stands"),
        (Verdict.TIMED_OUT, 0.0, {"readback_reached": 0, "moving": 0}, "Look at the device"),
        (Verdict.TIMED_OUT, 0.0, {"readback_reached": 1}, "readback is where it was"),
        (Verdict.TIMED_OUT, 5.0, {}, "cannot take place any more"),
        (Verdict.TIMED_OUT, None, {}, "could not be read"),
        (Verdict.NOT_REACHED, 5.0, {}, "look who"),
        (Verdict.NOT_SENT, None, {}, "Nothing was sent"),
    ],
)
def test_it_says_what_is_so_and_what_to_do(
    verdict: Verdict, seen: float | None, more: dict[str, int], words: str
) -> None:
    items = plan(1)
    rows = np.arange(1)
    found = outcome(items, verdict, seen, **more)
    assert words in explain_rows(items, found, rows, ())[0]
    if verdict == Verdict.TIMED_OUT and seen is None:
        found.seen.state[:] = State.ABSENT  # nobody looked: an IOC is not to be blamed
        text = explain_rows(items, found, rows, ())[0]
        assert "ended before the setpoint was read" in text and "could not" not in text
    if verdict == Verdict.TIMED_OUT:
        assert "may still take place" in explain_rows(items, found, rows, {1})[0]


def test_a_ramp_of_which_a_step_failed_says_so() -> None:
    items, rows = plan(1), np.arange(1)
    found = outcome(items, Verdict.RAMP_STOPPED, 5.0)
    assert "A step was not completed" not in explain_rows(items, found, rows, ())[0]
    found.code[:] = 160
    assert "A step was not completed: see the status" in explain_rows(items, found, rows, ())[0]


def test_every_verdict_has_words() -> None:
    items = plan(1)
    for verdict in Verdict:
        text = explain_rows(items, outcome(items, verdict, 0.0), np.arange(1), ())[0]
        assert bool(text) == (verdict != Verdict.UNSPECIFIED)


def test_an_outcome_of_the_first_version_is_read() -> None:
    items = plan(2)
    found = outcome(items, Verdict.VERIFIED, 0.0)
    raw = found.encode_outcome()
    from drey_restore.domain import blob

    sections = blob.decode_sections(raw)
    del sections["moving"]
    assert Outcome.decode_outcome(blob.encode_sections(sections)).moving.tolist() == [-1, -1]


def test_many_looks_keep_one_heap() -> None:
    """Verification reads strings and arrays again and again."""
    texts = [b"x" * 1000, b"y" * 1000]
    seen = Columns.empty_columns(2)
    for _ in range(150):
        look = Columns.from_values(np.arange(2), texts, [None, None])
        seen = scatter_rows(seen, np.arange(2), look)
    assert len(seen.heap) == 2000
    assert [seen.value(row) for row in range(2)] == texts


def test_the_journal_alone_gives_the_same_counts() -> None:
    items = plan(6)
    journal = [
        JournalBatch(np.array([0, 1]), 5, np.array([1, 80], np.int32), 6),
        JournalBatch(np.array([2]), 7, np.array([192], np.int32), 8),
        JournalBatch(np.array([3]), 9),
    ]
    execution = replay_execution(items, journal)
    execution.close_books()
    initial = count_verdicts(initial_verdicts(items.skip))
    assert counts_by_journal(initial, journal) == execution.counts


def ended(codes: list[int]) -> Execution:
    execution = Execution(plan(6))
    rows = np.arange(len(codes))
    execution.mark_intended(rows, 1)
    execution.mark_result(rows, np.array(codes, np.int32), 2)
    execution.close_books()
    return execution


@pytest.mark.parametrize(
    ("codes", "state", "reason"),
    [
        ([1] * 4, RestoreState.INTERRUPTED, Reason.DEADLINE_EXCEEDED),
        ([1] * 5 + [0], RestoreState.INTERRUPTED, Reason.DEADLINE_EXCEEDED),
        ([1] * 5 + [480], RestoreState.INTERRUPTED, Reason.DEADLINE_EXCEEDED),
        ([1] * 5 + [80], RestoreState.COMPLETED, Reason.NOT_ALL_VERIFIED),
        ([1] * 5 + [160], RestoreState.COMPLETED, Reason.NOT_ALL_VERIFIED),
        ([1] * 5 + [192], RestoreState.COMPLETED, Reason.NOT_ALL_VERIFIED),
        ([192] * 6, RestoreState.INTERRUPTED, Reason.DISCONNECTED),
    ],
)
def test_every_end_that_is_not_complete_says_so(
    codes: list[int], state: RestoreState, reason: Reason
) -> None:
    execution = ended(codes)
    found, error = end_by_shortfall(plan(6), execution, 10.0)
    assert error is not None
    assert (found, error.reason) == (state, reason)


def test_a_complete_end_has_no_error() -> None:
    execution = ended([1] * 6)
    rows = np.arange(6)
    yes = np.ones(6, bool)
    execution.verify_rows(rows, yes, yes, np.full(6, -1, np.int8), ~yes)
    assert end_by_shortfall(plan(6), execution, 10.0) == (RestoreState.COMPLETED, None)
    assert execution.counts[Verdict.VERIFIED] == 6
    assert not (plan(6).skip != Skip.NONE).any()
