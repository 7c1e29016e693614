"""Executing plans, stopping restores, looking at them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from drey_core.errors import FailedPrecondition, Internal, Reason, Unavailable
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.execution import replay_execution
from drey_restore.domain.items import Outcome, PlanItems
from drey_restore.domain.kinds import PlanState, RestoreState, Verdict
from drey_restore.domain.records import Chosen, PlanRecord, RestoreRecord
from drey_restore.limits import Clock
from drey_restore.usecases.beginning import Beginning, BegunBy, first_verdicts
from drey_restore.usecases.ending import Ending, RestoreEnd, outcome_of
from drey_restore.usecases.grants import GrantCheck
from drey_restore.usecases.notify import Notifier, RunningRestores
from drey_runtime import audit, idempotency
from drey_runtime.auth import Principal
from drey_runtime.database import Connection
from drey_runtime.event_log import EventKind, Resource, ResourceChange
from drey_runtime.jobs import Job, JobError, JobLost, JobState, JobStore

METHOD = "drey.restore.v1.RestoreService/ExecutePlan"
RESUME_METHOD = "drey.restore.v1.RestoreService/ResumeRestore"
_POLL_S = 0.5


@dataclass(frozen=True)
class ExecuteRequest:
    """What is asked for. `raw` are the request's bytes, by which a repeat is known."""

    plan_id: str
    digest: str
    start_deadline_ns: int
    write_timeout_ns: int
    verify_timeout_ns: int
    accept_moved: bool
    max_unreachable: int | None
    comment: str
    request_id: str
    raw: bytes


@dataclass(frozen=True)
class ResumeRequest:
    """What is asked for. Of a restore that is paused, only `restore_id` counts.

    Times of None are those of the interrupted one; `raw` as in `ExecuteRequest`.
    """

    restore_id: str
    also_unknown: bool
    accept_moved: bool
    start_deadline_ns: int
    write_timeout_ns: int | None
    verify_timeout_ns: int | None
    max_unreachable: int | None
    comment: str
    request_id: str
    raw: bytes


