"""The bookkeeping of one execution: which PV stands where, whatever happens in between.

A pure state machine. At every moment each PV of the plan has exactly one verdict, so the counts
add up to the plan. A row is announced (`intend`) before it is sent and at most once; its result
comes after, or never. `replay` rebuilds the same from the journal after a crash. An execution that
was interrupted is continued by another, which begins where it ended (`carry_on`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_core.errors import DeadlineExceeded, DreyError, FailedPrecondition, Internal, Reason
from drey_core.values import I8, U1
from drey_restore.domain.items import I4, Carried, PlanItems
from drey_restore.domain.kinds import VERDICTS, Completion, RestoreState, Skip, Verdict
from drey_restore.domain.records import Guard

ECA_NORMAL = 1
ECA_TIMEOUT = 80
ECA_DISCONN = 192
ECA_NORDACCESS = 368
ECA_CHANDESTROY = 440
ECA_UNRESPTMO = 480

Mask = NDArray[np.bool_]

NOT_SENT = 0
"""In place of an ECA status: announced, and never handed to Channel Access."""

_VERDICT_OF_CODE = {
    NOT_SENT: Verdict.NOT_SENT,
    ECA_NORMAL: Verdict.WRITTEN,
    ECA_TIMEOUT: Verdict.TIMED_OUT,
    ECA_DISCONN: Verdict.DISCONNECTED,
    # our own table was closed under the write: an old journal may say so of what was sent
    ECA_CHANDESTROY: Verdict.UNKNOWN,
    # connected, but its turn did not come: never handed over, and never will be
    ECA_UNRESPTMO: Verdict.NOT_SENT,
}


@dataclass(frozen=True)
class JournalBatch:
    """One entry of the journal: rows announced at a time, and their codes once known."""

    rows: I8
    intent_time: int
    codes: I4 | None = None
    result_time: int = 0
    steps: I4 | None = None
    """By row, which step of its ramp, from 1; 0: the target. None: the target of all."""


def initial_verdicts(skip: U1) -> U1:
    """Verdicts before anything is sent, by the plan's skip reasons; shapes (n,)."""
    return np.where(
        skip == Skip.NONE,
        np.uint8(Verdict.PENDING),
        np.where(skip == Skip.EQUAL, np.uint8(Verdict.EQUAL_ALREADY), np.uint8(Verdict.SKIPPED)),
    )


def verdicts_of_codes(codes: I4) -> U1:
    """Verdict of each ECA status of a write."""
    out = np.full(len(codes), Verdict.REFUSED, np.uint8)
    for code, verdict in _VERDICT_OF_CODE.items():
        out[codes == code] = verdict
    return out


def count_verdicts(verdict: U1) -> list[int]:
    """How many PVs have each verdict, by its number."""
    counts: list[int] = np.bincount(verdict, minlength=VERDICTS).tolist()
    return counts


def counts_by_journal(initial: list[int], journal: Iterable[JournalBatch]) -> list[int]:
    """Counts of an ended execution whose items cannot be trusted, by its journal alone."""
    entries = list(journal)
    rows = np.concatenate([batch.rows for batch in entries]) if entries else np.zeros(0, np.int64)
    n = int(rows.max()) + 1 if len(rows) else 0
    bookkeeping = _Bookkeeping(np.full(n, Verdict.PENDING, np.uint8))
    bookkeeping.replay_journal(entries)
    bookkeeping.close_books()
    counts, announced = list(initial), np.unique(rows)
    counts[Verdict.PENDING] -= len(announced)
    announced_counts = count_verdicts(bookkeeping.verdict[announced])
    counts = [a + b for a, b in zip(counts, announced_counts, strict=True)]
    counts[Verdict.NOT_SENT] += counts[Verdict.PENDING]
    counts[Verdict.PENDING] = 0
    return counts


def counts_continued(carried: Carried, journal: Iterable[JournalBatch]) -> list[int]:
    """As `counts_by_journal`, of one that continues another."""
    bookkeeping = _Bookkeeping(np.zeros(len(carried.outcome.verdict), np.uint8))
    bookkeeping.carry_on(carried)
    bookkeeping.replay_journal(journal)
    bookkeeping.close_books()
    return bookkeeping.counts


