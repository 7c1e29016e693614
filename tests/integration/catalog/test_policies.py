"""PolicyService on real parts: how restores treat PVs by default, by device and by tag."""

from __future__ import annotations

import uuid
from typing import Any

import asyncpg
import pytest
from grpc import StatusCode

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as catalog
from drey.internal.directory.v1 import directory_service_pb2 as directory
from drey.policy.v1 import policy_pb2
from drey.policy.v1 import policy_service_pb2 as rpc
from drey.policy.v1.policy_service_pb2_grpc import PolicyServiceStub
from drey_snapshot.catalog.domain import policy as domain
from tests.integration.catalog.conftest import connect
from tests.integration.catalog.helpers import create, refused, update

SENT, CALLBACK, DONE = (
    catalog_pb2.COMPLETION_SENT,
    catalog_pb2.COMPLETION_PUT_CALLBACK,
    catalog_pb2.COMPLETION_DONE_CHANNEL,
)


@pytest.fixture
def policies(service: Any) -> Any:
    return PolicyServiceStub(service.channel)


def of_tag(group: str, tag: str, **policy: Any) -> policy_pb2.DefaultPolicy:
    return policy_pb2.DefaultPolicy(tag={"group": group, "tag": tag}, policy=policy)


def of_device(device: str, **policy: Any) -> policy_pb2.DefaultPolicy:
    return policy_pb2.DefaultPolicy(device=device, policy=policy)


async def give(policies: Any, policy: policy_pb2.DefaultPolicy, **more: Any) -> Any:
    request = rpc.CreatePolicyRequest(policy=policy, **more)
    return (await policies.CreatePolicy(request)).policy


async def effective(service: Any, pv: catalog_pb2.Pv) -> Any:
    request = catalog.GetEffectivePolicyRequest(id=pv.id)
    return await service.catalog.GetEffectivePolicy(request)


async def retag(service: Any, pv: catalog_pb2.Pv, *tags: tuple[str, str]) -> None:
    refs = [catalog_pb2.TagRef(group=group, tag=tag) for group, tag in tags]
    await update(service, catalog_pb2.Pv(id=pv.id, tags=refs), "tags")


def who(source: catalog_pb2.PolicySource) -> str:
    match source.WhichOneof("source"):
        case "tag":
            return f"{source.tag.group}={source.tag.tag}"
        case "device":
            return source.device
        case other:
            return str(other)


def sources(found: Any) -> dict[str, str]:
    return {each.policy_field: who(each) for each in found.sources}


async def test_what_holds_for_a_pv_comes_from_it_its_tags_its_device_and_drey(
    service: Any, policies: Any
) -> None:
    pv = await create(
        service, "Q:1", device="PS:1", tags=[("Kind", "weak")], restore_policy={"stage": 7}
    )
    plain = await create(service, "Q:2")
    await give(policies, of_device("PS:1", ramp_step=0.5, settle={"seconds": 1}, stage=3))
    made = await give(policies, of_tag("kind", "WEAK", settle={"seconds": 2}))
    assert (made.tag.group, made.tag.tag, made.pv_count) == ("Kind", "weak", 1)
    found = await effective(service, pv)
    assert (found.policy.stage, found.policy.settle.seconds, found.policy.ramp_step) == (7, 2, 0.5)
    assert (found.policy.completion, found.policy.HasField("timeout")) == (CALLBACK, False)
    assert sources(found) == {
        "stage": "pv",
        "settle": "Kind=weak",
        "ramp_step": "PS:1",
        **dict.fromkeys(("completion", "timeout", "ramp_rate", "allowed"), "built_in"),
    }
    assert set(sources(await effective(service, plain)).values()) == {"built_in"}
    # the restore service sees the same, without what Drey does by itself
    request = directory.GetRestorePoliciesRequest()
    answers = [answer async for answer in service.directory.GetRestorePolicies(request)]
    [policy] = [policy for answer in answers for policy in answer.policies]
    assert sources(policy).keys() == {"stage", "settle", "ramp_step"}
    assert [n for answer in answers for n in answer.pv_numbers] == [pv.number]
    assert [i for answer in answers for i in answer.policy_indexes] == [0]


