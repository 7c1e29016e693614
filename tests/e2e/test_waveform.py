"""Ten megabytes from an IOC to a client: by the image, by a watch, and by a read of the channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import numpy as np

from drey.catalog.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from drey.common.v1 import selector_pb2, value_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2, snapshot_service_pb2_grpc
from drey_ca.eca import ECA
from drey_ca.interface import Slots
from drey_client.parts import whole_rows
from drey_core.values import Columns
from drey_stack.whole import Stack, StackOptions
from drey_testing.ca.ioc import Ioc, use_loopback

use_loopback()  # before anything makes a context of Channel Access

from drey_ca import open_table  # noqa: E402

ELEMENTS = 1_310_720
DATABASE = f"""
record(waveform,"WAVE"){{field(FTVL,"DOUBLE") field(NELM,"{ELEMENTS}")}}
record(ao,"SMALL"){{field(VAL,"1.5") field(PINI,"YES")}}
"""
NAMES = ("WAVE", "SMALL")
ALL = selector_pb2.Selector(all=True)
HANGS_S = 300


async def test_ten_megabytes_from_the_ioc_to_the_client(tmp_path: Path) -> None:
    first = np.arange(float(ELEMENTS))
    with Ioc(tmp_path, DATABASE) as ioc:
        epics = {
            "EPICS_CA_ADDR_LIST": f"127.0.0.1:{ioc.port}",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
        }
        options = StackOptions(tmp_path / "state", epics=epics, fsync=False)
        async with open_table("aioca") as table, Stack(options) as stack:
            slots = await table.add_channels(NAMES)
            assert (await table.wait_connected(slots, HANGS_S)).all()

            async def write(values: Any) -> None:
                columns = Columns.from_values(np.zeros(1, np.int64), [values], [None])
                wave: Slots = slots[:1]
                assert (await table.write_values(wave, columns, HANGS_S)).tolist() == [ECA.NORMAL]

            await write(first)
            async with asyncio.timeout(HANGS_S), stack.channel() as channel:
                client = _Client(channel, (("authorization", f"Bearer {stack.key}"),))
                await client.add_pvs()
                await client.until_got(first)
                async with client.watching() as watch:
                    await watch.until_seen(first)
                    await write(first[::-1])
                    await watch.until_seen(first[::-1])
                taken = await client.take(snapshot_pb2.SNAPSHOT_SOURCE_READ)
                assert taken.counts.connected == len(NAMES)
                rows = await client.read(taken.id)
                assert _elements(rows, "WAVE").tobytes() == first[::-1].tobytes()
                small = next(row for row in rows if row.name == "SMALL")
                assert small.setpoint.float64_value == 1.5
                assert small.setpoint.origin == value_pb2.VALUE_ORIGIN_READ


def _elements(rows: Sequence[Any], name: str) -> np.ndarray:
    """The array of a PV; a large one comes in parts."""
    parts = [row.setpoint.float64_array.elements for row in rows if row.name == name]
    return np.array([element for part in parts for element in part])


class _Client:
    def __init__(self, channel: grpc.aio.Channel, metadata: Any) -> None:
        self.call = {"metadata": metadata, "timeout": HANGS_S}
        self.catalog: Any = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.monitor: Any = monitor_service_pb2_grpc.MonitorServiceStub(channel)
        self.snapshots: Any = snapshot_service_pb2_grpc.SnapshotServiceStub(channel)

    async def add_pvs(self) -> None:
        for name in NAMES:
            request = catalog_service_pb2.CreatePvRequest(
                pv={"setpoint": {"address": name}}, request_id=str(uuid4())
            )
            await self.catalog.CreatePv(request, **self.call)

    async def until_got(self, wanted: np.ndarray) -> None:
        """By GetValues, asked until the monitor has it."""
        request = monitor_service_pb2.GetValuesRequest(selector=ALL)
        while True:
            rows: list[Any] = []
            try:
                async for message in self.monitor.GetValues(request, **self.call):
                    rows += message.rows
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            if np.array_equal(_elements(rows, "WAVE"), wanted):
                return
            await asyncio.sleep(0.1)

    def watching(self) -> _Watch:
        request = monitor_service_pb2.WatchPvsRequest(spec={"selector": ALL})
        return _Watch(self.monitor.WatchPvs(request, **self.call))

    async def take(self, source: Any) -> snapshot_pb2.Snapshot:
        spec = snapshot_pb2.SnapshotSpec(selector=ALL, source=source)
        request = snapshot_service_pb2.TakeSnapshotRequest(spec=spec, request_id=str(uuid4()))
        request.spec.read_timeout.FromSeconds(30)
        request.wait.FromSeconds(50)
        response = await self.snapshots.TakeSnapshot(request, **self.call)
        assert response.HasField("snapshot"), response
        taken: snapshot_pb2.Snapshot = response.snapshot
        return taken

    async def read(self, snapshot_id: str) -> list[Any]:
        request = snapshot_service_pb2.ReadSnapshotRequest(id=snapshot_id)
        rows: list[Any] = []
        async for message in self.snapshots.ReadSnapshot(request, **self.call):
            rows += message.rows.rows
        return rows


class _Watch:
    """A watch; what is held of it is whole at each checkpoint."""

    def __init__(self, call: Any) -> None:
        self._call, self._messages = call, self._read(call)

    async def __aenter__(self) -> _Watch:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def _read(self, call: Any) -> AsyncIterator[list[Any]]:
        pending: list[Any] = []
        async for message in call:
            part = message.WhichOneof("part")
            if part in ("baseline", "diff"):
                pending += getattr(message, part).rows
            elif part == "checkpoint":
                yield list(whole_rows(pending))
                pending = []

    async def until_seen(self, wanted: np.ndarray) -> None:
        async for rows in self._messages:
            if np.array_equal(_elements(rows, "WAVE"), wanted):
                return
        raise AssertionError("the watch ended")