_NOTHING_SENT = (Verdict.SKIPPED, Verdict.EQUAL_ALREADY, Verdict.NO_LONGER_EQUAL)


class _Bookkeeping:
    """What was announced, and what came of it, by the verdict of each row.

    `steps` is how many steps of its ramp were announced. A row whose ramp has begun is `on_way`
    until its target is announced: what ends it before is RAMP_STOPPED, for it is not as it was. Of
    a row in `doubt` an earlier execution may have sent the write: what sends nothing now leaves it
    UNKNOWN.
    """

    def __init__(self, verdict: U1) -> None:
        n = len(verdict)
        self.verdict = verdict
        self.steps = np.zeros(n, np.int32)
        self.on_way = np.zeros(n, bool)
        self.code = np.zeros(n, np.int32)
        self.sent_time = np.zeros(n, np.int64)
        self.completion_time = np.zeros(n, np.int64)
        self.in_flight = np.zeros(n, bool)
        self.doubt = np.zeros(n, bool)
        self.closed = False

    def carry_on(self, carried: Carried) -> None:
        """Begin where an earlier execution of the same rows ended, before anything is announced.

        PENDING is what it did not send, and what was on its way: NOT_SENT, DISCONNECTED, ramps that
        stopped and were not refused; and, where a person says so, UNKNOWN. All else is as it was.
        """
        for name in ("verdict", "steps", "code", "sent_time", "completion_time"):
            getattr(self, name)[:] = getattr(carried.outcome, name)
        refused = verdicts_of_codes(self.code) == Verdict.REFUSED
        stopped = (self.verdict == Verdict.RAMP_STOPPED) & ~refused
        left = stopped | np.isin(self.verdict, (Verdict.NOT_SENT, Verdict.DISCONNECTED))
        if carried.also_unknown:
            self.doubt[:] = self.verdict == Verdict.UNKNOWN
            # which may be the last of its steps
            self.steps[self.doubt & (self.steps > 0)] -= 1
            left |= self.doubt
        self.on_way[:] = left & (self.steps > 0)
        self.verdict[left] = Verdict.PENDING

    @property
    def counts(self) -> list[int]:
        """PVs by verdict; they add up to the plan."""
        return count_verdicts(self.verdict)

    @property
    def anything_sent(self) -> bool:
        """Whether a write was announced."""
        return bool(self.sent_time.any())

    @property
    def pending_rows(self) -> I8:
        """Rows whose turn has not come."""
        return np.flatnonzero((self.verdict == Verdict.PENDING) & ~self.in_flight)

    @property
    def unanswered_rows(self) -> I8:
        """Rows that were sent, and that nobody has answered."""
        timed_out = np.isin(self.verdict, (Verdict.TIMED_OUT, Verdict.UNKNOWN))
        return np.flatnonzero(self.in_flight | timed_out)

    @property
    def finished_count(self) -> int:
        """Writes whose verdict is known."""
        open_rows = self.verdict == Verdict.PENDING
        return int((~open_rows & ~np.isin(self.verdict, _NOTHING_SENT)).sum())

    def disconnected(self, rows: I8) -> None:
        """Pending rows whose channel is not there: nothing is sent to them."""
        self._expect_verdict(rows, "is not pending")
        self.verdict[rows] = self._if_sent_before(rows, Verdict.DISCONNECTED)

    def _if_sent_before(self, rows: I8, verdict: Verdict) -> U1:
        """`verdict` of rows to which nothing more is sent; another where something was before."""
        return np.where(
            self.doubt[rows],
            np.uint8(Verdict.UNKNOWN),
            np.where(self.on_way[rows], np.uint8(Verdict.RAMP_STOPPED), np.uint8(verdict)),
        )

    def mark_intended(self, rows: I8, at_ns: int, steps: I4 | None = None) -> None:
        """Announce rows, or steps of their ramps (see `JournalBatch.steps`).

        Raises `Internal` where one was announced or ended before, or its ramp goes not forward.
        """
        self._expect_verdict(rows, "would be sent twice")
        if self.closed:
            raise Internal("a write was announced after the end")
        if steps is not None:
            backward = (steps != 0) & (steps <= self.steps[rows])
            if backward.any():
                raise Internal(f"row {int(rows[backward][0])} of the plan would repeat a step")
            self.steps[rows] = np.maximum(self.steps[rows], steps)
        self.in_flight[rows] = True
        self.sent_time[rows] = at_ns

    def mark_result(self, rows: I8, codes: I4, at_ns: int, steps: I4 | None = None) -> None:
        """Results of announced rows, or of steps. Raises `Internal` for others.

        A row of which a step is done stays PENDING, for its next one, or its target.
        """
        if not self.in_flight[rows].all():
            raise Internal("a result came for a write that was not announced")
        self.in_flight[rows] = False
        self.code[rows] = codes
        verdict = verdicts_of_codes(codes)
        unsent = np.isin(verdict, (Verdict.DISCONNECTED, Verdict.NOT_SENT))
        on_way, doubt = self.on_way[rows], self.doubt[rows]
        self.sent_time[rows[unsent & ~on_way & ~doubt]] = 0
        stopped = unsent | (verdict == Verdict.REFUSED)
        verdict[on_way & stopped] = Verdict.RAMP_STOPPED
        verdict[doubt & stopped] = Verdict.UNKNOWN
        self.doubt[rows[~stopped]] = False
        if steps is not None:
            self.steps[rows[unsent & (steps != 0)]] -= 1
            stepped = (steps != 0) & (verdict == Verdict.WRITTEN)
            verdict[stepped] = Verdict.PENDING
            self.on_way[rows[stepped]] = True
        self.verdict[rows] = verdict
        is_answered = np.isin(verdict, (Verdict.WRITTEN, Verdict.REFUSED))
        self.completion_time[rows[is_answered]] = at_ns

    def stop_ramps(self, rows: I8) -> None:
        """Ramps that cannot go on: nothing more is sent to these pending rows."""
        self._expect_verdict(rows, "is not pending")
        self.verdict[rows] = self._if_sent_before(rows, Verdict.RAMP_STOPPED)

    def replay_journal(self, journal: Iterable[JournalBatch]) -> None:
        """All that a journal tells."""
        for batch in journal:
            self.mark_intended(batch.rows, batch.intent_time, batch.steps)
            if batch.codes is not None:
                self.mark_result(batch.rows, batch.codes, batch.result_time, batch.steps)

    def close_books(self) -> None:
        """Nothing more is sent: what was announced without a result is unknown, the rest not sent.

        Harmless when repeated.
        """
        self.closed = True
        self.verdict[self.in_flight] = Verdict.UNKNOWN
        self.in_flight[:] = False
        open_rows = np.flatnonzero(self.verdict == Verdict.PENDING)
        self.verdict[open_rows] = self._if_sent_before(open_rows, Verdict.NOT_SENT)

    def _expect_verdict(self, rows: I8, otherwise: str) -> None:
        wrong = (self.verdict[rows] != Verdict.PENDING) | self.in_flight[rows]
        if wrong.any() or len(np.unique(rows)) != len(rows):
            row = int(rows[wrong][0]) if wrong.any() else int(rows[0])
            raise Internal(f"row {row} of the plan {otherwise}")