async def test_a_tag_with_a_policy_may_be_renamed_and_does_not_go(
    service: Any, policies: Any
) -> None:
    pv = await create(service, "Q:1", tags=[("Kind", "weak"), ("Kind", "other")])
    made = await give(policies, of_tag("Kind", "weak", stage=2))
    [group] = (await service.catalog.ListTagGroups(catalog.ListTagGroupsRequest())).tag_groups
    other, tag = group.tags
    rename = catalog.UpdateTagRequest(tag=catalog_pb2.Tag(id=tag.id, name="soft"))
    rename.update_mask.paths.append("name")
    await service.catalog.UpdateTag(rename)
    assert sources(await effective(service, pv))["stage"] == "Kind=soft"
    gone: list[tuple[Any, Any]] = [
        (service.catalog.DeleteTag, catalog.DeleteTagRequest(id=tag.id, force=True)),
        (service.catalog.DeleteTagGroup, catalog.DeleteTagGroupRequest(id=group.id, force=True)),
        (service.catalog.MergeTags, catalog.MergeTagsRequest(from_id=tag.id, into_id=other.id)),
    ]
    for call, request in gone:
        with refused(StatusCode.FAILED_PRECONDITION, "IN_USE"):
            await call(request)
    await policies.DeletePolicy(rpc.DeletePolicyRequest(id=made.id))
    await service.catalog.DeleteTag(catalog.DeleteTagRequest(id=tag.id, force=True))
    assert sources(await effective(service, pv))["stage"] == "built_in"


