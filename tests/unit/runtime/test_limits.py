import math

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.internal import encoder
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from drey.access.v1 import access_service_pb2
from drey.catalog.v1 import catalog_pb2, catalog_service_pb2
from drey.common.v1 import selector_pb2, value_pb2
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from drey_core.errors import InvalidArgument, Reason
from drey_runtime import limits
from drey_runtime.interceptor import parse_request

UUID = "01890000-0000-7000-8000-000000000000"


def refused(message: object) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        limits.check_limits(message)
    return caught.value


def test_a_whole_request_passes() -> None:
    request = catalog_service_pb2.UpdatePvRequest(
        pv=catalog_pb2.Pv(id=UUID, name="A:b-c[1]<x>;"),
        update_mask=FieldMask(paths=["name"]),
        request_id=UUID,
    )
    limits.check_limits(request)
    request.request_id = "none"
    assert refused(request).field == "request_id"


def test_required_fields() -> None:
    assert refused(catalog_service_pb2.CreatePvRequest()).field == "pv"
    assert refused(snapshot_service_pb2.GetSnapshotRequest()).field == "id"


def test_ids_are_uuids() -> None:
    error = refused(snapshot_service_pb2.GetSnapshotRequest(id="1"))
    assert (error.reason, error.field) == (Reason.MALFORMED_ID, "id")


def test_an_id_is_one_whatever_its_letters() -> None:
    """Else a repeat by a client that writes UUIDs in capitals would act a second time."""
    upper = "0189ABCD-0000-7000-8000-00000000ABCD"
    requests = [
        catalog_service_pb2.CreatePvRequest(pv=catalog_pb2.Pv(id=upper), request_id=upper),
        catalog_service_pb2.ImportPvsRequest(options={"request_id": upper}),
        snapshot_service_pb2.GetSnapshotRequest(id=upper),
    ]
    for request in requests:
        limits.check_limits(request)
        assert upper not in str(request) and upper.lower() in str(request)


def test_what_people_call_things_has_one_form() -> None:
    """Else two tags stand beside each other that nobody can tell apart."""
    one, two = "Ger\u00e4t", "Gera\u0308t"
    tag = catalog_pb2.TagRef(group=two, tag=two)
    requests = [
        catalog_service_pb2.CreatePvRequest(pv=catalog_pb2.Pv(name="A", device=two, tags=[tag])),
        catalog_service_pb2.CreateTagGroupRequest(tag_group=catalog_pb2.TagGroup(name=two)),
        catalog_service_pb2.CreateTagRequest(tag_group_id=UUID, name=two),
        catalog_service_pb2.UpdateTagRequest(
            tag=catalog_pb2.Tag(id=UUID, name=two), update_mask=FieldMask(paths=["name"])
        ),
        catalog_service_pb2.ListPvsRequest(
            selector=selector_pb2.Selector(devices=[two], tags=[{"group": two, "tags": [two]}])
        ),
        snapshot_service_pb2.ListSnapshotsRequest(labels=[two], principal=two),
        access_service_pb2.CreateKeyRequest(name=two, grants=[{"role": "viewer"}]),
    ]
    for request in requests:
        limits.check_limits(request)
        text = request.SerializeToString().decode("utf-8", "replace")
        assert two not in text and one in text, request
    pv_names = selector_pb2.Selector(names=[two], globs=[two])
    limits.check_limits(pv_names)
    assert [*pv_names.names, *pv_names.globs] == [two, two]
    # there are letters that are longer in this form
    longer = catalog_pb2.Pv(name="A", device="\ufb1d" * 166)
    assert refused(catalog_service_pb2.CreatePvRequest(pv=longer)).field == "pv.device"


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\x00", "x" * 501, "é" * 251])
def test_names_that_cannot_be(name: str) -> None:
    request = catalog_service_pb2.CreatePvRequest(pv=catalog_pb2.Pv(setpoint={"address": name}))
    assert refused(request).field == "pv.setpoint.address"


