"""The end of a restore: verdicts, counts, journal and audit in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from drey_core.errors import DreyError, FailedPrecondition, Reason
from drey_core.values import I8, Columns
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.execution import (
    Execution,
    counts_by_journal,
    counts_continued,
    replay_execution,
)
from drey_restore.domain.items import Carried, Outcome, PlanItems
from drey_restore.domain.kinds import RestoreState, Verdict
from drey_restore.domain.records import RestoreRecord, Unanswered
from drey_restore.limits import Clock
from drey_restore.usecases.notify import Notifier
from drey_runtime import audit, telemetry
from drey_runtime.database import Connection
from drey_runtime.event_log import EventKind, Resource, ResourceChange
from drey_runtime.jobs import JobError, JobState

_ended = telemetry.meter.create_counter("drey.restore.ended", "1", "Restores that ended, by state")
_verdicts = telemetry.meter.create_counter(
    "drey.restore.verdicts", "1", "PVs of ended restores, by verdict"
)


class EndJob(Protocol):
    """Ends the job of a restore in the transaction that ends the restore."""

    async def __call__(self, conn: Connection, state: JobState, *, error: JobError | None) -> Any:
        """Raises JobLost where somebody else has the job by now."""
        ...


def job_state(state: RestoreState, error: DreyError | None) -> JobState:
    """What the job of a restore shows that has ended so: it has succeeded where nothing lacks."""
    if state == RestoreState.COMPLETED:
        return JobState.SUCCEEDED if error is None else JobState.FAILED
    return _JOB_STATES[state]


_JOB_STATES = {
    RestoreState.ABORTED: JobState.CANCELLED,
    RestoreState.INTERRUPTED: JobState.INTERRUPTED,
    RestoreState.FAILED: JobState.FAILED,
}


def outcome_of(
    items: PlanItems,
    execution: Execution,
    carried: Carried | None = None,
    *,
    before: Columns | None = None,
    seen: Columns | None = None,
    readback: Columns | None = None,
) -> Outcome:
    """What became of the items, with what was read of them."""
    fresh = (
        carried.outcome if carried is not None else Outcome.fresh_outcome(items, execution.verdict)
    )
    return replace(
        fresh,
        verdict=execution.verdict,
        code=execution.code,
        steps=execution.steps,
        sent_time=execution.sent_time,
        completion_time=execution.completion_time,
        before=fresh.before if before is None else before,
        seen=fresh.seen if seen is None else seen,
        readback=fresh.readback if readback is None else readback,
    )


def unanswered_of(
    items: PlanItems, execution: Execution, rows: I8, circuits: Mapping[int, str]
) -> Unanswered:
    """Writes of `rows` that may still take place; `circuits` by row, as far as known."""
    listed = rows.tolist()
    return Unanswered(
        numbers=items.number[rows].tolist(),
        names=[items.names[row] for row in listed],
        addresses=[items.addresses[row] for row in listed],
        fields=[items.field_written(row) for row in listed],
        circuits=[circuits.get(row, "") for row in listed],
        sent_ns=execution.sent_time[rows].tolist(),
    )


@dataclass(frozen=True)
class RestoreEnd:
    """How a restore ends. `outcome` is None where the items of its plan cannot be trusted.

    `held` are writes that may still take place.
    """

    state: RestoreState
    counts: list[int]
    outcome: tuple[PlanItems, Outcome] | None
    error: DreyError | None = None
    held: Unanswered | None = None


class Ending:
    """Ends restores, once each."""

    def __init__(self, store: RestoreStore, notifier: Notifier, clock: Clock) -> None:
        self._store, self._notifier, self._clock = store, notifier, clock

    async def end_restore(self, restore: RestoreRecord, end: RestoreEnd, end_job: EndJob) -> None:
        """Store the end, that of its job too. WRONG_STATE where it has ended before.

        `Unavailable`: try again.
        """
        async with self._store.database.begin_transaction() as conn:
            await self.end_in(conn, restore, end, end_job)
        self.tell_end(restore.id, end)

    async def end_in(
        self, conn: Connection, restore: RestoreRecord, end: RestoreEnd, end_job: EndJob
    ) -> None:
        """As `end`, in the caller's transaction; `tell_end` is called after it."""
        error, held = end.error, end.held
        ended = replace(
            restore,
            state=end.state,
            verdicts=tuple(end.counts),
            error_reason=error.reason if error else Reason.UNSPECIFIED,
            error_message=error.message if error else "",
        )
        ended_ns = self._clock()
        await self._store.finish_restore(conn, ended, end.outcome, at_ns=ended_ns)
        if held is not None and held.numbers:
            await self._store.hold_unanswered(conn, restore.id, held)
        await end_job(
            conn,
            job_state(end.state, error),
            error=None if error is None else JobError.error_of_exception(error),
        )
        word = end.state.name.lower()
        await audit.append_entry(
            conn,
            audit.AuditedAct(
                actor=restore.principal,
                role=restore.role,
                action=f"restore.{word}",
                object=f"restores/{restore.id}",
                before={"plan_digest": restore.plan_digest, "state": restore.state.name.lower()},
                after=_ended_facts(ended, end),
                at_ns=ended_ns,
            ),
            events=[
                ResourceChange(Resource.RESTORE, EventKind.STATE_CHANGED, restore.id, state=word)
            ],
        )

    def tell_end(self, restore_id: str, end: RestoreEnd) -> None:
        """Count an end that is stored, and tell those who watch."""
        _ended.add(1, {"state": end.state.name})
        for verdict in Verdict:
            if end.counts[verdict]:
                _verdicts.add(end.counts[verdict], {"verdict": verdict.name})
        self._notifier.wake_listeners(restore_id)

    async def end_by_journal(
        self,
        restore: RestoreRecord,
        state: RestoreState,
        error: DreyError | None,
        end_job: EndJob,
    ) -> None:
        """End one that nobody runs any more, by what its journal says. Sends nothing."""
        async with self._store.database.begin_transaction() as conn:
            # from here on no intent is taken, so that the journal read next is all there is
            await self._store.request_abort(conn, restore.id, "")
        journal = await self._store.read_journal(restore.id)
        if journal and state == RestoreState.FAILED:
            state = RestoreState.INTERRUPTED
        if restore.roll_back_requested:
            restore = replace(
                restore,
                rollback_error_reason=Reason.WRONG_STATE,
                rollback_error_message="its process stopped before it could go back",
            )
        carried = await self._store.carried_outcome(restore)
        try:
            items = await self._store.plan_items(restore.plan_id, restore.plan_digest)
        except FailedPrecondition as mismatch:
            if mismatch.reason != Reason.PLAN_DIGEST_MISMATCH:
                raise
            plan = await self._store.read_plan(restore.plan_id)
            counts = (
                counts_by_journal(plan.first_verdicts, journal)
                if carried is None
                else counts_continued(carried, journal)
            )
            await self.end_restore(restore, RestoreEnd(state, counts, None, mismatch), end_job)
            return
        execution = replay_execution(items, journal, carried)
        execution.close_books()
        # whether these were sent is not known, so they may be on their way
        unknown = np.flatnonzero(execution.verdict == Verdict.UNKNOWN)
        announced = [batch.rows for batch in journal]
        unknown = np.intersect1d(unknown, np.concatenate([unknown[:0], *announced]))
        pre_image = await self._store.pre_image(restore.id)
        before = None if pre_image is None else pre_image[0]
        outcome = items, outcome_of(items, execution, carried, before=before)
        held = unanswered_of(items, execution, unknown, {})
        end = RestoreEnd(state, execution.counts, outcome, error, held)
        await self.end_restore(restore, end, end_job)


def _ended_facts(ended: RestoreRecord, end: RestoreEnd) -> dict[str, Any]:
    """What the audit says of an end."""
    return {
        "verdicts": {v.name.lower(): end.counts[v] for v in Verdict if end.counts[v]},
        "all_verified": ended.all_verified,
        "may_still_fire": len(end.held.numbers) if end.held is not None else 0,
        "interfered": ended.interfered,
        "error": ended.error_message,
        "abort_reason": ended.abort_reason,
    }
