"""Going back: a restore of its own that begins in the transaction that ends the first one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from drey_core.errors import DreyError, FailedPrecondition, Reason
from drey_core.values import Columns
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.items import Outcome, PlanItems
from drey_restore.domain.kinds import RestoreState
from drey_restore.domain.records import RestoreRecord, Rules, Unanswered
from drey_restore.limits import Clock
from drey_restore.usecases.beginning import Beginning, BegunBy, first_verdicts
from drey_restore.usecases.plans import MadePlan, Plans
from drey_restore.usecases.sources import way_back
from drey_runtime.database import Connection, is_unavailable

_START_NS = 30 * 10**9


def goes_back(
    rules: Rules, restore: RestoreRecord, state: RestoreState, error: DreyError | None
) -> bool:
    """Whether a restore that ends so goes back: its plan says so, or whoever aborted it."""
    if state == RestoreState.ABORTED:
        return restore.roll_back_requested
    if state != RestoreState.INTERRUPTED or rules.rollback is None or error is None:
        return False
    return error.reason == Reason.TOO_MANY_FAILED or (
        error.reason == Reason.GUARD_FAILED and rules.rollback.on_guard
    )


class GoingBack:
    """Plans the way back of what was sent, and begins it."""

    def __init__(
        self, plans: Plans, store: RestoreStore, beginning: Beginning, clock: Clock
    ) -> None:
        self._plans, self._store, self._beginning = plans, store, beginning
        self._clock = clock

    async def prepare_plan(
        self,
        restore: RestoreRecord,
        items: PlanItems,
        outcome: Outcome,
        readback: Columns,
        held: Unanswered | None,
    ) -> MadePlan:
        """The plan of the way back; PLAN_EMPTY where nothing is to be written.

        What may still be written by the restore itself is left as it is, and so is what somebody
        else has changed.
        """
        rows = np.flatnonzero(outcome.sent_time != 0)
        rows = rows[~np.isin(items.number[rows], [] if held is None else held.numbers)]
        made = await self._plans.make_way_back(restore, way_back(items, outcome, readback, rows))
        if made.plan.writes == 0:
            raise FailedPrecondition(
                "nothing is to be written on the way back: all that was sent is as it was before,"
                " was changed by somebody else since, or may still be written",
                reason=Reason.PLAN_EMPTY,
            )
        return made

    async def begin_rollback(
        self, conn: Connection, restore: RestoreRecord, made: MadePlan, error: DreyError | None
    ) -> RestoreRecord:
        """`restore`, which ends in this transaction, with the one that goes back, or why not."""
        try:
            async with conn.transaction():
                await self._store.lock_execution(conn)
                await self._plans.store_made(conn, made)
                now = self._clock()
                back = await self._beginning.begin_restore(
                    conn,
                    RestoreRecord(
                        id="",
                        plan_id=made.plan.id,
                        plan_digest=made.plan.digest,
                        snapshot_id="",
                        state=RestoreState.WAITING,
                        verdicts=first_verdicts(made.items),
                        principal=restore.principal,
                        role=restore.role,
                        comment=made.plan.comment,
                        job_id="",
                        start_by_ns=now + _START_NS,
                        write_timeout_ns=restore.write_timeout_ns,
                        verify_timeout_ns=restore.verify_timeout_ns,
                        accept_moved=False,
                        create_time_ns=now,
                    ),
                    made.items,
                    BegunBy(
                        "restore.roll_back",
                        {
                            "rolls_back": restore.id,
                            "writes": made.plan.writes,
                            "why": restore.abort_reason if error is None else error.message,
                        },
                    ),
                    after_end_of=restore.id,
                )
        except DreyError as why_not:
            if is_unavailable(why_not):
                raise
            return without_way_back(restore, why_not)
        return replace(restore, rollback_restore_id=back.id)


def without_way_back(restore: RestoreRecord, why_not: DreyError) -> RestoreRecord:
    """`restore`, which does not go back although it should."""
    return replace(
        restore,
        rollback_error_reason=why_not.reason,
        rollback_error_message=why_not.message,
    )