class Restores:
    """Use cases of restores."""

    def __init__(
        self,
        store: RestoreStore,
        jobs: JobStore,
        ending: Ending,
        notifier: Notifier,
        running: RunningRestores,
        clock: Clock,
        grants: GrantCheck,
        beginning: Beginning,
    ) -> None:
        self._beginning = beginning
        self._store, self._jobs, self._ending = store, jobs, ending
        self._notifier, self._running = notifier, running
        self._clock, self._grants = clock, grants

    async def execute_plan(
        self, request: ExecuteRequest, principal: Principal
    ) -> tuple[RestoreRecord, Job]:
        """Begin to execute a plan; a repeat of the request gives the restore of the first one."""
        await self._grants.require_plan(
            principal, "restore.plans.execute", request.plan_id, "executing this plan"
        )
        async with (
            self._store.database.begin_transaction() as conn,
            idempotency.run_once(
                conn, METHOD, principal.name, request.request_id, request.raw
            ) as slot,
        ):
            if slot.seen is None:
                restore = await self._begin_restore(conn, request, principal)
                slot.response = restore.id.encode()
        if slot.response is None:
            raise Internal("a restore was not stored")
        restore = await self._store.restore(slot.response.decode())
        return restore, await self._jobs.get_job(restore.job_id)

    async def _begin_restore(
        self, conn: Connection, request: ExecuteRequest, principal: Principal
    ) -> RestoreRecord:
        await self._store.lock_execution(conn)
        plan = await self._store.lock_plan(conn, request.plan_id)
        now = self._clock()
        _check_plan(plan, request.digest, now)
        items = await self._store.plan_items(plan.id, request.digest, conn)
        restore = RestoreRecord(
            id="",
            plan_id=plan.id,
            plan_digest=plan.digest,
            snapshot_id=plan.snapshot_id,
            state=RestoreState.WAITING,
            verdicts=first_verdicts(items),
            principal=principal.name,
            role=principal.roles_text,
            comment=request.comment,
            job_id="",
            start_by_ns=now + request.start_deadline_ns,
            write_timeout_ns=request.write_timeout_ns,
            verify_timeout_ns=request.verify_timeout_ns,
            accept_moved=request.accept_moved,
            max_unreachable=request.max_unreachable,
            create_time_ns=now,
        )
        return await self._beginning.begin_restore(
            conn,
            restore,
            items,
            BegunBy(
                "restore.execute",
                {
                    "writes": plan.writes,
                    "accept_moved": request.accept_moved,
                    "max_unreachable": request.max_unreachable,
                },
                request.request_id,
                [ResourceChange(Resource.PLAN, EventKind.STATE_CHANGED, plan.id, state="executed")],
            ),
        )

    async def abort(
        self, restore_id: str, reason: str, principal: Principal, *, roll_back: bool = False
    ) -> RestoreRecord:
        """Stop a restore: nothing more is sent. WRONG_STATE where it ended in another way.

        With `roll_back` it goes back then.
        """
        await self._require_granted(principal, "restore.restores.abort", restore_id)
        if roll_back:
            await self._require_granted(principal, "restore.plans.execute", restore_id)
        async with self._store.database.begin_transaction() as conn:
            restore = await self._store.lock_restore(conn, restore_id)
            if restore.state == RestoreState.ABORTED or restore.abort_requested:
                return restore
            if restore.state.ended:
                raise FailedPrecondition(
                    f"restore {restore.id} is {restore.state.name.lower()} already",
                    reason=Reason.WRONG_STATE,
                    field="id",
                    metadata={"state": restore.state.name},
                )
            await self._store.request_abort(conn, restore_id, reason, roll_back=roll_back)
            await audit.append_entry(
                conn,
                audit.AuditedAct(
                    actor=principal.name,
                    role=principal.roles_text,
                    action="restore.abort",
                    object=f"restores/{restore.id}",
                    after={"reason": reason, "roll_back": roll_back},
                    at_ns=self._clock(),
                ),
                events=[_updated_change(restore)],
            )
            ended = await self._end_waiting(conn, await self._store.lock_restore(conn, restore_id))
            if ended is None:
                await self._jobs.request_cancel(conn, restore.job_id, reason)
        if ended is None:
            self._running.abort(restore_id)
            self._notifier.wake_listeners(restore_id)
        else:
            self._ending.tell_end(restore_id, ended)
        return await self._store.restore(restore_id)

    async def pause_restore(self, restore_id: str, principal: Principal) -> RestoreRecord:
        """Hold it: nothing is sent until it goes on. WRONG_STATE once its writes are over."""
        may_be = (RestoreState.WAITING, RestoreState.WRITING, RestoreState.PAUSED)
        return await self._hold_restore(restore_id, principal, pause=True, may_be=may_be)

    async def resume_restore(self, request: ResumeRequest, principal: Principal) -> RestoreRecord:
        """Let a restore go on that holds, or is to; of an interrupted one begin what is left.

        That is another restore. WRONG_STATE where it has ended otherwise, or is continued already.
        """
        restore = await self._store.restore(request.restore_id)
        if restore.state != RestoreState.INTERRUPTED:
            may_be = tuple(state for state in RestoreState if not state.ended)
            return await self._hold_restore(
                request.restore_id, principal, pause=False, may_be=may_be
            )
        for permission in ("restore.restores.resume", "restore.plans.execute"):
            await self._grants.require_plan(
                principal, permission, restore.plan_id, f"resuming restore {restore.id}"
            )
        async with (
            self._store.database.begin_transaction() as conn,
            idempotency.run_once(
                *(conn, RESUME_METHOD, principal.name, request.request_id, request.raw)
            ) as slot,
        ):
            if slot.seen is None:
                begun = await self._continue_interrupted(conn, restore, request, principal)
                slot.response = begun.id.encode()
        if slot.response is None:
            raise Internal("a restore was not stored")
        return await self._store.restore(slot.response.decode())

    async def _continue_interrupted(
        self,
        conn: Connection,
        restore: RestoreRecord,
        request: ResumeRequest,
        principal: Principal,
    ) -> RestoreRecord:
        await self._store.lock_execution(conn)
        plan = await self._store.lock_plan(conn, restore.plan_id)
        now = self._clock()
        _check_approved(plan, now)
        other = await self._store.continuation_of(conn, restore.id)
        if other is not None:
            raise FailedPrecondition(
                f"restore {restore.id} is continued by {other} already: look at that one",
                reason=Reason.WRONG_STATE,
                field="id",
                metadata={"state": restore.state.name, "restore_id": other},
            )
        items = await self._store.plan_items(plan.id, restore.plan_digest, conn)
        following = _continuation(restore, request, principal, now)
        carried = await self._store.carried_outcome(following)
        execution = replay_execution(items, [], carried)
        left = len(execution.pending_rows)
        if left == 0:
            raise _nothing_left(restore.id, execution.counts[Verdict.UNKNOWN])
        return await self._beginning.begin_restore(
            conn,
            replace(following, verdicts=tuple(execution.counts)),
            items,
            BegunBy(
                "restore.continue",
                {
                    "continues_restore_id": restore.id,
                    "left": left,
                    "also_unknown": request.also_unknown,
                    "accept_moved": request.accept_moved,
                },
                request.request_id,
                [_updated_change(restore)],
            ),
        )

    async def _hold_restore(
        self,
        restore_id: str,
        principal: Principal,
        *,
        pause: bool,
        may_be: tuple[RestoreState, ...],
    ) -> RestoreRecord:
        word = "pause" if pause else "resume"
        await self._require_granted(principal, f"restore.restores.{word}", restore_id)
        async with self._store.database.begin_transaction() as conn:
            restore = await self._store.lock_restore(conn, restore_id)
            if restore.state not in may_be:
                raise FailedPrecondition(
                    f"restore {restore.id} is {restore.state.name.lower()}: there is nothing to"
                    f" {word}. Make a new plan for what is left",
                    reason=Reason.WRONG_STATE,
                    field="id",
                    metadata={"state": restore.state.name},
                )
            if restore.pause_requested != pause:
                await self._store.set_pause(conn, restore_id, pause=pause)
                await audit.append_entry(
                    conn,
                    audit.AuditedAct(
                        actor=principal.name,
                        role=principal.roles_text,
                        action=f"restore.{word}",
                        object=f"restores/{restore.id}",
                        at_ns=self._clock(),
                    ),
                    events=[_updated_change(restore)],
                )
        self._running.hold_restore(restore_id, pause=pause)
        self._notifier.wake_listeners(restore_id)
        return await self._store.restore(restore_id)

    async def _require_granted(
        self, principal: Principal, permission: str, restore_id: str
    ) -> None:
        """Raise `PermissionDenied` where the caller may do it with some PVs, and not with these."""
        if principal.selectors_for(permission) is not None:
            restore = await self._store.restore(restore_id)
            doing = f"{permission.rpartition('.')[2]} of restore {restore_id}"
            await self._grants.require_plan(principal, permission, restore.plan_id, doing)

    async def _end_waiting(self, conn: Connection, restore: RestoreRecord) -> RestoreEnd | None:
        """End a restore that no worker has begun; how, or None where one has."""
        if restore.state != RestoreState.WAITING:
            return None
        items = await self._store.plan_items(restore.plan_id, restore.plan_digest, conn)
        carried = await self._store.carried_outcome(restore)
        execution = replay_execution(items, [], carried)
        execution.close_books()
        outcome = items, outcome_of(items, execution, carried)
        end = RestoreEnd(RestoreState.ABORTED, execution.counts, outcome)

        async def end_job(conn: Connection, state: JobState, *, error: JobError | None) -> None:
            if not await self._jobs.end_queued(conn, restore.job_id, state, error):
                raise JobLost(restore.job_id)

        try:
            async with conn.transaction():
                await self._ending.end_in(conn, restore, end, end_job)
        except JobLost:
            return None  # a worker has begun it, and is told to stop
        return end

    async def get(self, restore_id: str) -> RestoreRecord:
        """One restore. NotFound."""
        return await self._store.restore(restore_id)

    async def list_page(
        self, limit: int, before_id: str | None, chosen: Chosen
    ) -> list[RestoreRecord]:
        """Up to `limit` restores of those chosen, newest first."""
        return await self._store.list_restores(limit, before_id, chosen)

    async def items(self, restore_id: str) -> tuple[PlanItems, Outcome, set[int]]:
        """The items and what became of them; of a running one what the journal tells so far.

        And the numbers of the PVs whose write may still take place.
        """
        restore = await self._store.restore(restore_id)
        items = await self._store.plan_items(restore.plan_id, restore.plan_digest)
        outcome = await self._store.read_outcome(restore_id)
        if outcome is None:
            carried = await self._store.carried_outcome(restore)
            execution = replay_execution(items, await self._store.read_journal(restore_id), carried)
            outcome = outcome_of(items, execution, carried)
        held = await self._store.unanswered_writes(restore_id=restore_id)
        return items, outcome, {write.number for write in held}

    async def watch_restore(self, restore_id: str) -> AsyncGenerator[RestoreRecord, None]:
        """The restore now, then as it changes (merged for a slow reader), until it has ended.

        While Postgres is away it waits, after the first answer.
        """
        with self._notifier.listen_to_restore(restore_id) as changed:
            restore = await self._store.restore(restore_id)
            yield restore
            while not restore.state.ended:
                try:
                    async with asyncio.timeout(_POLL_S):
                        await changed.wait()
                except TimeoutError:
                    pass  # it may run in another process: look
                changed.clear()
                try:
                    fresh = await self._store.restore(restore_id)
                except Unavailable:
                    continue
                if fresh.revision != restore.revision:
                    restore = fresh
                    yield restore


