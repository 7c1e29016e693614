from __future__ import annotations

import uuid

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey.common.v1 import selector_pb2, value_pb2
from drey_runtime.audit import read_entries, verify_chain
from tests.integration.catalog.helpers import create, names, refused, update


async def get(service, **key) -> catalog_pb2.Pv:
    return (await service.catalog.GetPv(rpc.GetPvRequest(**key))).pv


async def sql(service, query: str, *arguments):
    connection = await asyncpg.connect(service.settings.postgres_url.get_secret_value())
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


async def test_a_pv_is_created_and_found(service) -> None:
    made = await create(
        service,
        "A:SP",
        "A:RB",
        device="magnet",
        description="first\tline\nsecond \\ line",
        tags=[("Area", "LI21"), ("area", "li22"), ("Area", "LI21")],
        setpoint_tolerance=value_pb2.Tolerance(absolute=0.1, relative=1e-17),
        restore_policy=catalog_pb2.RestorePolicy(
            stage=-3,
            timeout=Duration(seconds=2, nanos=1),
            completion=catalog_pb2.COMPLETION_DONE_CHANNEL,
            done_channel="A:DONE",
            done_value=-2.5e300,
            allowed=value_pb2.Range(low=-1.5, high=float("inf")),
        ),
    )
    assert made.name == "A:SP"
    assert [(t.group, t.tag) for t in made.tags] == [("Area", "LI21"), ("Area", "li22")]
    assert made.setpoint.channel_protocol == catalog_pb2.PROTOCOL_CA
    assert 0 < made.setpoint.number != made.readback.number > 0
    assert made.create_time == made.update_time
    assert made.restore_policy.timeout == Duration(seconds=2, nanos=1)
    assert made == await get(service, name="A:SP") == await get(service, id=made.id)
    assert made == await get(service, id=made.id.upper())


@pytest.mark.parametrize(
    "name", ["a" * 500, "Ä:µ", "X{Y}:Z<1>;'\"\\%_*?[]", "S:1.VAL$", 'J:1.{"dbnd":{"d":1}}', "\\."]
)
async def test_names_may_have_every_character_that_epics_allows(service, name: str) -> None:
    made = await create(service, name, device=name, description=name)
    assert await get(service, name=name) == made
    assert await names(service, selector=selector_pb2.Selector(names=[name])) == [name]


@pytest.mark.parametrize("name", ["with blank", "tab\t", "nul\0", "a" * 501, "line\n"])
async def test_names_that_epics_does_not_allow_are_refused(service, name: str) -> None:
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "pv.name"):
        await create(service, "A", name=name)
    assert await names(service) == []


@pytest.mark.parametrize("bad", [float("nan"), -1.0, float("inf")])
@pytest.mark.parametrize("role", ["setpoint", "readback"])
async def test_bad_tolerances_are_refused_with_their_field(service, role, bad) -> None:
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", f"pv.{role}.tolerance.relative"):
        await create(service, "A", "B", **{f"{role}_tolerance": value_pb2.Tolerance(relative=bad)})


async def test_bad_policies_are_refused_with_their_field(service) -> None:
    bad = {
        "done_channel": {"completion": catalog_pb2.COMPLETION_DONE_CHANNEL},
        "completion": {"completion": catalog_pb2.COMPLETION_READBACK},
        "timeout": {"timeout": Duration(seconds=-1)},
        "ramp_rate": {"ramp_rate": float("nan")},
        "allowed": {"allowed": value_pb2.Range(low=2, high=1)},
    }
    for field, said in bad.items():
        path = f"pv.restore_policy.{field}"
        with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", path):
            await create(service, "A", restore_policy=catalog_pb2.RestorePolicy(**said))


async def test_a_pv_needs_an_address_and_a_name_of_its_own(service) -> None:
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "pv.setpoint.address"):
        await create(service, name="A")
    await create(service, "A")
    with refused(StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS", "pv.name"):
        await create(service, "B", name="A")


async def test_unknown_and_malformed_ids(service) -> None:
    unknown = str(uuid.uuid4())
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        await get(service, id=unknown)
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        await get(service, name="nobody")
    with refused(StatusCode.INVALID_ARGUMENT, "MALFORMED_ID"):
        await get(service, id="nonsense")
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
        await get(service)
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        await service.catalog.DeletePv(rpc.DeletePvRequest(id=unknown))


async def test_an_update_changes_what_the_mask_names(service) -> None:
    made = await create(service, "A", "B", device="d", description="x")
    changed = catalog_pb2.Pv(id=made.id, device="other", description="never", etag=made.etag)
    after = await update(service, changed, "device")
    assert (after.device, after.description) == ("other", "x")
    assert after.etag != made.etag
    assert after == await get(service, id=made.id)


async def test_update_refuses_old_etags_and_unknown_paths(service) -> None:
    made = await create(service, "A")
    await update(service, catalog_pb2.Pv(id=made.id, device="1"), "device")
    with refused(StatusCode.ABORTED, "ETAG_MISMATCH"):
        await update(service, catalog_pb2.Pv(id=made.id, etag=made.etag, device="2"), "device")
    for path in ("number", "etag", "nonsense", "restore_policy.nonsense"):
        with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "update_mask"):
            await update(service, made, path)
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "update_mask"):
        await update(service, made)


