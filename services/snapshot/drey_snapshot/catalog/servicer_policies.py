"""`drey.policy.v1.PolicyService`: how restores treat PVs by default, by device and by tag."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from drey.catalog.v1 import catalog_pb2
from drey.policy.v1 import policy_pb2
from drey.policy.v1 import policy_service_pb2 as rpc
from drey_core.errors import NotFound
from drey_core.pv_table import NO_POLICY, Policy
from drey_core.token import decode_page_token, query_hash
from drey_runtime.auth import current_principal
from drey_runtime.clock import new_id
from drey_runtime.paging import check_page_size, cut_page
from drey_snapshot.catalog.domain import policy as policies
from drey_snapshot.catalog.domain.changes import check_etag
from drey_snapshot.catalog.domain.default_policies import DefaultPolicy
from drey_snapshot.catalog.domain.tags import TagBook
from drey_snapshot.catalog.mapping import (
    DEFAULT_POLICY_PATHS,
    apply_policy_mask,
    check_mask,
    default_policy_to_proto,
    invalid_field,
    policy_from_proto,
)
from drey_snapshot.catalog.rpc import Context, Parts, call_of, require_field
from drey_snapshot.catalog.usecases.writer import Act, Scene
from drey_snapshot.catalog.view import CatalogView

SERVICE = "drey.policy.v1.PolicyService"
_LIST = "policies"


class PolicyServicer:
    """Each method is one of the contract; changes take their turn among those of the catalog."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def CreatePolicy(self, request: rpc.CreatePolicyRequest, context: Context) -> bytes:
        asked, principal = request.policy, current_principal.get()
        wanted_policy = policy_from_proto(asked.policy, "policy.policy")
        _check_policy(wanted_policy)

        async def decide_create(scene: Scene) -> Act:
            device, tag = _subject_of(asked, scene.view.tags)
            made = scene.edit.create_policy(
                DefaultPolicy(
                    id=new_id(),
                    device=device,
                    tag=tag,
                    policy=wanted_policy,
                    comment=asked.comment,
                    principal=principal.name,
                    role=principal.roles_text,
                    version=0,
                    create_time_ns=scene.edit.now_ns,
                    update_time_ns=0,
                )
            )
            response = rpc.CreatePolicyResponse(policy=_policy_message(scene.view, made))
            return _policy_act("create", response.SerializeToString(), scene, None, made)

        return await self._parts.writer.write_once(
            call_of("CreatePolicy", request, SERVICE), decide_create
        )

    async def GetPolicy(
        self, request: rpc.GetPolicyRequest, context: Context
    ) -> rpc.GetPolicyResponse:
        view = await self._parts.catalog.current_view()
        held_policy = view.policies.by_id.get(request.id.lower())
        if held_policy is None:
            raise NotFound(
                f"no policy of a device or a tag has the id {request.id}",
                field="id",
                metadata={"resource": "policy", "id": request.id},
            )
        return rpc.GetPolicyResponse(policy=_policy_message(view, held_policy))

    async def ListPolicies(
        self, request: rpc.ListPoliciesRequest, context: Context
    ) -> rpc.ListPoliciesResponse:
        tag = (request.tag.group, request.tag.tag) if request.HasField("tag") else None
        query = query_hash(request.device, *(tag or ("", "")), tag is not None, request.search)
        position = decode_page_token(_LIST, query, request.page_token, (int, str, UUID))
        view = await self._parts.catalog.current_view()
        wanted = view.tags.by_name.get((tag[0].casefold(), tag[1].casefold())) if tag else None
        words = request.search.casefold().split()
        chosen = [
            (_order_of(each, view.tags), each)
            for each in view.policies.listed
            if (not request.device or each.device == request.device)
            and (tag is None or each.tag == wanted)
            and all(
                word in f"{each.subject_name(view.tags)} {each.comment}".casefold()
                for word in words
            )
        ]
        chosen.sort(key=lambda pair: pair[0])
        total = len(chosen) if position is None else 0
        if position is not None:
            after = (int(position[0]), str(position[1]), str(position[2]))
            chosen = chosen[bisect_right(chosen, after, key=lambda pair: pair[0]) :]
        page, more = cut_page(
            _LIST,
            query,
            chosen,
            check_page_size(request.page_size),
            lambda pair: _policy_message(view, pair[1]),
            lambda pair: list(pair[0]),
        )
        return rpc.ListPoliciesResponse(policies=page, next_page_token=more, total_size=total)

    async def UpdatePolicy(self, request: rpc.UpdatePolicyRequest, context: Context) -> bytes:
        asked, paths = request.policy, request.update_mask.paths
        require_field(asked.id, "policy.id")
        check_mask(paths, DEFAULT_POLICY_PATHS)
        principal = current_principal.get()

        async def decide_update(scene: Scene) -> Act:
            before = scene.edit.policy(asked.id.lower(), "policy.id")
            check_etag(asked.etag, before.etag, "policy.etag")
            wanted_policy = apply_policy_mask(before.policy, asked.policy, paths, "policy.policy")
            _check_policy(wanted_policy)
            after = replace(
                before,
                policy=wanted_policy,
                comment=asked.comment if "comment" in paths else before.comment,
                principal=principal.name,
                role=principal.roles_text,
            )
            made = scene.edit.update_policy(before, after)
            response = rpc.UpdatePolicyResponse(policy=_policy_message(scene.view, made))
            return _policy_act("update", response.SerializeToString(), scene, before, made)

        return await self._parts.writer.write_once(
            call_of("UpdatePolicy", request, SERVICE), decide_update
        )

    async def DeletePolicy(self, request: rpc.DeletePolicyRequest, context: Context) -> bytes:
        async def decide_delete(scene: Scene) -> Act:
            policy = scene.edit.policy(request.id.lower())
            check_etag(request.etag, policy.etag, "etag")
            scene.edit.delete_policy(policy)
            response = rpc.DeletePolicyResponse()
            return _policy_act("delete", response.SerializeToString(), scene, policy, None)

        return await self._parts.writer.write_once(
            call_of("DeletePolicy", request, SERVICE), decide_delete
        )