def _check_plan(plan: PlanRecord, digest: str, now_ns: int) -> None:
    if digest != plan.digest:
        raise FailedPrecondition(
            f"the digest is not that of plan {plan.id}: look at the plan again",
            reason=Reason.PLAN_DIGEST_MISMATCH,
            field="digest",
            metadata={"digest": plan.digest},
        )
    state = plan.state(now_ns)
    if state == PlanState.EXECUTED:
        raise FailedPrecondition(
            f"plan {plan.id} was executed by restore {plan.restore_id}; make a new one",
            reason=Reason.WRONG_STATE,
            metadata={"state": state.name, "restore_id": plan.restore_id or ""},
        )
    if state == PlanState.EXPIRED:
        raise FailedPrecondition(
            f"plan {plan.id} has expired, or was made by an older server; make a new one",
            reason=Reason.PLAN_EXPIRED,
        )
    _check_approved(plan, now_ns)
    if plan.writes == 0:
        raise FailedPrecondition(f"plan {plan.id} writes nothing", reason=Reason.PLAN_EMPTY)


def _check_approved(plan: PlanRecord, now_ns: int) -> None:
    missing = None if plan.approval is None else plan.approval.missing_approval(now_ns)
    if missing is not None:
        raise missing


def _updated_change(restore: RestoreRecord) -> ResourceChange:
    """What somebody asked of a restore is in it; its state is as it was."""
    state = restore.state.name.lower()
    return ResourceChange(Resource.RESTORE, EventKind.UPDATED, restore.id, state=state)


