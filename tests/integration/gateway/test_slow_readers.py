"""Limits of arrays for readers that are slow or stop: never older, never torn, and the last value
in the end; in watches of their own and in the subscriptions of a session."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from drey.common.v1 import form_pb2, selector_pb2
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import monitor_service_pb2_grpc as pb_grpc
from drey.monitor.v1 import watch_pb2
from drey_client.parts import whole_rows
from drey_client.watch_state import WatchModel
from drey_core.extracts import ArrayShape, Decimation
from drey_core.values import ARRAY, Columns, Kind, State
from drey_runtime.mapping.columns import ColumnsReader
from drey_testing.fixtures_gateway import Gateway, ScriptedOwner, eventually, setpoint
from drey_testing.raw_http2 import SlowClient

ELEMENTS, WAVES = 30_000, (1, 2, 3)
SHAPE = ArrayShape(100, Decimation.MIN_MAX)
WINDOW, STEP = 16 << 10, 60 << 10
SERVICE = "/drey.monitor.v1.MonitorService/"
WAVES_ONLY = selector_pb2.Selector(numbers=WAVES)


def soon(seconds: float) -> Duration:
    return Duration(nanos=round(seconds * 1e9))


LIMITS: dict[str, Any] = {
    "extracts": {
        "max_elements": SHAPE.max_elements,
        "decimation": "ARRAY_DECIMATION_MIN_MAX",
        "min_interval": soon(0.02),
    },
    "bytes": {"max_bytes_per_s": 4_000_000},
    "both": {"max_elements": SHAPE.max_elements, "decimation": 3, "max_bytes_per_s": 20_000},
    "columns": {"min_interval": soon(0.05)},
}


def spec_of(name: str) -> watch_pb2.WatchSpec:
    form = form_pb2.VALUE_FORM_COLUMNS if name == "columns" else form_pb2.VALUE_FORM_ROWS
    return watch_pb2.WatchSpec(selector=WAVES_ONLY, form=form, array_limits=LIMITS[name])


def waves(tick: int) -> Columns:
    """An array of each PV, in which every element tells the tick and the PV."""
    kind = int(Kind.FLOAT64) | ARRAY
    arrays = [np.full(ELEMENTS, tick + pv / 10) for pv in WAVES]
    channels = np.array([setpoint(pv) for pv in WAVES], np.int64)
    columns = Columns.from_values(channels, arrays, [kind] * len(WAVES))
    columns.state[:] = State.CONNECTED
    return columns


class Held:
    """What a client holds of a watch; fails on what is older than it was, or torn."""

    def __init__(self) -> None:
        self._model, self._reader = WatchModel(), ColumnsReader()
        self.arrays: dict[int, np.ndarray] = {}
        self.merged = 0

    def take(self, message: pb.WatchPvsResponse) -> None:
        for row in self._model.apply_message(message).rows:
            value = row.setpoint
            if value.WhichOneof("data") == "extract":
                assert value.extract.total_elements == ELEMENTS
                value = value.extract.elements
            if value.WhichOneof("data") == "float64_array":
                self._put(row.number, np.array(value.float64_array.elements))
        part = message.WhichOneof("part")
        if part == "diff":
            self.merged += message.diff.merged
        if part in ("baseline", "diff") and getattr(message, part).HasField("columns"):
            found = self._reader.join_columns(getattr(message, part).columns)
            for i, number in enumerate(found.pv_numbers.tolist() if found is not None else ()):
                if found is not None and found.columns.kind[i] & ARRAY:
                    self._put(number, np.frombuffer(found.columns.heap_bytes(i), "<f8"))

    def _put(self, number: int, array: np.ndarray) -> None:
        assert len(array) in (ELEMENTS, SHAPE.max_elements) and np.ptp(array) == 0, "torn"
        if number in self.arrays:
            assert array[0] >= self.arrays[number][0], "older than what came before"
        self.arrays[number] = array

    def holds(self, tick: int) -> bool:
        return all(pv in self.arrays and self.arrays[pv][0] == tick + pv / 10 for pv in WAVES)


class SlowReader:
    """A connection over which watches with each of the limits are read, as slowly as is said."""

    def __init__(self, client: SlowClient) -> None:
        self._client, self._streams = client, dict[int, str]()
        self.held = {name: Held() for name in LIMITS}

    async def open(self, call: str, key: str) -> None:
        if call == "OpenWatch":
            request = pb.OpenWatchRequest(
                subscriptions=[pb.Subscription(name=name, spec=spec_of(name)) for name in LIMITS]
            )
            await self._open(call, request.SerializeToString(), key, "")
            return
        for name in LIMITS:
            one = pb.WatchPvsRequest(spec=spec_of(name))
            await self._open(call, one.SerializeToString(), key, name)

    async def _open(self, call: str, request: bytes, key: str, name: str) -> None:
        self._streams[await self._client.call(SERVICE + call, request, key)] = name

    async def read(self, size: int) -> None:
        """Take so many bytes more of each stream, and fold what has come whole."""
        for stream, name in self._streams.items():
            assert stream not in self._client.ended and not self._client.closed.is_set()
            await self._client.grant(stream, size)
            for raw in self._client.take_messages(stream):
                if name:
                    self.held[name].take(pb.WatchPvsResponse.FromString(raw))
                    continue
                message = pb.OpenWatchResponse.FromString(raw)
                if message.WhichOneof("part") == "watch" and message.subscription:
                    self.held[message.subscription].take(message.watch)

    async def hold(self, tick: int) -> bool:
        await self.read(STEP)
        return all(held.holds(tick) for held in self.held.values())


async def whole_values(gateway: Gateway, key: str) -> dict[int, np.ndarray]:
    stub: Any = pb_grpc.MonitorServiceStub(gateway.channel)
    metadata = (("authorization", f"Bearer {key}"),)
    call = stub.GetValues(pb.GetValuesRequest(selector=WAVES_ONLY), metadata=metadata)
    rows = whole_rows([row async for message in call for row in message.rows])
    return {row.number: np.array(row.setpoint.float64_array.elements) for row in rows}


@pytest.mark.parametrize("call", ["WatchPvs", "OpenWatch"])
async def test_a_slow_reader_is_told_and_holds_the_last_arrays(
    gateway: Gateway, admin_key: str, publisher: ScriptedOwner, call: str
) -> None:
    await publisher.publish(waves(0))
    async with SlowClient("127.0.0.1", gateway.port, window=WINDOW) as client:
        reader = SlowReader(client)
        await reader.open(call, admin_key)
        await eventually(lambda: reader.hold(0), "the first arrays")
        for tick in range(1, 40):  # slowly
            await publisher.publish(waves(tick))
            await reader.read(STEP)
        for tick in range(40, 60):  # not at all
            await publisher.publish(waves(tick))
        await eventually(lambda: reader.hold(59), "the last arrays")
        for name, held in reader.held.items():
            assert held.merged > 0, name
        values = await whole_values(gateway, admin_key)
        for pv, whole in values.items():
            assert len(whole) == ELEMENTS
            for name in ("bytes", "columns"):
                np.testing.assert_array_equal(reader.held[name].arrays[pv], whole)
            for name in ("extracts", "both"):
                extract = whole[: SHAPE.max_elements]  # all elements are equal
                np.testing.assert_array_equal(reader.held[name].arrays[pv], extract)
