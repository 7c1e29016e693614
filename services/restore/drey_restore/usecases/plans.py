"""Making plans and looking at them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np

from drey_core.errors import Internal
from drey_core.values import I8
from drey_restore.adapters.specs import undo_spec
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain import blob
from drey_restore.domain.digest import plan_digest
from drey_restore.domain.effect import require_effect
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import SKIPS
from drey_restore.domain.records import RECIPE, Chosen, PlanRecord, RestoreRecord, Rules
from drey_restore.domain.waiting import stage_waits
from drey_restore.limits import Clock
from drey_restore.usecases.approvals import Protected, approval_of
from drey_restore.usecases.gathering import PlanGathering, PlanRequest, Undo
from drey_restore.usecases.grants import GrantCheck
from drey_restore.usecases.guards import Guards
from drey_restore.usecases.sources import PlanSource
from drey_runtime import audit, idempotency
from drey_runtime.admission import Room
from drey_runtime.auth import Principal
from drey_runtime.clock import new_id
from drey_runtime.database import Connection
from drey_runtime.event_log import EventKind, Resource, ResourceChange
from drey_runtime.waiting import Turns, run_together

_AT_A_TIME = 2
_MOST_WAITING = 100
"""Plans that are being made, or wait for their turn; of both one key has a share at most."""

METHOD = "drey.restore.v1.RestoreService/CreatePlan"
_WAY_BACK_NS = 900 * 10**9
"""How long the plan of a way back may be executed; it is at once."""


@dataclass(frozen=True)
class MadePlan:
    """A plan that is not stored yet: with its digest, its items, and these as they are stored."""

    plan: PlanRecord
    items: PlanItems
    packed: bytes


class Plans:
    """Use cases of plans."""

    def __init__(
        self,
        store: RestoreStore,
        gathering: PlanGathering,
        guards: Guards,
        protected: Protected,
        grants: GrantCheck,
        clock: Clock,
        share: float,
    ) -> None:
        self._store, self._gathering, self._guards = store, gathering, guards
        self._protected, self._grants, self._clock = protected, grants, clock
        self._turns = Turns(_AT_A_TIME, share)
        self._room = Room("plans that are being made or wait for it", _MOST_WAITING, share)

    async def create_plan(self, request: PlanRequest, principal: Principal) -> PlanRecord:
        """Make and store a plan; a repeat of the request gives the plan of the first one."""
        made = await self._seen_plan(request, principal)
        if made is None:
            async with self._take_turn(principal.holder):
                await self._guards.check_rules(request.rules)
                request = await self._gathering.find_golden(request)
                items, protected = await run_together(
                    self._gathering.compute_items(request), self._protected.protected_numbers()
                )
                require_effect(request.rules, items)
                await self._grants.require_grant(
                    principal, "restore.plans.create", items, "making this plan"
                )
                plan = self._plan_record(request, principal.name, principal.roles_text, items)
                made = await self._insert_plan(request, principal, plan, items, protected)
        return await self._store.read_plan(made)

    @asynccontextmanager
    async def _take_turn(self, holder: str) -> AsyncIterator[None]:
        """One of a few that make plans at a time; RESOURCE_EXHAUSTED where too many wait."""
        with self._room.take_place(holder, "this key"):
            async with self._turns.take_turn(holder):
                yield

    async def _seen_plan(self, request: PlanRequest, principal: Principal) -> str | None:
        """Id of the plan that this very request made before."""
        if not request.request_id:
            return None
        async with self._store.database.acquire_connection() as conn:
            seen = await idempotency.find_answer(
                conn, METHOD, principal.name, request.request_id, request.raw
            )
        return None if seen is None else seen.decode()

    async def _insert_plan(
        self,
        request: PlanRequest,
        principal: Principal,
        plan: PlanRecord,
        items: PlanItems,
        protected: I8 | None,
    ) -> str:
        """Store a plan, unless a repeat of the request was faster; the id of the one stored."""
        async with (
            self._store.database.begin_transaction() as conn,
            idempotency.run_once(
                conn, METHOD, principal.name, request.request_id, request.raw
            ) as slot,
        ):
            if slot.seen is None:
                # the digest is made while the database takes the rows
                _, made = await run_together(
                    self._store.insert_writes(conn, plan.id, items),
                    asyncio.to_thread(_pack_plan, plan, items),
                )
                approval = approval_of(made.plan, items, protected)
                made = replace(made, plan=replace(made.plan, approval=approval))
                await self._store_packed(
                    conn, made, given=len(request.given or ()), request_id=request.request_id
                )
                slot.response = plan.id.encode()
        if slot.response is None:
            raise Internal("a plan was not stored")
        return slot.response.decode()

    async def store_made(self, conn: Connection, made: MadePlan) -> None:
        """Store a plan in the caller's transaction."""
        await self._store.insert_writes(conn, made.plan.id, made.items)
        await self._store_packed(conn, made)

    async def _store_packed(
        self, conn: Connection, made: MadePlan, *, given: int = 0, request_id: str = ""
    ) -> None:
        """Store all of a plan but its rows; `given`: values of it that the caller gave."""
        plan = made.plan
        await self._store.insert_plan(conn, plan, made.packed)
        if plan.approval is not None:
            await self._store.insert_approval(conn, plan.approval)
        await audit.append_entry(
            conn,
            audit.AuditedAct(
                actor=plan.principal,
                role=plan.role,
                action="plan.create",
                object=f"plans/{plan.id}",
                after={
                    "snapshot_id": plan.snapshot_id,
                    "undoes_restore_id": plan.undoes_restore_id or "",
                    "given_values": given,
                    "digest": plan.digest,
                    "pvs": plan.pvs,
                    "writes": plan.writes,
                    "under_approval": 0 if plan.approval is None else plan.approval.pvs,
                },
                at_ns=plan.create_time_ns,
                request_id=request_id,
            ),
            events=[
                ResourceChange(
                    Resource.PLAN,
                    EventKind.CREATED,
                    plan.id,
                    state=plan.state(plan.create_time_ns).name.lower(),
                )
            ],
        )

    async def make_way_back(self, restore: RestoreRecord, source: PlanSource) -> MadePlan:
        """The plan of the way back of a restore that is about to end, in the name of its actor.

        It waits for no second person: that it goes back was decided with the restore.
        """
        comment = f"rolls back restore {restore.id}"
        request = PlanRequest(
            snapshot_id="",
            golden=None,
            undo=Undo(restore.id),
            given=None,
            selector=None,
            edits=(),
            exact=False,
            lifetime_ns=_WAY_BACK_NS,
            comment=comment,
            rules=Rules(),
            spec=undo_spec(restore.id, comment),
            request_id="",
            raw=b"",
            source=source,
        )
        items = await self._gathering.compute_items(request)
        plan = self._plan_record(request, restore.principal, restore.role, items)
        return await asyncio.to_thread(_pack_plan, plan, items)

    def _plan_record(
        self, request: PlanRequest, principal: str, role: str, items: PlanItems
    ) -> PlanRecord:
        """The plan, but for its digest."""
        now = self._clock()
        skips = np.bincount(items.skip, minlength=SKIPS)
        return PlanRecord(
            id=new_id(),
            digest="",
            snapshot_id=request.snapshot_id,
            pvs=len(items),
            writes=int(skips[0]),
            skips=(0, *skips[1:].tolist()),
            exact=request.exact,
            principal=principal,
            role=role,
            comment=request.comment,
            create_time_ns=now,
            expire_time_ns=now + request.lifetime_ns,
            recipe=RECIPE,
            spec=request.spec,
            rules=request.rules,
            undoes_restore_id=None if request.undo is None else request.undo.restore_id,
            stages=tuple(int(items.stage[rows[0]]) for rows in items.rows_by_stage),
            stage_writes=tuple(len(rows) for rows in items.rows_by_stage),
            stage_waits=stage_waits(items),
        )

    async def get(self, plan_id: str) -> PlanRecord:
        """One plan. NotFound."""
        return await self._store.read_plan(plan_id)

    async def items(self, plan_id: str) -> PlanItems:
        """Its items. NotFound."""
        return await self._store.plan_items(plan_id)

    async def list_page(
        self, limit: int, before_id: str | None, chosen: Chosen
    ) -> list[PlanRecord]:
        """Up to `limit` plans of those chosen, newest first."""
        return await self._store.plans(limit, before_id, chosen, self._clock())


def _pack_plan(plan: PlanRecord, items: PlanItems) -> MadePlan:
    plan = replace(plan, digest=plan_digest(plan, items))
    return MadePlan(plan, items, blob.compress_blob(items.encode_items()))
