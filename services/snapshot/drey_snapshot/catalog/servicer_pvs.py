"""CatalogService: PVs one by one and in bulk."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey_core.directory import Metadata, MetadataIndex
from drey_core.errors import DreyError, NotFound, Unavailable
from drey_core.ids import parse_uuid
from drey_core.names import other_form
from drey_core.pages import PAGE_SHIFT
from drey_core.selector import Selector
from drey_core.token import decode_page_token, query_hash
from drey_runtime.mapping.selector import selector_from_proto
from drey_runtime.paging import check_page_size, cut_page
from drey_runtime.waiting import choose_off_loop
from drey_snapshot.catalog.adapters.reading import read_pv, read_tombstones
from drey_snapshot.catalog.domain import policy as policies
from drey_snapshot.catalog.domain.changes import check_etag
from drey_snapshot.catalog.domain.draft import Draft, draft_of
from drey_snapshot.catalog.domain.edit import Edit
from drey_snapshot.catalog.mapping import (
    PV_PATHS,
    apply_mask,
    check_mask,
    invalid_field,
    item_error,
    metadata_to_proto,
    policy_to_proto,
    pv_from_proto,
    pv_to_proto,
    sources_to_proto,
    tag_names,
)
from drey_snapshot.catalog.rpc import Context, Parts, call_of, require_field
from drey_snapshot.catalog.usecases import pvs
from drey_snapshot.catalog.usecases.listing import (
    Key,
    Page,
    key_of,
    list_all,
    list_living,
    search_devices,
)
from drey_snapshot.catalog.usecases.writer import Act, Scene
from drey_snapshot.catalog.view import CatalogView, choose_numbers, count_devices

log = logging.getLogger(__name__)

_LIST = "pvs"
_MAX_PAGE = 5000
_DEVICES = "devices"
_MAX_NAMES = 1000
"""Names in the response of a purge."""
MAX_BULK_BYTES = 1 << 20
"""After so many, results name their PVs only: 5,000 of 600 bytes still fit into the message."""


class PvRpcs:
    """RPCs of PVs; see the contract for the meaning of each."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # --- changes ---

    async def CreatePv(self, request: rpc.CreatePvRequest, context: Context) -> bytes:
        async def decide_create(scene: Scene) -> Act:
            draft = scene.edit.create_pv(pv_from_proto(request.pv), tag_names(request.pv.tags))
            response = rpc.CreatePvResponse(pv=pv_to_proto(draft, scene.edit.tags))
            audit_fields = pvs.describe_pv(draft, scene.edit)
            return Act(
                response.SerializeToString(), "pv.create", f"pvs/{draft.id}", None, audit_fields
            )

        return await self._parts.writer.write_once(call_of("CreatePv", request), decide_create)

    async def UpdatePv(self, request: rpc.UpdatePvRequest, context: Context) -> bytes:
        _check_update(request, "")

        async def decide_update(scene: Scene) -> Act:
            before, after = _update_pv(scene.edit, request, "")
            response = rpc.UpdatePvResponse(pv=pv_to_proto(after, scene.edit.tags))
            return Act(
                response.SerializeToString(),
                "pv.update",
                f"pvs/{after.id}",
                pvs.describe_pv(before, scene.edit),
                pvs.describe_pv(after, scene.edit),
            )

        return await self._parts.writer.write_once(call_of("UpdatePv", request), decide_update)

    async def DeletePv(self, request: rpc.DeletePvRequest, context: Context) -> bytes:
        async def decide_delete(scene: Scene) -> Act:
            return await pvs.delete_pv(
                scene,
                request.id.lower(),
                lambda draft: check_etag(request.etag, draft.etag, "etag"),
                lambda draft: rpc.DeletePvResponse(
                    pv=pv_to_proto(draft, scene.edit.tags)
                ).SerializeToString(),
            )

        return await self._parts.writer.write_once(call_of("DeletePv", request), decide_delete)

    async def UndeletePv(self, request: rpc.UndeletePvRequest, context: Context) -> bytes:
        async def decide_undelete(scene: Scene) -> Act:
            return await pvs.undelete_pv(
                scene,
                request.id.lower(),
                lambda draft: rpc.UndeletePvResponse(
                    pv=pv_to_proto(draft, scene.edit.tags)
                ).SerializeToString(),
            )

        return await self._parts.writer.write_once(call_of("UndeletePv", request), decide_undelete)

    async def BatchCreatePvs(self, request: rpc.BatchCreatePvsRequest, context: Context) -> bytes:
        async def decide_create(scene: Scene) -> Act:
            results: list[Draft | DreyError] = []
            for i, pv in enumerate(request.pvs):
                path = f"pvs[{i}]"
                try:
                    draft = pv_from_proto(pv, path)
                    results.append(scene.edit.create_pv(draft, tag_names(pv.tags), path))
                except DreyError as error:
                    results.append(error)
            items = _pv_results(results, scene.edit, "pvs[{}]")
            response = rpc.BatchCreatePvsResponse(results=items).SerializeToString()
            return Act(response, "pv.batch_create", "pvs", None, _count_results(results))

        return await self._parts.writer.write_once(
            call_of("BatchCreatePvs", request), decide_create
        )

    async def BatchUpdatePvs(self, request: rpc.BatchUpdatePvsRequest, context: Context) -> bytes:
        async def decide_update(scene: Scene) -> Act:
            results: list[Draft | DreyError] = []
            for i, update in enumerate(request.updates):
                path = f"updates[{i}]"
                try:
                    _check_update(update, path + ".")
                    results.append(_update_pv(scene.edit, update, path + ".")[1])
                except DreyError as error:
                    results.append(error)
            items = _pv_results(results, scene.edit, "updates[{}].pv")
            response = rpc.BatchUpdatePvsResponse(results=items).SerializeToString()
            return Act(response, "pv.batch_update", "pvs", None, _count_results(results))

        return await self._parts.writer.write_once(
            call_of("BatchUpdatePvs", request), decide_update
        )

    async def PurgePvs(self, request: rpc.PurgePvsRequest, context: Context) -> bytes:
        selector = selector_from_proto(request.selector)

        async def decide_purge(scene: Scene) -> Act:
            gone = await pvs.purge_pvs(scene, selector, request.dry_run)
            channels = sum(bool(d.setpoint_channel) + bool(d.readback_channel) for d in gone)
            names = [draft.name for draft in gone[:_MAX_NAMES]]
            response = rpc.PurgePvsResponse(pvs=len(gone), channels=channels, names=names)
            audit_fields = {"purged": len(gone), "first": names[:100]}
            return Act(response.SerializeToString(), "pv.purge", "pvs", audit_fields, None)

        return await self._parts.writer.write_once(call_of("PurgePvs", request), decide_purge)

    async def BatchUndeletePvs(
        self, request: rpc.BatchUndeletePvsRequest, context: Context
    ) -> bytes:
        selector = selector_from_proto(request.selector)

        async def decide_undelete(scene: Scene) -> Act:
            names = await pvs.undelete_selected(scene, selector, request.dry_run)
            response = rpc.BatchUndeletePvsResponse(undeleted=len(names)).SerializeToString()
            audit_fields = {"undeleted": len(names), "first": names[:100]}
            return Act(response, "pv.batch_undelete", "pvs", None, audit_fields)

        return await self._parts.writer.write_once(
            call_of("BatchUndeletePvs", request), decide_undelete
        )

    async def TagPvs(self, request: rpc.TagPvsRequest, context: Context) -> bytes:
        selector = selector_from_proto(request.selector)
        add, remove = tag_names(request.add), tag_names(request.remove)
        if not add and not remove:
            raise invalid_field("add", "there is no tag to add, nor one to remove")

        async def decide_tags(scene: Scene) -> Act:
            matched, changed = await pvs.tag_selected(scene, selector, add, remove)
            response = rpc.TagPvsResponse(matched=matched, changed=changed).SerializeToString()
            audit_fields = {
                "matched": matched,
                "changed": changed,
                "add": ["/".join(pair) for pair in add],
                "remove": ["/".join(pair) for pair in remove],
            }
            return Act(response, "pv.tag", "pvs", None, audit_fields)

        return await self._parts.writer.write_once(call_of("TagPvs", request), decide_tags)

    # --- reading ---

    async def GetPv(self, request: rpc.GetPvRequest, context: Context) -> rpc.GetPvResponse:
        view = await self._parts.catalog.current_view()
        draft = await self._find_pv(view, request)
        response = rpc.GetPvResponse(pv=pv_to_proto(draft, view.tags))
        channels = (draft.setpoint_channel, draft.readback_channel)
        setpoint, readback = await self._find_metadata(channels)
        if setpoint is not None:
            channel_metadata = metadata_to_proto(draft.setpoint_address, setpoint)
            response.setpoint_metadata.CopyFrom(channel_metadata)
        if readback is not None:
            channel_metadata = metadata_to_proto(draft.readback_address, readback)
            response.readback_metadata.CopyFrom(channel_metadata)
        return response

    async def _find_pv(self, view: CatalogView, request: rpc.GetPvRequest) -> Draft:
        if request.WhichOneof("key") is None:
            raise invalid_field("id", "an id or a name is required")
        if request.WhichOneof("key") == "name":
            name = require_field(request.name, "name")
            row = view.row_by_name.get(name, view.row_by_name.get(other_form(name), -1))
            if row < 0:
                raise _not_found("name", request.name)
            return draft_of(view.table, row)
        return await self._by_id(view, parse_uuid(request.id, "id"))

    async def _by_id(self, view: CatalogView, id: str) -> Draft:
        """The PV of an id, living or not."""
        row = view.row_by_id.get(id, -1)
        if row >= 0:
            return draft_of(view.table, row)
        dead = await self._parts.db.run_reading(lambda conn: read_pv(conn, id))
        if len(dead) == 0:
            raise _not_found("id", id)
        return draft_of(dead, 0)

    async def _find_metadata(self, channels: Sequence[int]) -> list[Metadata | None]:
        """What monitors know of channels; None for those that never connected.

        While Redis is away nothing is known of any: the PV itself is worth having all the same.
        """
        pages = sorted({channel >> PAGE_SHIFT for channel in channels if channel})
        try:
            index = MetadataIndex(await self._parts.image.metadata_pages(pages))
        except Unavailable as error:
            log.info("a PV is given without metadata: %s", error.message)
            return [None for _ in channels]
        return [index.metadata_of(channel) if channel else None for channel in channels]

    async def ListPvs(self, request: rpc.ListPvsRequest, context: Context) -> rpc.ListPvsResponse:
        selector = None
        if request.HasField("selector"):
            selector = selector_from_proto(request.selector)
        selector_bytes = request.selector.SerializeToString(deterministic=True)
        query = query_hash(selector_bytes, request.search, request.include_deleted)
        after = _page_key(request.page_token, query)
        size = check_page_size(request.page_size, most=_MAX_PAGE)
        view = await self._parts.catalog.current_view()
        page = await self._list_page(view, request, selector, after, size)
        pvs, more = cut_page(
            _LIST, query, page.drafts, size, lambda d: pv_to_proto(d, view.tags), key_of
        )
        response = rpc.ListPvsResponse(pvs=pvs, next_page_token=more)
        if after is None:
            response.total_size = page.total
        return response

    async def _list_page(
        self,
        view: CatalogView,
        request: rpc.ListPvsRequest,
        selector: Selector | None,
        after: Key | None,
        size: int,
    ) -> Page:
        takes_long = bool(request.search) or (selector is not None and selector.takes_long)
        if not request.include_deleted:
            living = partial(list_living, view, selector, request.search, after, size)
            return await choose_off_loop(living, takes_long=takes_long)
        dead = await self._parts.db.run_reading(read_tombstones)
        every = partial(list_all, view, dead, selector, request.search, after, size)
        return await choose_off_loop(every, takes_long=takes_long)

    async def ListDevices(
        self, request: rpc.ListDevicesRequest, context: Context
    ) -> rpc.ListDevicesResponse:
        selector_bytes = request.selector.SerializeToString(deterministic=True)
        query = query_hash(selector_bytes, request.search)
        position = decode_page_token(_DEVICES, query, request.page_token, (str,))
        size = check_page_size(request.page_size)
        view = await self._parts.catalog.current_view()
        counts = view.device_counts
        if request.HasField("selector"):
            rows, _ = await choose_numbers(view, selector_from_proto(request.selector))
            counts = count_devices([view.table.device[row] for row in rows.tolist()])
        chosen_rows = await choose_off_loop(
            partial(search_devices, counts, request.search), takes_long=bool(request.search)
        )
        first = 0 if position is None else bisect_right(chosen_rows, str(position[0]))
        devices, more = cut_page(
            _DEVICES,
            query,
            chosen_rows[first : first + size + 1],
            size,
            lambda name: catalog_pb2.Device(name=name, pv_count=counts[name]),
            lambda name: [name],
        )
        response = rpc.ListDevicesResponse(devices=devices, next_page_token=more)
        if position is None:
            response.total_size = len(chosen_rows)
        return response

    async def ResolveSelector(
        self, request: rpc.ResolveSelectorRequest, context: Context
    ) -> rpc.ResolveSelectorResponse:
        view = await self._parts.catalog.current_view()
        rows, _ = await choose_numbers(view, selector_from_proto(request.selector))
        table = view.table
        channels = (table.setpoint_channel[rows] != 0).sum()
        channels += (table.readback_channel[rows] != 0).sum()
        sample = check_page_size(request.sample, most=_MAX_PAGE, default=0, field="sample")
        names = sorted(table.name[row] for row in rows.tolist())[:sample] if sample else []
        return rpc.ResolveSelectorResponse(pvs=len(rows), channels=int(channels), names=names)

    async def GetEffectivePolicy(
        self, request: rpc.GetEffectivePolicyRequest, context: Context
    ) -> rpc.GetEffectivePolicyResponse:
        view = await self._parts.catalog.current_view()
        draft = await self._by_id(view, request.id.lower())
        stated_policy = view.policies.of_pv(draft.policy, draft.device, draft.tags, view.tags)
        effective_policy = policies.with_built_in(stated_policy)
        return rpc.GetEffectivePolicyResponse(
            policy=policy_to_proto(effective_policy.policy),
            sources=sources_to_proto(effective_policy),
            contradictions=effective_policy.contradictions,
        )


