"""CatalogService: groups of tags and tags."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey_core.errors import Unimplemented
from drey_core.token import decode_page_token, query_hash
from drey_runtime.paging import check_page_size, cut_page
from drey_snapshot.catalog.adapters.reading import read_tag_tombstones
from drey_snapshot.catalog.domain.changes import check_etag
from drey_snapshot.catalog.domain.tags import TagTombstone, with_deleted
from drey_snapshot.catalog.mapping import (
    check_mask,
    group_etag,
    group_to_proto,
    invalid_field,
    tag_etag,
    tag_to_proto,
)
from drey_snapshot.catalog.rpc import Context, Parts, call_of, require_field
from drey_snapshot.catalog.usecases.writer import Act, Scene

_LIST = "tag_groups"
_TAG_PATHS = frozenset({"name", "tag_group_id"})
_GROUP_PATHS = frozenset({"name", "description"})


class TagRpcs:
    """RPCs of tags; see the contract for the meaning of each."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def CreateTagGroup(self, request: rpc.CreateTagGroupRequest, context: Context) -> bytes:
        asked = request.tag_group
        require_field(asked.name, "tag_group.name")
        for i, tag in enumerate(asked.tags):
            require_field(tag.name, f"tag_group.tags[{i}].name")

        async def decide_create(scene: Scene) -> Act:
            names = [tag.name for tag in asked.tags]
            group = scene.edit.create_group(asked.name, asked.description, names)
            response = rpc.CreateTagGroupResponse(tag_group=group_to_proto(group, {}))
            audit_fields = {"name": group.name, "description": group.description, "tags": names}
            object = f"tagGroups/{group.id}"
            return Act(response.SerializeToString(), "tag_group.create", object, None, audit_fields)

        return await self._parts.writer.write_once(
            call_of("CreateTagGroup", request), decide_create
        )

    async def ListTagGroups(
        self, request: rpc.ListTagGroupsRequest, context: Context
    ) -> rpc.ListTagGroupsResponse:
        query = query_hash(request.include_deleted)
        position = decode_page_token(_LIST, query, request.page_token, (str, UUID))
        view = await self._parts.catalog.current_view()
        groups = view.tags.groups
        if request.include_deleted:
            groups = with_deleted(groups, await self._parts.db.run_reading(read_tag_tombstones))
        total = len(groups) if position is None else 0
        if position is not None:
            after = (str(position[0]), str(position[1]))
            groups = tuple(g for g in groups if (g.name.casefold(), g.id) > after)
        size = check_page_size(request.page_size)
        page, more = cut_page(
            _LIST,
            query,
            groups,
            size,
            lambda group: group_to_proto(group, view.tag_counts),
            lambda group: (group.name.casefold(), group.id),
        )
        return rpc.ListTagGroupsResponse(tag_groups=page, next_page_token=more, total_size=total)

    async def UpdateTagGroup(self, request: rpc.UpdateTagGroupRequest, context: Context) -> bytes:
        asked, paths = request.tag_group, request.update_mask.paths
        require_field(asked.id, "tag_group.id")
        check_mask(paths, _GROUP_PATHS)
        if "name" in paths:
            require_field(asked.name, "tag_group.name")

        async def decide_update(scene: Scene) -> Act:
            before = scene.edit.group(asked.id.lower(), "tag_group.id")
            check_etag(asked.etag, group_etag(before), "tag_group.etag")
            after = scene.edit.update_group(
                before,
                asked.name if "name" in paths else before.name,
                asked.description if "description" in paths else before.description,
            )
            response = rpc.UpdateTagGroupResponse(
                tag_group=group_to_proto(after, scene.view.tag_counts)
            )
            return Act(
                response.SerializeToString(),
                "tag_group.update",
                f"tagGroups/{after.id}",
                {"name": before.name, "description": before.description},
                {"name": after.name, "description": after.description},
            )

        return await self._parts.writer.write_once(
            call_of("UpdateTagGroup", request), decide_update
        )

    async def DeleteTagGroup(self, request: rpc.DeleteTagGroupRequest, context: Context) -> bytes:
        async def decide_delete(scene: Scene) -> Act:
            group = scene.edit.group(request.id.lower())
            check_etag(request.etag, group_etag(group), "etag")
            count = scene.edit.delete_group(group, request.force)
            response = rpc.DeleteTagGroupResponse(pvs_changed=count)
            audit_fields = {
                "name": group.name,
                "tags": [tag.name for tag in group.tags],
                "pvs": count,
            }
            object = f"tagGroups/{group.id}"
            return Act(response.SerializeToString(), "tag_group.delete", object, audit_fields)

        return await self._parts.writer.write_once(
            call_of("DeleteTagGroup", request), decide_delete
        )

    async def UndeleteTagGroup(
        self, request: rpc.UndeleteTagGroupRequest, context: Context
    ) -> bytes:
        async def decide_undelete(scene: Scene) -> Act:
            id = request.id.lower()
            dead = await read_tag_tombstones(scene.conn, id)
            group, count = scene.edit.undelete_group(dead, id)
            made = group_to_proto(group, _tag_counts(scene, dead))
            response = rpc.UndeleteTagGroupResponse(tag_group=made, pvs_changed=count)
            audit_fields = {
                "name": group.name,
                "tags": [tag.name for tag in group.tags],
                "pvs": count,
            }
            object = f"tagGroups/{id}"
            return Act(
                response.SerializeToString(), "tag_group.undelete", object, None, audit_fields
            )

        return await self._parts.writer.write_once(
            call_of("UndeleteTagGroup", request), decide_undelete
        )

    async def UndeleteTag(self, request: rpc.UndeleteTagRequest, context: Context) -> bytes:
        async def decide_undelete(scene: Scene) -> Act:
            id = request.id.lower()
            dead = await read_tag_tombstones(scene.conn, id)
            tag, count = scene.edit.undelete_tag(dead, id)
            group, _ = scene.edit.tag(id)
            made = tag_to_proto(group.id, tag, _tag_counts(scene, dead).get(tag.number, 0))
            response = rpc.UndeleteTagResponse(tag=made, pvs_changed=count)
            audit_fields = {"name": tag.name, "pvs": count}
            return Act(
                response.SerializeToString(), "tag.undelete", f"tags/{id}", None, audit_fields
            )

        return await self._parts.writer.write_once(call_of("UndeleteTag", request), decide_undelete)

    async def CreateTag(self, request: rpc.CreateTagRequest, context: Context) -> bytes:
        async def decide_create(scene: Scene) -> Act:
            group = scene.edit.group(request.tag_group_id.lower(), "tag_group_id")
            tag = scene.edit.create_tag(group, request.name)
            response = rpc.CreateTagResponse(tag=tag_to_proto(group.id, tag, 0))
            audit_fields = {"group": group.name, "name": tag.name}
            return Act(
                response.SerializeToString(), "tag.create", f"tags/{tag.id}", None, audit_fields
            )

        return await self._parts.writer.write_once(call_of("CreateTag", request), decide_create)

    async def UpdateTag(self, request: rpc.UpdateTagRequest, context: Context) -> bytes:
        asked, paths = request.tag, request.update_mask.paths
        require_field(asked.id, "tag.id")
        check_mask(paths, _TAG_PATHS)
        if "name" in paths:
            require_field(asked.name, "tag.name")

        async def decide_update(scene: Scene) -> Act:
            group, before = scene.edit.tag(asked.id.lower(), "tag.id")
            check_etag(asked.etag, tag_etag(group.id, before), "tag.etag")
            if "tag_group_id" in paths and asked.tag_group_id.lower() != group.id:
                raise Unimplemented(
                    "moving a tag to another group is not built in this version: create it there,"
                    " put it on the PVs with TagPvs, and delete this one",
                    field="tag.tag_group_id",
                )
            name = asked.name if "name" in paths else before.name
            after = scene.edit.rename_tag(group, before, name)
            count = scene.view.tag_counts.get(after.number, 0)
            response = rpc.UpdateTagResponse(tag=tag_to_proto(group.id, after, count))
            return Act(
                response.SerializeToString(),
                "tag.update",
                f"tags/{after.id}",
                {"group": group.name, "name": before.name},
                {"group": group.name, "name": after.name},
            )

        return await self._parts.writer.write_once(call_of("UpdateTag", request), decide_update)

    async def MergeTags(self, request: rpc.MergeTagsRequest, context: Context) -> bytes:
        if request.from_id.lower() == request.into_id.lower():
            raise invalid_field("into_id", "a tag cannot be merged into itself")

        async def decide_merge(scene: Scene) -> Act:
            source = scene.edit.tag(request.from_id.lower(), "from_id")
            group, into = scene.edit.tag(request.into_id.lower(), "into_id")
            changed = scene.edit.merge_tags(source, into)
            either = {source[1].number, into.number}
            count = sum(not either.isdisjoint(tags) for tags in scene.view.table.tags)
            response = rpc.MergeTagsResponse(tag=tag_to_proto(group.id, into, count))
            return Act(
                response.SerializeToString(),
                "tag.merge",
                f"tags/{into.id}",
                {"from": f"{source[0].name}/{source[1].name}"},
                {"into": f"{group.name}/{into.name}", "pvs_changed": changed},
            )

        return await self._parts.writer.write_once(call_of("MergeTags", request), decide_merge)

    async def DeleteTag(self, request: rpc.DeleteTagRequest, context: Context) -> bytes:
        async def decide_delete(scene: Scene) -> Act:
            group, tag = scene.edit.tag(request.id.lower())
            check_etag(request.etag, tag_etag(group.id, tag), "etag")
            count = scene.edit.delete_tag(group, tag, request.force)
            response = rpc.DeleteTagResponse(pvs_changed=count)
            audit_fields = {"group": group.name, "name": tag.name, "pvs": count}
            return Act(response.SerializeToString(), "tag.delete", f"tags/{tag.id}", audit_fields)

        return await self._parts.writer.write_once(call_of("DeleteTag", request), decide_delete)


def _tag_counts(scene: Scene, revived: Sequence[TagTombstone]) -> dict[int, int]:
    """Living PVs by number of tag once tags have come back."""
    living = scene.view.table.number
    back = {t.number: int(np.isin(living, t.pvs).sum()) for t in revived if t.number}
    return {**back, **scene.view.tag_counts}
