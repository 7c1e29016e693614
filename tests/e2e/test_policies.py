"""A policy that is given to a device counts for the next plan, and is named in its items."""

from __future__ import annotations

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as catalog
from drey.policy.v1 import policy_service_pb2, policy_service_pb2_grpc
from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey_client.plan_digest import plan_digest
from tests.e2e.conftest import Running


def _planned(running: Running, pv: catalog_pb2.Pv) -> restore_pb2.PlanItem:
    restores = restore_service_pb2_grpc.RestoreServiceStub(running.channel)
    spec = restore_pb2.PlanSpec()
    spec.values.values.add(name=pv.name).value.float64_value = 0.5
    request = restore_service_pb2.CreatePlanRequest(spec=spec)
    plan = restores.CreatePlan(request, **running.call()).plan
    read = restore_service_pb2.ReadPlanRequest(id=plan.id)
    messages = restores.ReadPlan(read, **running.call())
    [item] = [item for message in messages for item in message.items]
    assert plan_digest(plan, [item]) == plan.digest
    return item


def test_a_policy_of_a_device_counts_for_the_next_plan(running: Running) -> None:
    policies = policy_service_pb2_grpc.PolicyServiceStub(running.channel)
    listed = running.catalog.ListPvs(catalog.ListPvsRequest(page_size=1000), **running.call())
    pv = next(
        pv for pv in listed.pvs if pv.device and pv.setpoint.address and not pv.restore_policy.stage
    )
    before = _planned(running, pv)
    request = policy_service_pb2.CreatePolicyRequest(
        policy={"device": pv.device, "policy": {"stage": 4}, "comment": "a test"}
    )
    made = policies.CreatePolicy(request, **running.call()).policy
    try:
        item = _planned(running, pv)
        told = {each.policy_field: each.WhichOneof("source") for each in item.policy_sources}
        assert (item.policy.stage, item.stage, told["stage"]) == (4, 4, "device")
        assert made.pv_count >= 1
    finally:
        gone = policy_service_pb2.DeletePolicyRequest(id=made.id)
        policies.DeletePolicy(gone, **running.call())
    assert _planned(running, pv).policy == before.policy