class Execution(_Bookkeeping):
    """One execution of `items`; with `carried` it continues another of them."""

    def __init__(self, items: PlanItems, carried: Carried | None = None) -> None:
        super().__init__(initial_verdicts(items.skip))
        if carried is not None:
            self.carry_on(carried)
        self._completion = items.completion

    def verify_rows(
        self,
        rows: I8,
        at_target: Mask,
        was_read: Mask,
        readback: NDArray[np.int8],
        alarmed: Mask,
    ) -> None:
        """Judge written rows by an independent read; others among `rows` are left as they are.

        A row that could not be read is WRITTEN. With the completion READBACK the readback must
        have been reached too (1; -1 is "none to compare", which cannot be reached). `alarmed`: its
        alarm is worse than allowed. May be repeated: the last read counts.
        """
        wants = self._completion[rows] == Completion.READBACK
        good = at_target & (~wants | (readback == 1))
        verdict = np.where(
            was_read,
            np.where(
                good, np.where(alarmed, Verdict.IN_ALARM, Verdict.VERIFIED), Verdict.NOT_REACHED
            ),
            Verdict.WRITTEN,
        )
        judged = np.isin(self.verdict[rows], _ACCEPTED)
        self.verdict[rows[judged]] = verdict[judged].astype(np.uint8)

    def accepted_rows(self, rows: I8) -> I8:
        """Those of `rows` whose write was accepted, whatever was seen of it since."""
        accepted_rows: I8 = rows[np.isin(self.verdict[rows], _ACCEPTED)]
        return accepted_rows

    def check_equal(self, rows: I8, still_equal: Mask) -> None:
        """Judge rows that were equal already by the same read; others are left as they are."""
        judged = self.verdict[rows] == Verdict.EQUAL_ALREADY
        self.verdict[rows[judged & ~still_equal]] = Verdict.NO_LONGER_EQUAL

    def failed_rows(self, rows: I8) -> I8:
        """Those of `rows` that are not verified."""
        failed_rows: I8 = rows[self.verdict[rows] != Verdict.VERIFIED]
        return failed_rows

    def failed_so_far(self, *, at_end: bool) -> I8:
        """Rows whose write has failed as far as is known; at the end all that are not verified."""
        failed = (*_FAILED, Verdict.WRITTEN, Verdict.UNKNOWN) if at_end else _FAILED
        return np.flatnonzero(np.isin(self.verdict, failed))


