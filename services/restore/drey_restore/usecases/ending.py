"""The end of a restore: verdicts, counts, journal and audit in one transaction."""

from __future__ import annotations

from dataclasses import replace

from drey_core.errors import DreyError, Reason
from drey_core.values import Columns
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.execution import Execution, replay
from drey_restore.domain.items import Outcome, PlanItems
from drey_restore.domain.kinds import RestoreState, Verdict
from drey_restore.domain.records import RestoreRecord
from drey_restore.ports import Clock
from drey_restore.usecases.notify import Notifier
from drey_runtime import audit, telemetry

_ended = telemetry.meter.create_counter("drey.restore.ended", "1", "Restores that ended, by state")
_verdicts = telemetry.meter.create_counter(
    "drey.restore.verdicts", "1", "PVs of ended restores, by verdict"
)


def outcome_of(
    items: PlanItems,
    execution: Execution,
    *,
    before: Columns | None = None,
    seen: Columns | None = None,
    readback: Columns | None = None,
) -> Outcome:
    """What became of the items, with what was read of them."""
    fresh = Outcome.fresh(items, execution.verdict)
    return replace(
        fresh,
        code=execution.code,
        sent_time=execution.sent_time,
        completion_time=execution.completion_time,
        before=fresh.before if before is None else before,
        seen=fresh.seen if seen is None else seen,
        readback=fresh.readback if readback is None else readback,
    )


class Ending:
    """Ends restores, once each."""

    def __init__(self, store: RestoreStore, notifier: Notifier, clock: Clock) -> None:
        self._store, self._notifier, self._clock = store, notifier, clock

    async def end(
        self,
        restore: RestoreRecord,
        items: PlanItems,
        outcome: Outcome,
        counts: list[int],
        state: RestoreState,
        error: DreyError | None = None,
    ) -> RestoreRecord:
        """Store the end. WRONG_STATE where it has ended before; `Unavailable`: try again."""
        ended = replace(
            restore,
            state=state,
            verdicts=tuple(counts),
            error_reason=error.reason if error else Reason.UNSPECIFIED,
            error_message=error.message if error else "",
        )
        at = self._clock()
        async with self._store.database.transaction() as conn:
            await self._store.finish(conn, ended, items, outcome, at_ns=at)
            await audit.append(
                conn,
                actor=restore.principal,
                role=restore.role,
                action=f"restore.{state.name.lower()}",
                object=f"restores/{restore.id}",
                before={"plan_digest": restore.plan_digest, "state": restore.state.name.lower()},
                after={
                    "verdicts": {v.name.lower(): counts[v] for v in Verdict if counts[v]},
                    "all_verified": ended.all_verified,
                    "error": ended.error_message,
                    "abort_reason": restore.abort_reason,
                },
                at_ns=at,
            )
        _ended.add(1, {"state": state.name})
        for verdict in Verdict:
            if counts[verdict]:
                _verdicts.add(counts[verdict], {"verdict": verdict.name})
        self._notifier.wake(restore.id)
        return await self._store.restore(restore.id)

    async def end_by_journal(
        self, restore: RestoreRecord, state: RestoreState, error: DreyError | None
    ) -> RestoreRecord:
        """End one that nobody runs any more, by what its journal says. Sends nothing."""
        async with self._store.database.transaction() as conn:
            # from here on no intent is taken, so that the journal read next is all there is
            await self._store.request_abort(conn, restore.id, "")
        items = await self._store.plan_items(restore.plan_id)
        execution = replay(items, await self._store.journal(restore.id))
        execution.close()
        if execution.anything_sent and state == RestoreState.FAILED:
            state = RestoreState.INTERRUPTED
        return await self.end(
            restore, items, outcome_of(items, execution), execution.counts, state, error
        )
