"""Streams that a reader leaves half read, in every way: nothing of them stays in the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from drey.catalog.v1 import catalog_service_pb2 as catalog_rpc
from drey.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from drey.common.v1 import form_pb2
from drey.compare.v1 import compare_pb2, compare_service_pb2
from drey.compare.v1.compare_service_pb2_grpc import CompareServiceStub
from drey.snapshot.v1 import snapshot_service_pb2 as rpc
from drey.snapshot.v1.snapshot_service_pb2_grpc import SnapshotServiceStub
from drey_testing.live_calls import live_calls, wait_calls_gone
from tests.integration.snapshot.conftest import EVERYTHING, Site, connect, state_of

ROUNDS, CALLS, PVS = 5, 3, 3000


def _makers(channel: grpc.aio.Channel, id: str, name: str) -> list[Callable[[], Any]]:
    """Each begins a stream."""
    snapshots: Any = SnapshotServiceStub(channel)
    comparisons: Any = CompareServiceStub(channel)
    catalog: Any = CatalogServiceStub(channel)
    spec = compare_pb2.ComparisonSpec(
        reference=state_of(id),
        others=[state_of("")],
        with_values=True,
        classes=[n for n in compare_pb2.DifferenceClass.values() if n],
    )
    whole, columns = rpc.ReadSnapshotRequest(id=id, with_metadata=True), rpc.ReadSnapshotRequest()
    columns.CopyFrom(whole)
    columns.form = form_pb2.VALUE_FORM_COLUMNS
    return [
        lambda: snapshots.ReadSnapshot(whole),
        lambda: snapshots.ReadSnapshot(columns),
        lambda: snapshots.GetPvHistory(rpc.GetPvHistoryRequest(name=name)),
        lambda: comparisons.Compare(compare_service_pb2.CompareRequest(spec=spec)),
        lambda: catalog.ExportPvs(catalog_rpc.ExportPvsRequest(selector=EVERYTHING)),
    ]


@pytest.mark.parametrize("how", ["cancel", "close", "leave"])
async def test_nothing_stays_of_streams_that_are_left_half_read(site: Site, how: str) -> None:
    await site.add_pvs(PVS)
    await site.fill()
    snapshot = await site.take()
    (name,) = (await site.catalog.ListPvs(catalog_rpc.ListPvsRequest(page_size=1))).pvs
    before = None
    for _ in range(ROUNDS):
        channel = connect(site.settings, site.keys)
        calls = [make() for make in _makers(channel, snapshot.id, name.name) * CALLS]
        readers = [call.__aiter__() for call in calls]
        assert all(await asyncio.gather(*(anext(reader) for reader in readers)))
        if how == "cancel":
            for call in calls:
                call.cancel()
        if how == "leave":
            calls.clear()
            readers.clear()
        await channel.close()
        del channel, calls, readers
        if before is None:
            await asyncio.sleep(0.2)
            before = live_calls()  # what is made once is made by now
    assert before is not None
    await wait_calls_gone(before)
