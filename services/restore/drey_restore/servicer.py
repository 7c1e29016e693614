"""`drey.restore.v1.RestoreService`: validate, map, call, map."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import grpc

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_core import errors
from drey_core.token import decode_page_token
from drey_restore import item_rows, mapping
from drey_restore.limits import Clock
from drey_restore.usecases.approvals import Approvals
from drey_restore.usecases.plans import Plans
from drey_restore.usecases.restores import Restores
from drey_runtime.auth import current_principal
from drey_runtime.mapping.job import job_to_proto
from drey_runtime.paging import check_page_size, cut_page
from drey_runtime.waiting import repeat_last

SERVICE = "drey.restore.v1.RestoreService"

Context = grpc.aio.ServicerContext[Any, Any]


def _page_position(kind: str, query: bytes, token: str) -> str | None:
    decoded = decode_page_token(kind, query, token, (UUID,))
    return None if decoded is None else str(decoded[0])


class RestoreServicer:
    """Each method is one of the contract, which documents it."""

    def __init__(
        self, plans: Plans, restores: Restores, approvals: Approvals, clock: Clock
    ) -> None:
        self._plans, self._restores, self._approvals = plans, restores, approvals
        self._clock = clock

    async def CreatePlan(
        self, request: pb.CreatePlanRequest, context: Context
    ) -> pb.CreatePlanResponse:
        wanted = mapping.plan_request(request)
        with errors.fields_at(selector="spec.selector", id="spec.state.snapshot_id"):
            plan = await self._plans.create_plan(wanted, current_principal.get())
        return pb.CreatePlanResponse(plan=mapping.plan_message(plan, self._clock()))

    async def GetPlan(self, request: pb.GetPlanRequest, context: Context) -> pb.GetPlanResponse:
        plan = await self._plans.get(request.id)
        return pb.GetPlanResponse(plan=mapping.plan_message(plan, self._clock()))

    async def ReadPlan(self, request: pb.ReadPlanRequest, context: Context) -> AsyncIterator[bytes]:
        if request.writes_only and request.skips:
            raise errors.InvalidArgument(
                "skips: says what is left out, and writes_only nothing of it; give one of them",
                field="skips",
            )
        items = await self._plans.items(request.id)
        for message in item_rows.plan_chunks(
            items, writes_only=request.writes_only, skips=list(request.skips)
        ):
            yield message
            await asyncio.sleep(0)

    async def ListPlans(
        self, request: pb.ListPlansRequest, context: Context
    ) -> pb.ListPlansResponse:
        size = check_page_size(request.page_size)
        query = mapping.list_query(request)
        before = _page_position("plans", query, request.page_token)
        plans = await self._plans.list_page(size + 1, before, mapping.chosen_filter(request))
        now = self._clock()
        page, more = cut_page(
            "plans", query, plans, size, lambda p: mapping.plan_message(p, now), lambda p: [p.id]
        )
        return pb.ListPlansResponse(plans=page, next_page_token=more)

    async def ApprovePlan(
        self, request: pb.ApprovePlanRequest, context: Context
    ) -> pb.ApprovePlanResponse:
        """Approve a plan as the second person."""
        return pb.ApprovePlanResponse(approval=await self._decide_plan(request))

    async def RejectPlan(
        self, request: pb.RejectPlanRequest, context: Context
    ) -> pb.RejectPlanResponse:
        """Reject a plan as the second person."""
        return pb.RejectPlanResponse(approval=await self._decide_plan(request))

    async def _decide_plan(
        self, request: pb.ApprovePlanRequest | pb.RejectPlanRequest
    ) -> restore_pb2.Approval:
        approval = await self._approvals.decide_plan(
            mapping.decision_of(request), current_principal.get()
        )
        return mapping.approval_message(approval, self._clock())

    async def ListApprovals(
        self, request: pb.ListApprovalsRequest, context: Context
    ) -> pb.ListApprovalsResponse:
        size = check_page_size(request.page_size)
        query = mapping.list_query(request)
        before = _page_position("approvals", query, request.page_token)
        states = list(map(int, request.states)) or None
        approvals = await self._approvals.list_page(
            size + 1, before, request.plan_id.lower() or None, states
        )
        now = self._clock()
        page, more = cut_page(
            "approvals",
            query,
            approvals,
            size,
            lambda each: mapping.approval_message(each, now),
            lambda each: [each.id],
        )
        return pb.ListApprovalsResponse(approvals=page, next_page_token=more)

    async def ExecutePlan(
        self, request: pb.ExecutePlanRequest, context: Context
    ) -> pb.ExecutePlanResponse:
        wanted = mapping.execute_request(request)
        with errors.fields_at(id="plan_id"):
            restore, job = await self._restores.execute_plan(wanted, current_principal.get())
        return pb.ExecutePlanResponse(
            restore=mapping.restore_message(restore), job=job_to_proto(job)
        )

    async def GetRestore(
        self, request: pb.GetRestoreRequest, context: Context
    ) -> pb.GetRestoreResponse:
        restore = await self._restores.get(request.id)
        return pb.GetRestoreResponse(restore=mapping.restore_message(restore))

    async def ListRestores(
        self, request: pb.ListRestoresRequest, context: Context
    ) -> pb.ListRestoresResponse:
        size = check_page_size(request.page_size)
        query = mapping.list_query(request)
        before = _page_position("restores", query, request.page_token)
        restores = await self._restores.list_page(size + 1, before, mapping.chosen_filter(request))
        page, more = cut_page(
            "restores", query, restores, size, mapping.restore_message, lambda r: [r.id]
        )
        return pb.ListRestoresResponse(restores=page, next_page_token=more)

    async def WatchRestore(
        self, request: pb.WatchRestoreRequest, context: Context
    ) -> AsyncIterator[pb.WatchRestoreResponse]:
        async with aclosing(repeat_last(self._restores.watch_restore(request.id))) as changes:
            async for restore in changes:
                yield pb.WatchRestoreResponse(restore=mapping.restore_message(restore))

    async def ReadRestore(
        self, request: pb.ReadRestoreRequest, context: Context
    ) -> AsyncIterator[bytes]:
        items, outcome, held = await self._restores.items(request.id)
        for message in item_rows.restore_chunks(
            items, outcome, verdicts=list(request.verdicts), held=held
        ):
            yield message
            await asyncio.sleep(0)

    async def AbortRestore(
        self, request: pb.AbortRestoreRequest, context: Context
    ) -> pb.AbortRestoreResponse:
        restore = await self._restores.abort(
            *(request.id, request.reason, current_principal.get()), roll_back=request.roll_back
        )
        return pb.AbortRestoreResponse(restore=mapping.restore_message(restore))

    async def PauseRestore(
        self, request: pb.PauseRestoreRequest, context: Context
    ) -> pb.PauseRestoreResponse:
        restore = await self._restores.pause_restore(request.id, current_principal.get())
        return pb.PauseRestoreResponse(restore=mapping.restore_message(restore))

    async def ResumeRestore(
        self, request: pb.ResumeRestoreRequest, context: Context
    ) -> pb.ResumeRestoreResponse:
        wanted = mapping.resume_request(request)
        restore = await self._restores.resume_restore(wanted, current_principal.get())
        return pb.ResumeRestoreResponse(restore=mapping.restore_message(restore))