_FAILED = (
    *(Verdict.REFUSED, Verdict.TIMED_OUT, Verdict.DISCONNECTED, Verdict.RAMP_STOPPED),
    *(Verdict.NOT_REACHED, Verdict.IN_ALARM),
)
_ACCEPTED = (Verdict.WRITTEN, Verdict.VERIFIED, Verdict.NOT_REACHED, Verdict.IN_ALARM)

_UNVERIFIED = {
    Verdict.WRITTEN: "could not be read back",
    Verdict.NOT_REACHED: "show another value",
    Verdict.IN_ALARM: "show an alarm worse than allowed",
    Verdict.REFUSED: "were refused",
    Verdict.TIMED_OUT: "were not answered in time",
    Verdict.RAMP_STOPPED: "stopped on their ramps",
    Verdict.DISCONNECTED: "were not connected",
    Verdict.UNKNOWN: "have an unknown result",
}


def end_by_shortfall(
    items: PlanItems, execution: Execution, write_timeout_s: float, why: str = ""
) -> tuple[RestoreState, DreyError | None]:
    """How an execution ends that nobody stopped, and what is missing of it (None: nothing).

    `why` is said with what could not be sent or read back.
    """
    verdict = execution.verdict
    writes = len(items.writes)
    unsent = np.flatnonzero(verdict == Verdict.NOT_SENT)
    if len(unsent):
        return RestoreState.INTERRUPTED, DeadlineExceeded(
            f"the write timeout of {write_timeout_s:g} s was over when {len(unsent)} of {writes}"
            f" PVs had not been sent, the first is {items.names[int(unsent[0])]}; none is sent any"
            " more. Make a new plan for what is left, or give more time"
        )
    if not execution.anything_sent:
        return RestoreState.INTERRUPTED, all_gone(items, items.writes, why)
    lacking = np.flatnonzero(np.isin(verdict, list(_UNVERIFIED)))
    moved = np.flatnonzero(verdict == Verdict.NO_LONGER_EQUAL)
    if len(lacking) == 0 and len(moved):
        return RestoreState.COMPLETED, FailedPrecondition(
            f"{len(moved)} PVs had their value when the plan was made, and have not any more, the"
            f" first is {items.names[int(moved[0])]}; nothing was sent to them. Make a new plan",
            reason=Reason.NOT_ALL_VERIFIED,
        )
    if len(lacking) == 0:
        return RestoreState.COMPLETED, None
    first = items.names[int(lacking[0])]
    counts = execution.counts
    parts = [f"{counts[v]} {text}" for v, text in _UNVERIFIED.items() if counts[v]]
    return RestoreState.COMPLETED, FailedPrecondition(
        f"{len(lacking)} of {writes} writes are not verified: {', '.join(parts)}; the first is"
        f" {first}{why and f'. {why}'}",
        reason=Reason.NOT_ALL_VERIFIED,
    )


