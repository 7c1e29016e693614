import math

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2
from drey.common.v1 import selector_pb2, value_pb2
from drey.snapshot.v1 import snapshot_service_pb2
from drey_core.errors import InvalidArgument, Reason
from drey_runtime import limits

UUID = "01890000-0000-7000-8000-000000000000"


def refused(message: object) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        limits.check(message)  # type: ignore[arg-type]
    return caught.value


def test_a_whole_request_passes() -> None:
    limits.check(
        catalog_service_pb2.UpdatePvRequest(
            pv=catalog_pb2.Pv(id=UUID, name="A:b-c[1]<x>;"),
            update_mask=FieldMask(paths=["name"]),
            request_id=UUID,
        )
    )


def test_required_fields() -> None:
    assert refused(catalog_service_pb2.CreatePvRequest()).field == "pv"
    assert refused(snapshot_service_pb2.GetSnapshotRequest()).field == "id"


def test_ids_are_uuids() -> None:
    error = refused(snapshot_service_pb2.GetSnapshotRequest(id="1"))
    assert (error.reason, error.field) == (Reason.MALFORMED_ID, "id")


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\x00", "x" * 501, "é" * 251])
def test_names_that_cannot_be(name: str) -> None:
    request = catalog_service_pb2.CreatePvRequest(pv=catalog_pb2.Pv(setpoint_address=name))
    assert refused(request).field == "pv.setpoint_address"


def test_the_path_names_the_element() -> None:
    request = snapshot_service_pb2.TakeSnapshotRequest(
        selector=selector_pb2.Selector(names=["a", "b", "", "c"])
    )
    assert refused(request).field == "selector.names[2]"


def test_lists_have_an_end() -> None:
    selector = selector_pb2.Selector(globs=["*"] * 1001)
    error = refused(snapshot_service_pb2.TakeSnapshotRequest(selector=selector))
    assert (error.reason, error.field) == (Reason.TOO_MANY, "selector.globs")
    assert error.metadata["limit"] == "1000"


@pytest.mark.parametrize("bad", [math.nan, -0.1, math.inf])
def test_tolerances(bad: float) -> None:
    tolerance = value_pb2.Tolerance(relative=bad)
    request = catalog_service_pb2.CreatePvRequest(
        pv=catalog_pb2.Pv(name="a", readback_tolerance=tolerance)
    )
    assert refused(request).field == "pv.readback_tolerance.relative"


def test_unknown_enum_numbers() -> None:
    request = catalog_service_pb2.CreatePvRequest(pv=catalog_pb2.Pv(name="a", protocol=77))  # type: ignore[arg-type]
    assert refused(request).field == "pv.protocol"


def test_text_without_control_characters_but_with_lines_where_allowed() -> None:
    limits.check(
        snapshot_service_pb2.TakeSnapshotRequest(
            selector=selector_pb2.Selector(all=True), comment="two\nlines"
        )
    )
    request = snapshot_service_pb2.TakeSnapshotRequest(
        selector=selector_pb2.Selector(all=True), title="two\nlines"
    )
    assert refused(request).field == "title"


def test_nesting_ends() -> None:
    selector = selector_pb2.Selector(all=True)
    for _ in range(20):
        selector = selector_pb2.Selector(**{"all": True, "except": selector})
    refused(snapshot_service_pb2.TakeSnapshotRequest(selector=selector))


def test_100_000_names_take_well_under_a_second() -> None:
    names = [f"QUAD:LI21:{i}:BDES" for i in range(100_000)]
    limits.check(
        snapshot_service_pb2.TakeSnapshotRequest(selector=selector_pb2.Selector(names=names))
    )
