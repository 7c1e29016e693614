from __future__ import annotations

import pytest
from grpc import StatusCode

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey.common.v1 import selector_pb2
from tests.integration.catalog.helpers import create, names, refused, update


@pytest.fixture
async def machine(service):
    """Five PVs in a group of tags."""
    for i, (name, device, text) in enumerate(
        [
            ("Q:1:BDES", "QUAD", "first of 100%"),
            ("Q:2:BDES", "QUAD", "second_one"),
            ("B:1:X", "BPM", "Straße"),
            ("B:2:X", "BPM", "secondXone"),
            ("V:1", "", ""),
        ]
    ):
        await create(
            service, name, f"{name}:RB", device=device, description=text, tags=[("Area", f"A{i}")]
        )
    return service


async def test_pages_are_keyed_and_stable_under_change(machine) -> None:
    first = await machine.catalog.ListPvs(rpc.ListPvsRequest(page_size=2))
    assert [pv.name for pv in first.pvs] == ["B:1:X", "B:2:X"]
    assert first.total_size == 5
    await create(machine, "A:0")
    await machine.catalog.DeletePv(rpc.DeletePvRequest(id=first.pvs[1].id))
    second = await machine.catalog.ListPvs(
        rpc.ListPvsRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [pv.name for pv in second.pvs] == ["Q:1:BDES", "Q:2:BDES"]
    last = await machine.catalog.ListPvs(
        rpc.ListPvsRequest(page_size=2, page_token=second.next_page_token)
    )
    assert ([pv.name for pv in last.pvs], last.next_page_token) == (["V:1"], "")


async def test_a_page_size_beyond_the_most_is_the_most(machine) -> None:
    assert len((await machine.catalog.ListPvs(rpc.ListPvsRequest(page_size=2**31 - 1))).pvs) == 5
    for call, request in (
        (machine.catalog.ListPvs, rpc.ListPvsRequest(page_size=-1)),
        (machine.catalog.ListTagGroups, rpc.ListTagGroupsRequest(page_size=-1)),
    ):
        with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "page_size"):
            await call(request)


async def test_devices_are_counted_searched_and_paged(machine) -> None:
    for i in range(4):
        await create(machine, f"X:{i}", device=f"Dev_{i}")
    seen, token = [], ""
    while True:
        page = await machine.catalog.ListDevices(
            rpc.ListDevicesRequest(page_size=4, page_token=token)
        )
        seen += [(device.name, device.pv_count) for device in page.devices]
        assert page.total_size == (0 if token else 6)
        token = page.next_page_token
        if not token:
            break
    assert seen == [("BPM", 2), *((f"Dev_{i}", 1) for i in range(4)), ("QUAD", 2)]

    async def devices(**said) -> list[tuple[str, int]]:
        answer = await machine.catalog.ListDevices(rpc.ListDevicesRequest(**said))
        return [(device.name, device.pv_count) for device in answer.devices]

    assert await devices(search="dev_ ?_1") == [("Dev_1", 1)]
    chosen = selector_pb2.Selector(names=["V:1", "B:1:X", "X:3"])
    assert await devices(selector=chosen) == [("BPM", 1), ("Dev_3", 1)]
    assert await devices(selector=chosen, search="b") == [("BPM", 1)]
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        await devices(selector=selector_pb2.Selector(names=["NO"]))