def _continuation(
    restore: RestoreRecord, request: ResumeRequest, principal: Principal, now: int
) -> RestoreRecord:
    """The record of the restore that continues `restore`: as that was, but for what is asked."""
    return replace(
        restore,
        id="",
        job_id="",
        state=RestoreState.WAITING,
        principal=principal.name,
        role=principal.roles_text,
        comment=request.comment,
        start_by_ns=now + request.start_deadline_ns,
        write_timeout_ns=request.write_timeout_ns or restore.write_timeout_ns,
        verify_timeout_ns=(
            restore.verify_timeout_ns
            if request.verify_timeout_ns is None
            else request.verify_timeout_ns
        ),
        accept_moved=request.accept_moved,
        max_unreachable=(
            restore.max_unreachable if request.max_unreachable is None else request.max_unreachable
        ),
        create_time_ns=now,
        continues_restore_id=restore.id,
        also_unknown=request.also_unknown,
    )


def _nothing_left(restore_id: str, unknown: int) -> FailedPrecondition:
    also = f", but {unknown} PVs of which nobody knows; say also_unknown" if unknown else ""
    return FailedPrecondition(
        f"restore {restore_id} has left nothing to send{also}",
        reason=Reason.PLAN_EMPTY,
        field="id",
        metadata={"unknown": str(unknown)},
    )