def gate_not_met(items: PlanItems, rows: I8, failed: I8, most: int) -> FailedPrecondition:
    """GATE_NOT_MET: more writes of a stage than its gate allows are not verified."""
    first = items.names[int(failed[0])]
    stage = int(items.stage[rows[0]])
    return FailedPrecondition(
        f"{len(failed)} of the {len(rows)} writes of stage {stage} are not verified, the first is"
        f" {first}, and {most} may be; no later stage was begun. Look at them, then make a new plan"
        " for what is left",
        reason=Reason.GATE_NOT_MET,
        metadata={"stage": str(stage), "failed": str(len(failed)), "first_failed": first},
    )


def labels_moved(items: PlanItems, rows: I8, so_far: str) -> FailedPrecondition:
    """LABELS_MOVED: the indexes that a plan writes mean something else by now."""
    first = items.names[int(rows[0])]
    return FailedPrecondition(
        f"{len(rows)} of the PVs to write have other enum labels than when the plan was made, or"
        f" have become an enumeration, or are none any more, the first is {first}; {so_far}. Make a"
        " new plan",
        reason=Reason.LABELS_MOVED,
        metadata={"moved": str(len(rows)), "first_moved": first},
    )


def too_many_failed(items: PlanItems, failed: I8, most: int) -> FailedPrecondition:
    """TOO_MANY_FAILED: more writes failed than a plan allows before it goes back."""
    first = items.names[int(failed[0])]
    return FailedPrecondition(
        f"{len(failed)} writes failed, the first is {first}, and {most} may before it goes back;"
        " nothing more of it is written",
        reason=Reason.TOO_MANY_FAILED,
        metadata={"failed": str(len(failed)), "first_failed": first},
    )


def gate_not_held(guard: Guard, stage: int, why: str) -> FailedPrecondition:
    """GATE_NOT_MET: the condition that a gate wants does not hold in time."""
    shown = guard.description or guard.expression
    return FailedPrecondition(
        f"what must hold after stage {stage}, {shown!r}, does not: {why}; no later stage was begun."
        " Make a new plan for what is left once it does",
        reason=Reason.GATE_NOT_MET,
        metadata={"stage": str(stage), "guard": guard.expression, "why": why},
    )


def all_gone(items: PlanItems, rows: I8, why: str = "") -> FailedPrecondition:
    """DISCONNECTED: nothing could be sent to any of the rows; `why` is said with it."""
    return FailedPrecondition(
        f"none of the {len(rows)} PVs to write is connected and answers, the first is"
        f" {items.names[int(rows[0])]}; nothing was sent. {_known_reason(why)}"
        "Look at their IOCs, then make a new plan",
        reason=Reason.DISCONNECTED,
    )


def too_many_gone(items: PlanItems, lost: I8, most: int, why: str) -> FailedPrecondition:
    """DISCONNECTED: more PVs are unreachable than whoever executes the plan allows."""
    first = items.names[int(lost[0])]
    return FailedPrecondition(
        f"{len(lost)} of the PVs to write are not connected or do not answer, the first is {first};"
        f" {most} may be. Nothing was sent. {_known_reason(why)}Look at their IOCs, or allow more",
        reason=Reason.DISCONNECTED,
        metadata={"unreachable": str(len(lost)), "first_unreachable": first},
    )


def _known_reason(why: str) -> str:
    return f"{why}. " if why else ""


def replay_execution(
    items: PlanItems, journal: Iterable[JournalBatch], carried: Carried | None = None
) -> Execution:
    """The execution as the journal tells it, not closed; `carried` as in `Execution`."""
    execution = Execution(items, carried)
    execution.replay_journal(journal)
    return execution