async def test_tombstones_are_listed_among_the_living(machine) -> None:
    found = (await machine.catalog.ListPvs(rpc.ListPvsRequest(search="quad"))).pvs
    await machine.catalog.DeletePv(rpc.DeletePvRequest(id=found[0].id))
    seen, token = [], ""
    while True:
        page = await machine.catalog.ListPvs(
            rpc.ListPvsRequest(page_size=2, include_deleted=True, page_token=token)
        )
        seen += [(pv.name, pv.HasField("delete_time")) for pv in page.pvs]
        token = page.next_page_token
        if not token:
            break
    assert [n for n, _ in seen] == ["B:1:X", "B:2:X", "Q:1:BDES", "Q:2:BDES", "V:1"]
    assert [n for n, dead in seen if dead] == ["Q:1:BDES"]
    named = selector_pb2.Selector(names=["Q:1:BDES"])
    assert await names(machine, include_deleted=True, selector=named) == ["Q:1:BDES"]
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        await names(machine, selector=named)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("quad", ["Q:1:BDES", "Q:2:BDES"]),
        ("second_one", ["Q:2:BDES"]),
        ("100%", ["Q:1:BDES"]),
        ("STRASSE", ["B:1:X"]),
        ("b?1", ["B:1:X"]),
        ("bpm second", ["B:2:X"]),
        ("  ", ["B:1:X", "B:2:X", "Q:1:BDES", "Q:2:BDES", "V:1"]),
        ("nothing", []),
    ],
)
async def test_search(machine, text: str, found: list[str]) -> None:
    assert await names(machine, search=text) == found


async def test_pages_and_bulk_answers_fit_into_a_message(service) -> None:
    made: list[catalog_pb2.Pv] = []
    for batch in range(5):
        pvs = [
            catalog_pb2.Pv(setpoint={"address": f"PV:{batch}:{i:03}"}, description="d" * 10_000)
            for i in range(200)
        ]
        made += pvs
        answer = await service.catalog.BatchCreatePvs(rpc.BatchCreatePvsRequest(pvs=pvs))
        assert answer.ByteSize() < 4 << 20
        assert [r.pv.name for r in answer.results] == [pv.setpoint.address for pv in pvs]
        assert all(r.pv.etag and r.pv.id for r in answer.results)
    for dead in (False, True):
        request = rpc.ListPvsRequest(page_size=5000, include_deleted=dead)
        seen: list[str] = []
        while True:
            page = await service.catalog.ListPvs(request)
            assert page.ByteSize() < 4 << 20
            seen += [pv.name for pv in page.pvs]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        assert seen == [pv.setpoint.address for pv in made]


async def test_a_page_token_of_another_list_is_refused(machine) -> None:
    token = (await machine.catalog.ListPvs(rpc.ListPvsRequest(page_size=1))).next_page_token
    for request in (
        rpc.ListPvsRequest(page_token=token, search="x"),
        rpc.ListPvsRequest(page_token=token[:-3]),
        rpc.ListPvsRequest(page_token="nonsense"),
    ):
        with refused(StatusCode.INVALID_ARGUMENT, "MALFORMED_PAGE_TOKEN", "page_token"):
            await machine.catalog.ListPvs(request)
    with refused(StatusCode.INVALID_ARGUMENT, "MALFORMED_PAGE_TOKEN", "page_token"):
        await machine.catalog.ListTagGroups(rpc.ListTagGroupsRequest(page_token=token))


async def test_selectors_resolve(machine) -> None:
    async def resolve(**fields):
        return await machine.catalog.ResolveSelector(
            rpc.ResolveSelectorRequest(selector=selector_pb2.Selector(**fields), sample=10)
        )

    found = await resolve(all=True)
    assert (found.pvs, found.channels, found.names[0]) == (5, 10, "B:1:X")
    assert list((await resolve(names=["V:1:RB", "V:1"])).names) == ["V:1"]
    tags = [selector_pb2.TagFilter(group="AREA", tags=["a0", "a4"])]
    assert list((await resolve(tags=tags)).names) == ["Q:1:BDES", "V:1"]
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND", "selector.names[1]"):
        await resolve(names=["V:1", "nobody"])
    with refused(StatusCode.INVALID_ARGUMENT, "EMPTY_SELECTOR", "selector"):
        await resolve()


async def test_tags_are_put_on_and_taken_off(machine) -> None:
    request = rpc.TagPvsRequest(
        selector=selector_pb2.Selector(devices=["QUAD"]),
        add=[catalog_pb2.TagRef(group="System", tag="Magnet")],
        remove=[catalog_pb2.TagRef(group="area", tag="a0")],
    )
    answer = await machine.catalog.TagPvs(request)
    assert (answer.matched, answer.changed) == (2, 2)
    again = await machine.catalog.TagPvs(request)
    assert (again.matched, again.changed) == (2, 0)
    pv = (await machine.catalog.GetPv(rpc.GetPvRequest(name="Q:1:BDES"))).pv
    assert [(t.group, t.tag) for t in pv.tags] == [("System", "Magnet")]


