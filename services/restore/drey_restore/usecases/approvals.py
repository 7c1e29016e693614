"""A second person decides on plans, and which plans need one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from drey_core.errors import FailedPrecondition, Internal, NotFound, Reason
from drey_core.selector import Selector
from drey_core.values import I8
from drey_restore.adapters.catalog import CatalogClient
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.approval import Approval
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import ApprovalState, PlanState
from drey_restore.domain.records import PlanRecord
from drey_restore.limits import Clock
from drey_restore.usecases.grants import GrantCheck
from drey_runtime import audit, idempotency
from drey_runtime.auth import Principal
from drey_runtime.clock import new_id
from drey_runtime.database import Connection
from drey_runtime.event_log import EventKind, Resource, ResourceChange
from drey_runtime.mapping.selector import selector_to_proto
from drey_runtime.waiting import run_together

log = logging.getLogger(__name__)

METHODS = "drey.restore.v1.RestoreService/"


@dataclass(frozen=True)
class Decision:
    """What a second person asks for. `digest` and `lifetime_ns` are those of an approval.

    `lifetime_ns` None: as long as the plan. `raw`: the request, by which a repeat is known.
    """

    plan_id: str
    state: ApprovalState
    digest: str
    lifetime_ns: int | None
    reason: str
    request_id: str
    raw: bytes


class Protected:
    """The PVs that the site keeps under approval."""

    def __init__(self, catalog: CatalogClient, selectors: Sequence[Selector]) -> None:
        self._catalog = catalog
        self._everything = any(selector.all for selector in selectors)
        self._selectors = [selector_to_proto(selector) for selector in selectors]

    async def protected_numbers(self) -> I8 | None:
        """Their numbers; None: all PVs. So too where a tag or scope of the setting is not there."""
        if self._everything:
            return None
        if not self._selectors:
            return np.zeros(0, np.int64)
        calls = (self._catalog.resolve_selector(each, unknown=False) for each in self._selectors)
        try:
            return np.concatenate(await run_together(*calls))
        except NotFound as error:
            log.warning(
                "DREY_RESTORE_APPROVAL_REQUIRED names what is not in the catalog: every plan needs"
                " approval: %s",
                error.message,
            )
            return None


def approval_of(plan: PlanRecord, items: PlanItems, protected: I8 | None) -> Approval | None:
    """The approval that a new plan waits for; None: it needs none."""
    rows = items.writes
    if protected is not None:
        rows = rows[np.isin(items.number[rows], protected)]
    if len(rows) == 0:
        return None
    return Approval(
        id=new_id(),
        plan_id=plan.id,
        digest=plan.digest,
        requester=plan.principal,
        requester_role=plan.role,
        pvs=len(rows),
        first_pv=items.names[int(rows[0])],
        create_time_ns=plan.create_time_ns,
        expire_time_ns=plan.expire_time_ns,
    )


class Approvals:
    """Use cases of approvals."""

    def __init__(self, store: RestoreStore, clock: Clock, grants: GrantCheck) -> None:
        self._store, self._clock, self._grants = store, clock, grants

    async def decide_plan(self, asked: Decision, principal: Principal) -> Approval:
        """Approve or reject a plan; a repeat of the request changes nothing."""
        act = "approve" if asked.state == ApprovalState.APPROVED else "reject"
        method = f"{METHODS}{act.capitalize()}Plan"
        await self._grants.require_plan(
            principal, f"restore.plans.{act}", asked.plan_id, "deciding on this plan"
        )
        async with (
            self._store.database.begin_transaction() as conn,
            idempotency.run_once(conn, method, principal.name, asked.request_id, asked.raw) as slot,
        ):
            if slot.seen is None:
                await self._decide_in(conn, asked, principal, act)
                slot.response = asked.plan_id.encode()
        approvals = await self._store.list_approvals(1, None, plan_id=asked.plan_id)
        if not approvals:
            raise Internal("a decision was not stored")
        return approvals[0]

    async def _decide_in(
        self, conn: Connection, asked: Decision, principal: Principal, act: str
    ) -> None:
        plan = await self._store.lock_plan(conn, asked.plan_id)
        now = self._clock()
        waiting = _undecided_approval(plan, now, act)
        waiting.refuse_own(principal.name)
        approve = asked.state == ApprovalState.APPROVED
        if approve and asked.digest != plan.digest:
            raise FailedPrecondition(
                f"the digest is not that of plan {plan.id}: look at the plan again",
                reason=Reason.PLAN_DIGEST_MISMATCH,
                field="digest",
                metadata={"digest": plan.digest},
            )
        expire = plan.expire_time_ns
        if asked.lifetime_ns is not None:
            expire = min(expire, now + asked.lifetime_ns)
        decided = replace(
            waiting,
            state=asked.state,
            approver=principal.name,
            approver_role=principal.roles_text,
            reason=asked.reason,
            decide_time_ns=now,
            expire_time_ns=expire,
        )
        await self._store.decide_approval(conn, decided)
        await audit.append_entry(
            conn,
            audit.AuditedAct(
                actor=principal.name,
                role=principal.roles_text,
                action=f"plan.{act}",
                object=f"plans/{plan.id}",
                after={
                    "digest": plan.digest,
                    "requester": waiting.requester,
                    "reason": asked.reason,
                    "pvs": waiting.pvs,
                    "expire_time_ns": expire,
                },
                at_ns=now,
                request_id=asked.request_id,
            ),
            events=[
                ResourceChange(
                    Resource.PLAN,
                    EventKind.STATE_CHANGED,
                    plan.id,
                    state="ready" if approve else "rejected",
                )
            ],
        )

    async def list_page(
        self, limit: int, before_id: str | None, plan_id: str | None, states: list[int] | None
    ) -> list[Approval]:
        """Up to `limit` approvals, newest first; None: of any plan, in any state."""
        return await self._store.list_approvals(
            limit, before_id, plan_id=plan_id, states=states, now_ns=self._clock()
        )


def _undecided_approval(plan: PlanRecord, now_ns: int, act: str) -> Approval:
    """The approval of a plan on which can be decided."""
    state = plan.state(now_ns)
    if state == PlanState.EXPIRED:
        raise FailedPrecondition(
            f"plan {plan.id} has expired; make a new one", reason=Reason.PLAN_EXPIRED
        )
    if plan.approval is None:
        why = "needs no approval: no PV that it writes is under approval"
    elif state == PlanState.EXECUTED:
        why = f"was executed by restore {plan.restore_id}"
    elif state == PlanState.REJECTED:
        why = f"was rejected by {plan.approval.approver}; make a new one"
    else:
        return plan.approval
    raise FailedPrecondition(
        f"there is nothing to {act}: plan {plan.id} {why}",
        reason=Reason.WRONG_STATE,
        field="id",
        metadata={"state": state.name},
    )
