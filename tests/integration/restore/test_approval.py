"""What the site keeps under approval is restored by two persons, or not at all."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from drey.common.v1 import errors_pb2, selector_pb2
from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_client.plan_digest import plan_digest
from drey_runtime import status
from drey_testing.restore_world import RestoreSite

PlanState, ApprovalState = restore_pb2.PlanState, restore_pb2.ApprovalState
EVERYTHING = [{"approval_required": "*"}]
BOB = {"name": "bob", "roles": ("approver",)}


async def refusal(awaitable: Any) -> tuple[str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return status.reason_of(caught.value)


async def one_disturbed(site: RestoreSite, seed: int) -> restore_pb2.Plan:
    snapshot_id = await site.world.take()
    await site.machine.disturb_values(1, seed=seed)
    await site.world.publish()
    return await site.plan(snapshot_id)


async def approve(site: RestoreSite, plan: restore_pb2.Plan, **more: Any) -> restore_pb2.Approval:
    """As a second person does whose own program computes the digest."""
    who = more.pop("who", BOB)
    found = await site.stream("ReadPlan", pb.ReadPlanRequest(id=plan.id))
    digest = plan_digest(plan, [item for message in found for item in message.items])
    request = pb.ApprovePlanRequest(id=plan.id, digest=more.pop("digest", digest), **more)
    answer: restore_pb2.Approval = (await site.call("ApprovePlan", request, **who)).approval
    return answer


async def reject(site: RestoreSite, plan: restore_pb2.Plan, **who: Any) -> restore_pb2.Approval:
    request = pb.RejectPlanRequest(id=plan.id, reason="beam is on", request_id=str(uuid.uuid4()))
    answer: restore_pb2.Approval = (await site.call("RejectPlan", request, **(who or BOB))).approval
    return answer


async def listed(site: RestoreSite, **chosen: Any) -> list[restore_pb2.Approval]:
    answer = await site.call("ListApprovals", pb.ListApprovalsRequest(**chosen))
    return list(answer.approvals)


async def get(site: RestoreSite, plan: restore_pb2.Plan) -> restore_pb2.Plan:
    found: restore_pb2.Plan = (await site.call("GetPlan", pb.GetPlanRequest(id=plan.id))).plan
    return found


@pytest.mark.parametrize("more_settings", EVERYTHING)
async def test_a_second_person_approves_and_then_it_is_executed(site: RestoreSite) -> None:
    plan = await one_disturbed(site, 61)
    assert plan.state == PlanState.PLAN_STATE_WAITS_FOR_APPROVAL
    items = await site.plan_items(plan.id, writes_only=True)
    reason, metadata = await refusal(site.execute(plan))
    assert reason == "APPROVAL_REQUIRED"
    assert metadata["first_pv"] == next(iter(items))
    assert (metadata["pvs"], metadata["state"]) == ("1", "PENDING")
    [waiting] = await listed(site, states=[ApprovalState.APPROVAL_STATE_PENDING])
    assert (waiting.plan_id, waiting.requester.principal) == (plan.id, "ann")
    assert not waiting.HasField("approver")
    request_id = str(uuid.uuid4())
    approved = await approve(site, plan, request_id=request_id, reason="shutdown")
    assert approved.state == ApprovalState.APPROVAL_STATE_APPROVED
    assert (approved.approver.principal, approved.reason) == ("bob", "shutdown")
    assert approved.expire_time == plan.expire_time
    assert await approve(site, plan, request_id=request_id, reason="shutdown") == approved
    assert (await get(site, plan)).state == PlanState.PLAN_STATE_READY
    ended = await site.ended((await site.execute(plan)).id)
    assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED, ended
    assert (await refusal(approve(site, plan)))[0] == "WRONG_STATE"
    assert await listed(site, plan_id=plan.id) == [approved]


@pytest.mark.parametrize("more_settings", EVERYTHING)
async def test_nobody_decides_on_their_own_plan_nor_on_another_digest(site: RestoreSite) -> None:
    plan = await one_disturbed(site, 62)
    own = {"name": "ann", "roles": ("admin",)}  # the same person by another key
    assert (await refusal(approve(site, plan, who=own)))[0] == "OWN_PLAN"
    assert (await refusal(reject(site, plan, **own)))[0] == "OWN_PLAN"
    assert (await refusal(approve(site, plan, digest="0" * 64)))[0] == "PLAN_DIGEST_MISMATCH"
    restorer = {"name": "bob", "roles": ("restorer",)}
    assert (await refusal(approve(site, plan, who=restorer)))[0] == "PERMISSION_DENIED"
    assert (await get(site, plan)).state == PlanState.PLAN_STATE_WAITS_FOR_APPROVAL
    assert (await refusal(site.execute(plan)))[0] == "APPROVAL_REQUIRED"


@pytest.mark.parametrize("more_settings", EVERYTHING)
async def test_what_was_rejected_is_never_executed(site: RestoreSite) -> None:
    plan = await one_disturbed(site, 63)
    await approve(site, plan)
    rejected = await reject(site, plan)
    assert rejected.state == ApprovalState.APPROVAL_STATE_REJECTED
    assert (await get(site, plan)).state == PlanState.PLAN_STATE_REJECTED
    for attempt in (approve(site, plan), reject(site, plan), site.execute(plan)):
        assert (await refusal(attempt))[0] == "WRONG_STATE"
    states = [PlanState.PLAN_STATE_REJECTED]
    found = await site.call("ListPlans", pb.ListPlansRequest(states=states))
    assert [each.id for each in found.plans] == [plan.id]


@pytest.mark.parametrize("more_settings", EVERYTHING)
async def test_an_approval_that_is_over_is_given_anew(site: RestoreSite) -> None:
    plan = await one_disturbed(site, 64)
    over = await approve(site, plan, lifetime=Duration(nanos=1))
    assert over.state == ApprovalState.APPROVAL_STATE_EXPIRED
    assert (await get(site, plan)).state == PlanState.PLAN_STATE_WAITS_FOR_APPROVAL
    reason, metadata = await refusal(site.execute(plan))
    assert (reason, metadata["state"]) == ("APPROVAL_REQUIRED", "EXPIRED")
    expired = [ApprovalState.APPROVAL_STATE_EXPIRED]
    assert [each.plan_id for each in await listed(site, states=expired)] == [plan.id]
    waits = [PlanState.PLAN_STATE_WAITS_FOR_APPROVAL]
    found = await site.call("ListPlans", pb.ListPlansRequest(states=waits))
    assert [each.id for each in found.plans] == [plan.id]
    await approve(site, plan)
    await site.ended((await site.execute(plan)).id)


async def test_a_plan_that_needs_no_approval_gets_none(site: RestoreSite) -> None:
    plan = await one_disturbed(site, 65)
    assert plan.state == PlanState.PLAN_STATE_READY
    assert not plan.HasField("approval")
    assert (await refusal(approve(site, plan)))[0] == "WRONG_STATE"
    assert await listed(site) == []


@pytest.mark.parametrize("more_settings", [{"approval_required": "tag:Safety=Interlock"}])
async def test_only_plans_that_write_what_is_chosen_need_approval(
    site: RestoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(2, seed=66)
    await site.world.publish()
    rows = {row.setpoint: site.world.number(row) for row in site.world.rows}
    resolve = site.world.resolve

    def tagged(selector: Any) -> Any:
        return resolve(selector_pb2.Selector(names=moved[:1]) if selector.tags else selector)

    monkeypatch.setattr(site.world, "resolve", tagged)
    free = await site.plan(snapshot_id, selector=selector_pb2.Selector(numbers=[rows[moved[1]]]))
    assert (free.writes, free.state) == (1, PlanState.PLAN_STATE_READY)
    both = await site.plan(snapshot_id)
    assert both.state == PlanState.PLAN_STATE_WAITS_FOR_APPROVAL
    assert (both.approval.pvs, both.approval.first_pv) == (1, moved[0])

    def gone(selector: Any) -> Any:
        from drey_core.errors import NotFound

        if selector.tags:
            raise NotFound("there is no tag group Safety")
        return resolve(selector)

    monkeypatch.setattr(site.world, "resolve", gone)
    careful = await site.plan(snapshot_id)
    assert careful.approval.pvs == careful.writes == 2


@pytest.mark.parametrize("more_settings", EVERYTHING)
async def test_decisions_are_in_the_audit_and_among_the_events(site: RestoreSite) -> None:
    import asyncpg

    plan = await one_disturbed(site, 67)
    await approve(site, plan, reason="shutdown")
    await reject(site, plan)
    connection = await asyncpg.connect(site.url)
    try:
        acts = await connection.fetch(
            "SELECT actor, action FROM audit.entry WHERE object = $1 ORDER BY seq",
            f"plans/{plan.id}",
        )
    finally:
        await connection.close()
    assert [tuple(act) for act in acts] == [
        ("ann", "plan.create"),
        ("bob", "plan.approve"),
        ("bob", "plan.reject"),
    ]


def test_the_reasons_are_those_of_the_contract() -> None:
    assert errors_pb2.ErrorReason.Value("ERROR_REASON_OWN_PLAN") == 45