def test_the_path_names_the_element() -> None:
    request = snapshot_service_pb2.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(selector=selector_pb2.Selector(names=["a", "b", "", "c"]))
    )
    assert refused(request).field == "spec.selector.names[2]"


def test_lists_have_an_end() -> None:
    selector = selector_pb2.Selector(globs=["*"] * 1001)
    error = refused(
        snapshot_service_pb2.TakeSnapshotRequest(spec=snapshot_pb2.SnapshotSpec(selector=selector))
    )
    assert (error.reason, error.field) == (Reason.TOO_MANY, "spec.selector.globs")
    assert error.metadata["limit"] == "1000"


@pytest.mark.parametrize("bad", [math.nan, -0.1, math.inf])
def test_tolerances(bad: float) -> None:
    tolerance = value_pb2.Tolerance(relative=bad)
    request = catalog_service_pb2.CreatePvRequest(
        pv=catalog_pb2.Pv(name="a", readback={"tolerance": tolerance})
    )
    assert refused(request).field == "pv.readback.tolerance.relative"


def test_unknown_enum_numbers() -> None:
    request = catalog_service_pb2.CreatePvRequest(
        pv=catalog_pb2.Pv(name="a", setpoint={"channel_protocol": 77})
    )
    assert refused(request).field == "pv.setpoint.channel_protocol"


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(1, -5), (-1, 5), (0, 2 * 10**9), (0, -(10**9)), (315_576_000_001, 0)]
)
def test_durations_that_are_none(seconds: int, nanos: int) -> None:
    policy = catalog_pb2.RestorePolicy(settle=Duration(seconds=seconds, nanos=nanos))
    request = catalog_service_pb2.CreatePvRequest(pv=catalog_pb2.Pv(restore_policy=policy))
    assert refused(request).field == "pv.restore_policy.settle"


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(1, -5), (0, 10**9), (-62_135_596_801, 0), (253_402_300_800, 0)]
)
def test_timestamps_that_are_none(seconds: int, nanos: int) -> None:
    request = snapshot_service_pb2.ListSnapshotsRequest(
        from_time=Timestamp(seconds=seconds, nanos=nanos)
    )
    assert refused(request).field == "from_time"


def test_text_without_control_characters_but_with_lines_where_allowed() -> None:
    limits.check_limits(
        snapshot_service_pb2.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(
                selector=selector_pb2.Selector(all=True), comment="two\nlines"
            )
        )
    )
    request = snapshot_service_pb2.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(
            selector=selector_pb2.Selector(all=True), title_template="two\nlines"
        )
    )
    assert refused(request).field == "spec.title_template"


def test_nesting_ends() -> None:
    selector = selector_pb2.Selector(all=True)
    for _ in range(20):
        selector = selector_pb2.Selector(**{"all": True, "excluding": selector})
    refused(
        snapshot_service_pb2.TakeSnapshotRequest(spec=snapshot_pb2.SnapshotSpec(selector=selector))
    )


def test_100_000_names_take_well_under_a_second() -> None:
    names = [f"QUAD:LI21:{i}:BDES" for i in range(100_000)]
    limits.check_limits(
        snapshot_service_pb2.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(selector=selector_pb2.Selector(names=names))
        )
    )


# --- before it is parsed ---

CATALOG = "/drey.catalog.v1.CatalogService"


def delimited(message: type[Message], field: str, raw: bytes) -> bytes:
    """A length-delimited field as it lies on the wire."""
    head = message.DESCRIPTOR.fields_by_name[field].number << 3 | 2
    return encoder._VarintBytes(head) + encoder._VarintBytes(len(raw)) + raw  # type: ignore[attr-defined]


def never(_raw: bytes) -> object:
    raise AssertionError("it was parsed")


def refused_unparsed(method: str, raw: bytes) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        parse_request(f"{CATALOG}/{method}", never, raw)
    return caught.value