async def test_policies_are_changed_by_mask_and_etag_and_repeats_do_nothing_twice(
    service: Any, policies: Any
) -> None:
    once = {"request_id": str(uuid.uuid4())}
    made = await give(policies, of_device("PS:1", stage=3, settle={"seconds": 1}), **once)
    again = await give(policies, of_device("PS:1", stage=3, settle={"seconds": 1}), **once)
    assert again == made and made.actor.principal
    with refused(StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"):
        await give(policies, of_device("PS:1", stage=4))
    change = rpc.UpdatePolicyRequest(
        policy=policy_pb2.DefaultPolicy(
            id=made.id,
            etag=made.etag,
            policy=catalog_pb2.RestorePolicy(stage=5),
            comment="late",
        )
    )
    change.update_mask.paths.extend(["policy.stage", "comment"])
    changed = (await policies.UpdatePolicy(change)).policy
    assert (changed.policy.stage, changed.policy.settle.seconds, changed.comment) == (5, 1, "late")
    assert changed.etag != made.etag and changed.create_time == made.create_time
    with refused(StatusCode.ABORTED, "ETAG_MISMATCH"):
        await policies.UpdatePolicy(change)
    with refused(StatusCode.ABORTED, "ETAG_MISMATCH"):
        await policies.DeletePolicy(rpc.DeletePolicyRequest(id=made.id, etag=made.etag))
    assert (await policies.GetPolicy(rpc.GetPolicyRequest(id=made.id))).policy == changed
    await policies.DeletePolicy(rpc.DeletePolicyRequest(id=made.id, etag=changed.etag))
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        await policies.GetPolicy(rpc.GetPolicyRequest(id=made.id))


async def test_what_contradicts_itself_is_refused_when_it_is_set(
    service: Any, policies: Any
) -> None:
    pv = await create(
        service, "Q:1", device="PS:1", tags=[("Kind", "weak")], restore_policy={"completion": SENT}
    )
    for policy in (
        of_device("PS:1"),
        of_device("", stage=1),
        policy_pb2.DefaultPolicy(policy={"stage": 1}),
        of_device("PS:1", completion=DONE),
        of_device("PS:1", completion=SENT, ramp_step=1.0),
        of_device("PS:1", allowed={"low": 2.0, "high": 1.0}),
    ):
        with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
            await give(policies, policy)
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        await give(policies, of_tag("Kind", "strong", stage=1))
    # by itself it is fine, and with what the PV says it is not
    at_step = "policy.policy.ramp_step"
    with refused(StatusCode.FAILED_PRECONDITION, "POLICY_CONTRADICTION", at_step):
        await give(policies, of_device("PS:1", ramp_step=1.0))
    await give(policies, of_tag("Kind", "weak", stage=1))
    await retag(service, pv, ("Kind", "weak"), ("A", "B"))
    at_stage = "policy.policy.stage"
    with refused(StatusCode.FAILED_PRECONDITION, "POLICY_CONTRADICTION", at_stage):
        await give(policies, of_tag("A", "B", stage=2))
    assert not (await effective(service, pv)).contradictions
    # one that comes about by a tag that a PV gets is told
    other = await create(service, "Q:2", tags=[("C", "D")])
    await give(policies, of_tag("C", "D", stage=9))
    await retag(service, other, ("C", "D"), ("Kind", "weak"))
    [why] = (await effective(service, other)).contradictions
    assert why == "the tag C=D and the tag Kind=weak say different things of stage"


async def test_policies_are_listed_found_and_paged(service: Any, policies: Any) -> None:
    await create(service, "Q:1", device="ps:b", tags=[("Kind", "weak")])
    for device in ("ps:b", "PS:A", "ps:c"):
        await give(policies, of_device(device, stage=1))
    await give(policies, of_tag("Kind", "weak", stage=1))

    async def listed(**asked: Any) -> list[str]:
        answer = await policies.ListPolicies(rpc.ListPoliciesRequest(**asked))
        return [each.device or f"{each.tag.group}={each.tag.tag}" for each in answer.policies]

    assert await listed() == ["PS:A", "ps:b", "ps:c", "Kind=weak"]
    assert await listed(device="ps:b") == ["ps:b"]
    assert await listed(device="PS:B") == []
    assert await listed(tag={"group": "KIND", "tag": "weak"}) == ["Kind=weak"]
    assert await listed(tag={"group": "Kind", "tag": "none"}) == []
    assert await listed(search="ps b") == ["ps:b"]
    first = await policies.ListPolicies(rpc.ListPoliciesRequest(page_size=3))
    assert first.total_size == 4 and first.policies[1].pv_count == 1
    assert await listed(page_size=3, page_token=first.next_page_token) == ["Kind=weak"]
    with refused(StatusCode.INVALID_ARGUMENT, "MALFORMED_PAGE_TOKEN"):
        await listed(page_token=first.next_page_token, search="x")


async def test_who_may_look_may_not_set(service: Any, keys: Any) -> None:
    async with connect(service.settings, keys, ("viewer",)) as channel:
        viewer: Any = PolicyServiceStub(channel)
        assert not (await viewer.ListPolicies(rpc.ListPoliciesRequest())).policies
        with refused(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"):
            await give(viewer, of_device("PS:1", stage=1))


async def test_policies_are_stored_audited_and_announced(service: Any, policies: Any) -> None:
    made = await give(policies, of_device("PS:1", stage=3, allowed={"low": 0.0, "high": 1e9}))
    connection = await asyncpg.connect(service.settings.postgres_url.get_secret_value())
    try:
        stored = await connection.fetchval("SELECT policy::text FROM catalog.default_policy")
        action = await connection.fetchval(
            "SELECT action FROM audit.entry WHERE object = $1", f"policies/{made.id}"
        )
        events = await connection.fetchval(
            "SELECT count(*) FROM event_log.event WHERE resource = 'policy'"
        )
    finally:
        await connection.close()
    assert '"stage": 3' in stored and '"allowed_high": 1000000000.0' in stored
    assert (action, events) == ("policy.create", 1)


async def test_a_change_of_one_policy_reads_no_other_again(
    service: Any, policies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [await give(policies, of_device(f"D{n}", completion=SENT)) for n in range(3)]
    await policies.ListPolicies(rpc.ListPoliciesRequest())
    decoded = list[str]()

    def count_read(text: str) -> Any:
        decoded.append(text)
        return from_json(text)

    from_json = domain.from_json
    monkeypatch.setattr(domain, "from_json", count_read)
    await create(service, "A")
    await policies.ListPolicies(rpc.ListPoliciesRequest())
    # one of the PV that was made: no policy
    assert not any(decoded)
    await give(policies, of_device("NEW", completion=CALLBACK))
    await policies.DeletePolicy(rpc.DeletePolicyRequest(id=kept[0].id))
    listed = (await policies.ListPolicies(rpc.ListPoliciesRequest())).policies
    assert sorted(each.device for each in listed) == ["D1", "D2", "NEW"]
    assert len([text for text in decoded if text]) == 1