async def groups_of(service) -> dict[str, catalog_pb2.TagGroup]:
    answer = await service.catalog.ListTagGroups(rpc.ListTagGroupsRequest())
    return {group.name: group for group in answer.tag_groups}


async def test_groups_are_made_renamed_and_deleted(machine) -> None:
    made = (
        await machine.catalog.CreateTagGroup(
            rpc.CreateTagGroupRequest(
                tag_group=catalog_pb2.TagGroup(name="New", tags=[catalog_pb2.Tag(name="t")])
            )
        )
    ).tag_group
    assert [t.name for t in made.tags] == ["t"]
    with refused(StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS", "tag_group.name"):
        await machine.catalog.CreateTagGroup(
            rpc.CreateTagGroupRequest(tag_group=catalog_pb2.TagGroup(name="NEW"))
        )
    request = rpc.UpdateTagGroupRequest(
        tag_group=catalog_pb2.TagGroup(id=made.id, name="Newer", etag=made.etag)
    )
    request.update_mask.paths.append("name")
    renamed = (await machine.catalog.UpdateTagGroup(request)).tag_group
    assert (renamed.name, renamed.etag != made.etag) == ("Newer", True)
    with refused(StatusCode.ABORTED, "ETAG_MISMATCH"):
        await machine.catalog.UpdateTagGroup(request)
    await machine.catalog.DeleteTagGroup(rpc.DeleteTagGroupRequest(id=made.id))
    assert set(await groups_of(machine)) == {"Area"}


async def test_a_group_in_use_goes_by_force_only(machine) -> None:
    area = (await groups_of(machine))["Area"]
    with refused(StatusCode.FAILED_PRECONDITION, "IN_USE") as caught:
        await machine.catalog.DeleteTagGroup(rpc.DeleteTagGroupRequest(id=area.id))
    assert "5 PVs" in caught.value.details()
    answer = await machine.catalog.DeleteTagGroup(rpc.DeleteTagGroupRequest(id=area.id, force=True))
    assert answer.pvs_changed == 5
    pv = (await machine.catalog.GetPv(rpc.GetPvRequest(name="V:1"))).pv
    assert list(pv.tags) == []


async def test_tags_are_made_renamed_merged_and_deleted(machine) -> None:
    area = (await groups_of(machine))["Area"]
    made = (
        await machine.catalog.CreateTag(rpc.CreateTagRequest(tag_group_id=area.id, name="new"))
    ).tag
    with refused(StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"):
        await machine.catalog.CreateTag(rpc.CreateTagRequest(tag_group_id=area.id, name="NEW"))
    change = rpc.UpdateTagRequest(
        tag=catalog_pb2.Tag(id=area.tags[0].id, name="first", etag=area.tags[0].etag),
        update_mask={"paths": ["name"]},
    )
    renamed = (await machine.catalog.UpdateTag(change)).tag
    assert (renamed.name, renamed.pv_count, renamed.tag_group_id) == ("first", 1, area.id)
    assert renamed.etag != area.tags[0].etag
    change.tag.name = "second"
    with refused(StatusCode.ABORTED, "ETAG_MISMATCH", "tag.etag"):
        await machine.catalog.UpdateTag(change)
    del change.update_mask.paths[:]
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "update_mask"):
        await machine.catalog.UpdateTag(change)
    merged = (
        await machine.catalog.MergeTags(
            rpc.MergeTagsRequest(from_id=area.tags[1].id, into_id=area.tags[0].id)
        )
    ).tag
    assert (merged.name, merged.pv_count) == ("first", 2)
    with refused(StatusCode.FAILED_PRECONDITION, "IN_USE"):
        await machine.catalog.DeleteTag(rpc.DeleteTagRequest(id=merged.id))
    with refused(StatusCode.ABORTED, "ETAG_MISMATCH"):
        await machine.catalog.DeleteTag(rpc.DeleteTagRequest(id=made.id, etag="old"))
    await machine.catalog.DeleteTag(rpc.DeleteTagRequest(id=made.id, etag=made.etag))
    with refused(StatusCode.ABORTED, "ETAG_MISMATCH"):
        await machine.catalog.DeleteTagGroup(
            rpc.DeleteTagGroupRequest(id=area.id, etag=area.etag, force=True)
        )
    move = rpc.UpdateTagRequest(
        tag=catalog_pb2.Tag(id=merged.id, tag_group_id=area.id),
        update_mask={"paths": ["tag_group_id"]},
    )
    assert (await machine.catalog.UpdateTag(move)).tag == merged
    move.tag.tag_group_id = merged.id
    with refused(StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED"):
        await machine.catalog.UpdateTag(move)
    tags = {tag.name: tag.pv_count for tag in (await groups_of(machine))["Area"].tags}
    assert tags == {"first": 2, "A2": 1, "A3": 1, "A4": 1}


async def test_tags_of_a_pv_are_replaced_by_an_update(machine) -> None:
    pv = (await machine.catalog.GetPv(rpc.GetPvRequest(name="V:1"))).pv
    new = catalog_pb2.Pv(id=pv.id, tags=[catalog_pb2.TagRef(group="Other", tag="x")])
    after = await update(machine, new, "tags")
    assert [(t.group, t.tag) for t in after.tags] == [("Other", "x")]


async def tags_of(service) -> dict[str, list[str]]:
    pvs = (await service.catalog.ListPvs(rpc.ListPvsRequest())).pvs
    return {pv.name: [f"{t.group}/{t.tag}" for t in pv.tags] for pv in pvs}


async def test_deleted_groups_and_tags_come_back_on_their_pvs(service) -> None:
    region = [("Region", "LI21")]
    await create(service, "A", tags=region)
    await create(service, "B", tags=[*region, ("Region", "LI22")])
    gone = await create(service, "C", tags=region)
    before = await tags_of(service)
    group = (await groups_of(service))["Region"]
    (li21,) = [t for t in group.tags if t.name == "LI21"]
    (li22,) = [t for t in group.tags if t.name == "LI22"]

    await service.catalog.DeletePv(rpc.DeletePvRequest(id=gone.id))
    # one tag alone, then its group with the other
    await service.catalog.DeleteTag(rpc.DeleteTagRequest(id=li22.id, force=True))
    await service.catalog.DeleteTagGroup(rpc.DeleteTagGroupRequest(id=group.id, force=True))
    assert await tags_of(service) == {"A": [], "B": []}
    assert not await groups_of(service)
    listed = await service.catalog.ListTagGroups(rpc.ListTagGroupsRequest(include_deleted=True))
    (dead,) = listed.tag_groups
    assert dead.HasField("delete_time")
    assert [(t.name, t.HasField("delete_time")) for t in dead.tags] == [
        ("LI21", True),
        ("LI22", True),
    ]
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND", "id"):
        await service.catalog.UndeleteTag(rpc.UndeleteTagRequest(id=li22.id))

    request = rpc.UndeleteTagGroupRequest(id=group.id, request_id=group.id)
    for _ in range(2):
        answer = await service.catalog.UndeleteTagGroup(request)
        assert answer.pvs_changed == 2
        assert [(t.id, t.name, t.pv_count) for t in answer.tag_group.tags] == [(li21.id, "LI21", 2)]
    assert await tags_of(service) == {"A": ["Region/LI21"], "B": ["Region/LI21"]}
    answer = await service.catalog.UndeleteTag(rpc.UndeleteTagRequest(id=li22.id))
    assert (answer.tag.name, answer.tag.pv_count, answer.pvs_changed) == ("LI22", 1, 1)
    undelete = rpc.UndeletePvRequest(id=gone.id)
    await service.catalog.UndeletePv(undelete)
    assert await tags_of(service) == before
    # what lives stays as it is
    again = await service.catalog.UndeleteTag(rpc.UndeleteTagRequest(id=li22.id))
    assert again.pvs_changed == 0
    again = await service.catalog.UndeleteTagGroup(rpc.UndeleteTagGroupRequest(id=group.id))
    assert again.pvs_changed == 0
    listed = await service.catalog.ListTagGroups(rpc.ListTagGroupsRequest(include_deleted=True))
    assert not any(t.HasField("delete_time") for g in listed.tag_groups for t in (g, *g.tags))


async def test_a_name_that_was_taken_again_is_not_undeleted(service) -> None:
    made = await service.catalog.CreateTagGroup(
        rpc.CreateTagGroupRequest(tag_group=catalog_pb2.TagGroup(name="G"))
    )
    await service.catalog.DeleteTagGroup(rpc.DeleteTagGroupRequest(id=made.tag_group.id))
    await service.catalog.CreateTagGroup(
        rpc.CreateTagGroupRequest(tag_group=catalog_pb2.TagGroup(name="g"))
    )
    with refused(StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"):
        await service.catalog.UndeleteTagGroup(rpc.UndeleteTagGroupRequest(id=made.tag_group.id))
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        unknown = rpc.UndeleteTagGroupRequest(id="01980000-0000-7000-8000-000000000000")
        await service.catalog.UndeleteTagGroup(unknown)


async def test_a_bulk_delete_is_undone_in_bulk(service) -> None:
    made = [await create(service, f"A:{i}") for i in range(4)]
    await service.catalog.DeletePv(rpc.DeletePvRequest(id=made[0].id))
    newer = await create(service, "A:0")
    selector = selector_pb2.Selector(globs=["A:*"])
    await service.catalog.PurgePvs(rpc.PurgePvsRequest(selector=selector))
    assert await names(service) == []
    request = rpc.BatchUndeletePvsRequest(selector=selector, dry_run=True)
    assert (await service.catalog.BatchUndeletePvs(request)).undeleted == 4
    assert await names(service) == []
    request.dry_run = False
    assert (await service.catalog.BatchUndeletePvs(request)).undeleted == 4
    found = (await service.catalog.ListPvs(rpc.ListPvsRequest())).pvs
    assert [pv.id for pv in found] == [newer.id, *(pv.id for pv in made[1:])]
    # the older of the two called A:0 is a tombstone still, and its name is taken
    with refused(StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS", "selector"):
        await service.catalog.BatchUndeletePvs(request)
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        nobody = selector_pb2.Selector(names=["NOBODY"])
        await service.catalog.BatchUndeletePvs(rpc.BatchUndeletePvsRequest(selector=nobody))


@pytest.mark.parametrize("name", ["Setpoint", "read only", "Restore Stage", " Area", "Area ", " "])
async def test_no_group_is_called_what_no_file_can_have(machine, name) -> None:
    """One such group, and nothing of the catalog could be exported any more."""
    group = catalog_pb2.TagGroup(name=name)
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "tag_group.name"):
        await machine.catalog.CreateTagGroup(rpc.CreateTagGroupRequest(tag_group=group))
    area = (await groups_of(machine))["Area"]
    area.name = name
    request = rpc.UpdateTagGroupRequest(tag_group=area)
    request.update_mask.paths.append("name")
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "tag_group.name"):
        await machine.catalog.UpdateTagGroup(request)
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
        await create(machine, "NEW", tags=[(name, "t")])
    tag = rpc.TagPvsRequest(add=[catalog_pb2.TagRef(group=name, tag="t")])
    tag.selector.all = True
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
        await machine.catalog.TagPvs(tag)
    answers = [answer async for answer in machine.catalog.ExportPvs(_everything())]
    assert b"".join(answer.data for answer in answers).startswith(b"Setpoint,")


def _everything() -> rpc.ExportPvsRequest:
    return rpc.ExportPvsRequest(selector=selector_pb2.Selector(all=True))