def test_millions_of_empty_messages_are_counted_not_made() -> None:
    request = catalog_service_pb2.BatchCreatePvsRequest
    raw = delimited(request, "pvs", b"") * (2 << 20)
    error = refused_unparsed("BatchCreatePvs", raw)
    assert (error.reason, error.field) == (Reason.TOO_MANY, "pvs")


def test_so_are_those_within_a_message() -> None:
    group = delimited(catalog_pb2.TagGroup, "tags", b"") * (1 << 20)
    raw = delimited(catalog_service_pb2.CreateTagGroupRequest, "tag_group", group)
    error = refused_unparsed("CreateTagGroup", raw)
    assert (error.reason, error.field) == (Reason.TOO_MANY, "tag_group.tags")


def test_so_are_all_of_them_together() -> None:
    tags = delimited(catalog_pb2.Pv, "tags", b"") * 900
    raw = delimited(catalog_service_pb2.BatchCreatePvsRequest, "pvs", tags) * 2000
    assert refused_unparsed("BatchCreatePvs", raw).reason is Reason.TOO_MANY


def test_one_message_given_a_million_times_is_refused_too() -> None:
    raw = delimited(catalog_service_pb2.CreatePvRequest, "pv", b"") * (1 << 20)
    assert refused_unparsed("CreatePv", raw).reason is Reason.TOO_MANY


def test_a_large_request_within_its_limits_is_parsed() -> None:
    request = catalog_service_pb2.BatchCreatePvsRequest(
        pvs=[
            catalog_pb2.Pv(name=f"P{i}" + "x" * 50, setpoint={"address": f"P{i}"})
            for i in range(5000)
        ]
    )
    raw = request.SerializeToString()
    assert len(raw) > 64 << 10
    assert parse_request(f"{CATALOG}/BatchCreatePvs", request.FromString, raw) == request


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_bytes_that_are_no_message_are_said_to_be_none(size: int) -> None:
    request = catalog_service_pb2.BatchCreatePvsRequest
    raw = b"\x0b" * 300 + b"\x0a\xff\xff\xff\xff\x0f" + b"\x00" * size
    with pytest.raises(InvalidArgument) as caught:
        parse_request(f"{CATALOG}/BatchCreatePvs", request.FromString, raw)
    assert caught.value.reason is Reason.MALFORMED_MESSAGE


def test_deep_nesting_costs_nothing() -> None:
    within = next(
        field.name
        for field in selector_pb2.Selector.DESCRIPTOR.fields
        if field.message_type is selector_pb2.Selector.DESCRIPTOR
    )
    request = catalog_service_pb2.ListPvsRequest
    raw = b""
    for _ in range(200):
        raw = delimited(selector_pb2.Selector, within, raw)
    with pytest.raises(InvalidArgument) as caught:
        parse_request(f"{CATALOG}/ListPvs", request.FromString, delimited(request, "selector", raw))
    assert caught.value.reason is Reason.MALFORMED_MESSAGE
    raw = b"\x12\x00" * (64 << 10)  # names, far within
    for _ in range(200):
        raw = delimited(selector_pb2.Selector, within, raw)
    error = refused_unparsed("ListPvs", delimited(request, "selector", raw))
    assert "nested too deep" in error.message


def test_unknown_fields_are_found_at_any_depth() -> None:
    future = b"\x92\xfa\x01\x01x"
    request = catalog_service_pb2.BatchCreatePvsRequest(pvs=[catalog_pb2.Pv(name="a")] * 3)
    raw = request.SerializeToString()
    limits.check_known_fields(request.FromString(raw), raw)
    request.pvs[1].setpoint.tolerance.MergeFromString(future)
    raw = request.SerializeToString()
    with pytest.raises(InvalidArgument) as caught:
        limits.check_known_fields(request.FromString(raw), raw)
    assert caught.value.reason == Reason.UNKNOWN_FIELD
    assert caught.value.field == "pvs[1].setpoint.tolerance.4002"