async def test_a_changed_address_gets_a_new_channel(service) -> None:
    made = await create(service, "A:SP", "A:RB")
    moved = await update(
        service, catalog_pb2.Pv(id=made.id, readback={"address": "A:OTHER"}), "readback.address"
    )
    assert moved.number == made.number
    rows = await sql(service, "SELECT * FROM catalog.channel ORDER BY number")
    assert [(r["number"], r["address"], r["retire_time_ns"] > 0) for r in rows] == [
        (256, "A:SP", False),
        (512, "A:RB", True),
        (513, "A:OTHER", False),
    ]


async def test_two_pvs_exchange_their_names_in_one_call(service) -> None:
    one, two = await create(service, "S:1", name="one"), await create(service, "S:2", name="two")
    request = rpc.BatchUpdatePvsRequest()
    for pv, name in ((one, "between"), (two, "one"), (one, "two")):
        item = request.updates.add(pv=catalog_pb2.Pv(id=pv.id, name=name))
        item.update_mask.paths.append("name")
    answer = await service.catalog.BatchUpdatePvs(request)
    assert [r.pv.name for r in answer.results] == ["between", "one", "two"]
    assert (await get(service, id=one.id)).name == "two"
    assert (await get(service, id=two.id)).name == "one"


async def test_deleted_pvs_leave_a_tombstone_that_can_live_again(service) -> None:
    made = await create(service, "A:SP", "A:RB")
    dead = (await service.catalog.DeletePv(rpc.DeletePvRequest(id=made.id))).pv
    assert dead.HasField("delete_time")
    assert await names(service) == []
    assert await names(service, include_deleted=True) == ["A:SP"]
    assert await get(service, id=made.id) == dead
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        await get(service, name="A:SP")
    again = await create(service, "A:SP")
    assert again.number == made.number + 1
    with refused(StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"):
        await service.catalog.UndeletePv(rpc.UndeletePvRequest(id=made.id))
    await service.catalog.DeletePv(rpc.DeletePvRequest(id=again.id))
    back = (await service.catalog.UndeletePv(rpc.UndeletePvRequest(id=made.id))).pv
    assert (back.number, back.HasField("delete_time")) == (made.number, False)
    retired = await sql(service, "SELECT number FROM catalog.channel WHERE retire_time_ns > 0")
    assert [r["number"] for r in retired] == [257]


async def test_a_repeated_request_does_nothing_twice(service) -> None:
    request = rpc.CreatePvRequest(
        pv=catalog_pb2.Pv(setpoint={"address": "A"}), request_id=str(uuid.uuid4())
    )
    first = await service.catalog.CreatePv(request)
    assert await service.catalog.CreatePv(request) == first
    request.pv.device = "another"
    with refused(StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await service.catalog.CreatePv(request)


async def test_bulk_calls_answer_per_item(service) -> None:
    request = rpc.BatchCreatePvsRequest()
    for address in ("A", "B", "A"):
        request.pvs.add(
            setpoint={"address": address}, tags=[catalog_pb2.TagRef(group="G", tag="T")]
        )
    request.pvs.add(device="no address", tags=[catalog_pb2.TagRef(group="G", tag="orphan")])
    answer = await service.catalog.BatchCreatePvs(request)
    assert [r.pv.name for r in answer.results] == ["A", "B", "", ""]
    assert [r.error.field for r in answer.results] == ["", "", "name", "setpoint.address"]
    assert await names(service) == ["A", "B"]
    groups = (await service.catalog.ListTagGroups(rpc.ListTagGroupsRequest())).tag_groups
    assert [(t.name, t.pv_count) for g in groups for t in g.tags] == [("T", 2)]


async def test_purge_by_selector(service) -> None:
    for name, readback in (("A:2", "A:2:RB"), ("A:1", ""), ("B:1", "")):
        await create(service, name, readback)
    selector = selector_pb2.Selector(globs=["A:*"])
    request = rpc.PurgePvsRequest(selector=selector, dry_run=True)
    would = await service.catalog.PurgePvs(request)
    assert (would.pvs, would.channels, list(would.names)) == (2, 3, ["A:1", "A:2"])
    assert await names(service) == ["A:1", "A:2", "B:1"]
    request.dry_run = False
    assert await service.catalog.PurgePvs(request) == would
    assert await names(service) == ["B:1"]
    empty = rpc.PurgePvsRequest(selector=selector_pb2.Selector())
    with refused(StatusCode.INVALID_ARGUMENT, "EMPTY_SELECTOR"):
        await service.catalog.PurgePvs(empty)


async def test_a_database_that_came_back_older_is_read_anew(service) -> None:
    await create(service, "OLD")
    connection = await asyncpg.connect(service.settings.postgres_url.get_secret_value())
    before = await connection.fetchrow("SELECT * FROM catalog.version")
    assert before is not None
    await create(service, "NEW")
    assert await names(service) == ["NEW", "OLD"]
    async with connection.transaction():
        await connection.execute("DELETE FROM catalog.pv WHERE name = 'NEW'")
        await connection.execute("DELETE FROM catalog.channel WHERE address = 'NEW'")
        await connection.execute(
            "UPDATE catalog.version SET version = $1, next_pv = $2, next_setpoint = $3",
            before["version"],
            before["next_pv"],
            before["next_setpoint"],
        )
    await connection.close()
    assert await names(service) == ["OLD"]
    made = await create(service, "OTHER")
    assert await names(service) == ["OLD", "OTHER"]
    assert made.number == 2


async def test_a_search_made_to_stop_the_service_is_answered(service) -> None:
    """A matcher that tries again would need longer than the machine will stand."""
    for i in range(5):
        await create(service, f"{'A' * 60}:{i}", description="b" * 500)
    hostile = "*?" * 200 + "~"
    calls = [
        service.catalog.ListPvs(rpc.ListPvsRequest(search=hostile, include_deleted=dead))
        for dead in (True, False)
    ]
    assert [len((await call).pvs) for call in calls] == [0, 0]
    selector = selector_pb2.Selector(globs=["*" + "A*" * 30 + f"{i}~" for i in range(500)])
    answer = await service.catalog.ResolveSelector(rpc.ResolveSelectorRequest(selector=selector))
    assert answer.pvs == 0
    selector.globs[:] = ["?" * 400] * 100
    with refused(StatusCode.INVALID_ARGUMENT, "TOO_MANY"):
        await service.catalog.ResolveSelector(rpc.ResolveSelectorRequest(selector=selector))


async def test_every_change_is_in_the_audit(service) -> None:
    made = await create(service, "A", device="d")
    await update(service, catalog_pb2.Pv(id=made.id, device="e"), "device")
    await service.catalog.DeletePv(rpc.DeletePvRequest(id=made.id))
    connection = await asyncpg.connect(service.settings.postgres_url.get_secret_value())
    found = await read_entries(connection)
    assert await verify_chain(connection) == []
    await connection.close()
    assert [e.action for e in found] == ["pv.delete", "pv.update", "pv.create"]
    assert {e.actor for e in found} == {"tester"}
    assert found[1].before is not None and found[1].after is not None
    assert (found[1].before["device"], found[1].after["device"]) == ("d", "e")


async def test_the_effective_policy_says_where_it_comes_from(service) -> None:
    made = await create(service, "A", restore_policy=catalog_pb2.RestorePolicy(stage=2))
    answer = await service.catalog.GetEffectivePolicy(rpc.GetEffectivePolicyRequest(id=made.id))
    sources = {s.policy_field: s.WhichOneof("source") for s in answer.sources}
    assert (sources["stage"], sources["timeout"]) == ("pv", "built_in")
    assert answer.policy.stage == 2
    # it is that of whoever executes the plan
    assert not answer.policy.HasField("timeout")
    assert answer.policy.completion == catalog_pb2.COMPLETION_PUT_CALLBACK
    with_completion = {"done_channel", "done_value"}
    fields = {f.name for f in catalog_pb2.RestorePolicy.DESCRIPTOR.fields}
    assert set(sources) == fields - with_completion


async def test_what_is_not_built_says_so(service) -> None:
    with refused(StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED"):
        await service.catalog.ListScopes(rpc.ListScopesRequest())
