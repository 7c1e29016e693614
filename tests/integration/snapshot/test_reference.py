"""A snapshot read whole, in columns, as the gateway reads what drift is watched from."""

from __future__ import annotations

import uuid

import grpc
import numpy as np
import pytest

from drey.common.v1 import state_pb2
from drey.internal.reference.v1.reference_service_pb2 import ReadReferenceRequest
from drey.internal.reference.v1.reference_service_pb2_grpc import ReferenceServiceStub
from drey.snapshot.v1 import snapshot_service_pb2 as rpc
from drey_core.directory import ROLE_SETPOINT, Directory
from drey_runtime.directory_codec import decode_catalog, decode_metadata
from drey_runtime.mapping.columns import ColumnsReader


async def read(site, known_id: str = "", **state):
    request = ReadReferenceRequest(state=state_pb2.StateRef(**state), known_id=known_id)
    return [part async for part in ReferenceServiceStub(site.channel).ReadReference(request)]


async def test_all_of_a_snapshot_is_read_and_nothing_where_it_is_known(site) -> None:
    await site.add_pvs(300)
    await site.fill()
    snapshot = await site.take()
    first, *parts = await read(site, snapshot_id=snapshot.id)
    assert first.snapshot_id == snapshot.id
    assert first.time_ns == snapshot.take_time.ToNanoseconds()
    pages = [decode_catalog(raw) for part in parts for raw in part.catalog_pages]
    directory = Directory.from_pages(0, pages)
    assert len(directory) == 300
    metadata = [decode_metadata(raw) for part in parts for raw in part.metadata_pages]
    assert {page.number for page in metadata} == {page.number for page in pages}
    reader = ColumnsReader()
    read_parts = (reader.join_columns(part.columns) for part in parts if part.HasField("columns"))
    found = [each for each in read_parts if each is not None]
    numbers = np.concatenate([each.pv_numbers for each in found])
    roles = np.concatenate([each.roles for each in found])
    assert numbers[roles == ROLE_SETPOINT].tolist() == directory.pv_number.tolist()
    assert len(await read(site, snapshot.id, snapshot_id=snapshot.id)) == 1


async def test_a_golden_one_is_found_by_its_label(site, refused) -> None:
    await site.add_pvs(10)
    await site.fill()
    taken = [(await site.take()).id for _ in range(2)]
    golden = state_pb2.GoldenRef(label="beam")
    code, _, metadata = await refused(
        ReferenceServiceStub(site.channel).ReadReference(
            ReadReferenceRequest(state=state_pb2.StateRef(golden=golden))
        )
    )
    assert code is grpc.StatusCode.NOT_FOUND and metadata["field"] == "spec.reference.golden.label"
    for snapshot_id in taken:
        async with site.stub("ann", "keeper") as keeper:
            await keeper.SetGolden(rpc.SetGoldenRequest(snapshot_id=snapshot_id, label="beam"))
        first, *rest = await read(site, taken[0], golden=golden)
        assert first.snapshot_id == snapshot_id
        assert bool(rest) is (snapshot_id != taken[0])


@pytest.mark.parametrize(
    ("state", "code", "field"),
    [
        ({"live": {}}, grpc.StatusCode.UNIMPLEMENTED, "spec.reference.live"),
        ({"instant_ns": 1}, grpc.StatusCode.UNIMPLEMENTED, "spec.reference.instant_ns"),
        (
            {"golden": {"scope": "injector"}},
            grpc.StatusCode.UNIMPLEMENTED,
            "spec.reference.golden.scope",
        ),
        (
            {"snapshot_id": str(uuid.uuid4())},
            grpc.StatusCode.NOT_FOUND,
            "spec.reference.snapshot_id",
        ),
    ],
)
async def test_what_is_no_snapshot_is_refused_by_the_path_of_the_watch(
    site, refused, state, code, field
) -> None:
    request = ReadReferenceRequest(state=state_pb2.StateRef(**state))
    found, _, metadata = await refused(ReferenceServiceStub(site.channel).ReadReference(request))
    assert found is code and metadata["field"] == field