def _check_update(request: rpc.UpdatePvRequest, path: str) -> None:
    require_field(request.pv.id, f"{path}pv.id")
    check_mask(request.update_mask.paths, PV_PATHS, f"{path}update_mask")


def _update_pv(edit: Edit, request: rpc.UpdatePvRequest, path: str) -> tuple[Draft, Draft]:
    """(the PV before, the PV after)."""
    before = edit.by_id(request.pv.id.lower(), f"{path}pv.id")
    check_etag(request.pv.etag, before.etag, f"{path}pv.etag")
    after, tags = apply_mask(before, request.pv, request.update_mask.paths, f"{path}pv")
    edit.update_pv(before, after, tags, f"{path}pv")
    return before, after


def _pv_results(
    results: Sequence[Draft | DreyError], edit: Edit, path: str
) -> list[catalog_pb2.PvResult]:
    """One a request's item; once they fill a message, PVs are named and no more."""
    tags, taken = edit.tags, 0
    out: list[catalog_pb2.PvResult] = []
    for i, result in enumerate(results):
        if isinstance(result, DreyError):
            out.append(catalog_pb2.PvResult(error=item_error(result, path.format(i))))
        else:
            pv = pv_to_proto(result, tags)
            if taken + pv.ByteSize() > MAX_BULK_BYTES:
                pv = catalog_pb2.Pv(id=pv.id, number=pv.number, name=pv.name, etag=pv.etag)
            out.append(catalog_pb2.PvResult(pv=pv))
        taken += out[-1].ByteSize()
    return out


def _count_results(results: Sequence[Draft | DreyError]) -> dict[str, object]:
    done = [drafts for drafts in results if isinstance(drafts, Draft)]
    return {
        "done": len(done),
        "refused": len(results) - len(done),
        "first": [draft.name for draft in done[:100]],
    }


def _page_key(token: str, query: bytes) -> Key | None:
    position = decode_page_token(_LIST, query, token, (str, int))
    if position is None:
        return None
    name, number = position
    return str(name), int(number)


def _not_found(field: str, what: str) -> NotFound:
    return NotFound(
        f"no PV has the {field} {what}", field=field, metadata={"resource": "pv", "id": what}
    )