def _check_policy(policy: Policy) -> None:
    """Refuse one that says nothing, or contradicts itself whatever the PV is."""
    if policy == NO_POLICY:
        raise invalid_field(
            "policy.policy", "says nothing; say at least one part, or delete the policy"
        )
    policies.check_policy(policy, has_readback=True, path="policy.policy")


def _subject_of(asked: policy_pb2.DefaultPolicy, tags: TagBook) -> tuple[str, int]:
    """(device, number of the tag), one of them empty."""
    match asked.WhichOneof("subject"):
        case "device":
            return require_field(asked.device, "policy.device"), 0
        case "tag":
            return "", _tag_number(asked.tag, tags)
    raise invalid_field("policy.device", "is required: say whose PVs, by a device or by a tag")


def _tag_number(ref: catalog_pb2.TagRef, tags: TagBook) -> int:
    number = tags.by_name.get((ref.group.casefold(), ref.tag.casefold()))
    if number is None:
        name = f"{ref.group}/{ref.tag}"
        raise NotFound(
            f"there is no tag {name}: create it first",
            field="policy.tag",
            metadata={"resource": "tag", "name": name},
        )
    return number


def _policy_message(view: CatalogView, policy: DefaultPolicy) -> policy_pb2.DefaultPolicy:
    by_tag, by_device = view.tag_counts, view.device_counts
    count = by_tag.get(policy.tag, 0) if policy.tag else by_device.get(policy.device, 0)
    return default_policy_to_proto(policy, view.tags, count)


def _order_of(policy: DefaultPolicy, tags: TagBook) -> tuple[int, str, str]:
    """Devices first; by name without case."""
    return int(policy.tag > 0), policy.subject_name(tags).casefold(), policy.id


def _policy_act(
    verb: str,
    response: bytes,
    scene: Scene,
    before: DefaultPolicy | None,
    after: DefaultPolicy | None,
) -> Act:
    def told(policy: DefaultPolicy | None) -> Mapping[str, Any] | None:
        if policy is None:
            return None
        return {
            "subject": policy.subject_name(scene.view.tags),
            "policy": policies.to_json(policy.policy),
            "comment": policy.comment,
        }

    policy = after or before
    assert policy is not None
    return Act(response, f"policy.{verb}", f"policies/{policy.id}", told(before), told(after))
