"""Crash, resume, abort, undo, in any order: the verdicts add up, and nothing is sent twice alone.

A machine of hypothesis plays the process, the IOC and the operator; the IOC counts what it got.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drey_core.errors import Internal
from drey_core.values import Columns
from drey_restore.domain.execution import (
    Execution,
    JournalBatch,
    counts_continued,
    replay_execution,
)
from drey_restore.domain.items import Carried, Outcome
from drey_restore.domain.kinds import Verdict
from drey_restore.usecases.ending import outcome_of

from .test_execution import items_of

HAPPENED, MAY_HAVE, NOT = (1,), (80,), (0, 192, 376, 480)
"""ECA statuses of writes that took place, may have, and did not."""
ROWS = 3
TARGET = 0


class Courses(RuleBasedStateMachine):
    """One plan, and the restores of it. Row i is on a ramp of `steps[i]` steps."""

    @initialize(data=st.data())
    def make_plan(self, data: st.DataObject) -> None:
        skips = data.draw(
            st.lists(st.sampled_from([0, 0, 0, 0, 1]), min_size=1, max_size=ROWS), label="skips"
        )
        self.items = items_of(skips)
        self.ramps = [data.draw(st.integers(0, 2)) for _ in skips]
        self.got: Counter[tuple[int, int]] = Counter()
        """How often the IOC got each step of each row; TARGET is its target."""
        self.allowed: Counter[int] = Counter()
        """How often an operator said of a row that it may be sent again."""
        self.clock = 100
        self.begin(None)

    def begin(self, carried: Carried | None) -> None:
        self.carried = carried
        self.execution = Execution(self.items, carried)
        self.journal: list[JournalBatch] = []
        self.open: list[int] = []
        """Batches that wait for their result."""
        self.ended = False

    def next_step(self, row: int) -> int:
        done = int(self.execution.steps[row])
        return done + 1 if done < self.ramps[row] else TARGET

    # ---- the process

    @precondition(lambda self: not self.ended and len(self.execution.pending_rows) > 0)
    @rule(data=st.data())
    def announce(self, data: st.DataObject) -> None:
        rows = data.draw(
            st.lists(
                st.sampled_from(self.execution.pending_rows.tolist()),
                min_size=1,
                max_size=4,
                unique=True,
            )
        )
        self.clock += 1
        taken = np.array(rows, np.int64)
        steps = np.array([self.next_step(row) for row in rows], np.int32)
        self.execution.mark_intended(taken, self.clock, steps)
        self.open.append(len(self.journal))
        self.journal.append(JournalBatch(taken, self.clock, None, 0, steps))

    @precondition(lambda self: not self.ended and bool(self.open))
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """A batch is sent, and its result stored."""
        number = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        batch = self.journal[number]
        codes = data.draw(
            st.lists(
                st.sampled_from(HAPPENED * 3 + MAY_HAVE + NOT),
                min_size=len(batch.rows),
                max_size=len(batch.rows),
            )
        )
        for row, step, code in self.each(batch, codes):
            if code in HAPPENED or (code in MAY_HAVE and data.draw(st.booleans())):
                self.got[row, step] += 1
        self.clock += 1
        found = np.array(codes, np.int32)
        self.execution.mark_result(batch.rows, found, self.clock, batch.steps)
        self.journal[number] = JournalBatch(
            batch.rows, batch.intent_time, found, self.clock, batch.steps
        )

    def each(self, batch: JournalBatch, codes: list[int]) -> list[tuple[int, int, int]]:
        assert batch.steps is not None
        return list(zip(batch.rows.tolist(), batch.steps.tolist(), codes, strict=True))

    @precondition(lambda self: not self.ended and len(self.execution.pending_rows) > 0)
    @rule(data=st.data())
    def find_gone(self, data: st.DataObject) -> None:
        """A channel is not there before it is written."""
        row = data.draw(st.sampled_from(self.execution.pending_rows.tolist()))
        if not self.journal:
            self.execution.disconnected(np.array([row]))
            self.end()

    # ---- ends

    @precondition(lambda self: not self.ended)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """The process dies; of what was announced nobody knows whether it was sent."""
        for number in self.open:
            for row, step, _ in self.each(
                self.journal[number], [0] * len(self.journal[number].rows)
            ):
                if data.draw(st.booleans()):
                    self.got[row, step] += 1
        announced = [row for number in self.open for row in self.journal[number].rows.tolist()]
        self.execution = replay_execution(self.items, self.journal, self.carried)
        self.end()
        assert all(self.execution.verdict[row] == Verdict.UNKNOWN for row in announced)

    @precondition(lambda self: not self.ended and not self.open)
    @rule()
    def abort(self) -> None:
        self.end()

    def end(self) -> None:
        self.execution.close_books()
        self.ended = True
        self.outcome = outcome_of(self.items, self.execution, self.carried)
        counts = self.execution.counts
        assert counts[Verdict.PENDING] == counts[Verdict.UNSPECIFIED] == 0

    # ---- the operator

    @precondition(lambda self: self.ended)
    @rule(also_unknown=st.booleans())
    def resume(self, also_unknown: bool) -> None:
        stored = Outcome.decode_outcome(self.outcome.encode_outcome())
        carried = Carried(stored, Columns.empty_columns(len(self.items)), also_unknown)
        if also_unknown:
            for row in np.flatnonzero(stored.verdict == Verdict.UNKNOWN).tolist():
                self.allowed[row] += 1
        self.begin(carried)
        assert counts_continued(carried, []) == replay_closed(self, carried)

    # ---- laws

    @invariant()
    def the_verdicts_add_up_to_the_plan(self) -> None:
        if hasattr(self, "execution"):
            assert sum(self.execution.counts) == len(self.items)

    @invariant()
    def nothing_is_sent_twice_without_a_word(self) -> None:
        for (row, step), times in getattr(self, "got", Counter()).items():
            assert times <= 1 + self.allowed[row], (row, step)

    @invariant()
    def the_verdicts_are_what_the_ioc_got(self) -> None:
        if not hasattr(self, "execution"):
            return
        for row, verdict in enumerate(self.execution.verdict.tolist()):
            got = sum(times for (each, _), times in self.got.items() if each == row)
            if verdict in (Verdict.NOT_SENT, Verdict.DISCONNECTED, Verdict.REFUSED):
                assert got == 0, (row, Verdict(verdict))
            if verdict == Verdict.WRITTEN:
                assert self.got[row, TARGET] >= 1
            if verdict in (Verdict.SKIPPED, Verdict.EQUAL_ALREADY):
                assert got == 0

    @invariant()
    def the_way_back_covers_what_was_sent(self) -> None:
        if not getattr(self, "ended", False):
            return
        for row in np.flatnonzero(self.outcome.sent_time == 0).tolist():
            assert not any(times for (each, _), times in self.got.items() if each == row), row

    @invariant()
    def what_is_announced_is_not_announced_again(self) -> None:
        if not getattr(self, "journal", None):
            return
        flying = [row for number in self.open for row in self.journal[number].rows.tolist()]
        for row in flying:
            with pytest.raises(Internal):
                self.execution.mark_intended(np.array([row]), 1)


def replay_closed(machine: Courses, carried: Carried) -> list[int]:
    execution = replay_execution(machine.items, [], carried)
    execution.close_books()
    return execution.counts


TestCourses = Courses.TestCase
TestCourses.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
