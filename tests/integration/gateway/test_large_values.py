"""Values of many megabytes: through everything, or an error by name, and no harm to others."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from drey.common.v1 import form_pb2, selector_pb2
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import monitor_service_pb2_grpc as pb_grpc
from drey_client.parts import whole_rows
from drey_core.errors import Reason
from drey_core.values import ARRAY, Columns, Kind, Origin, State, heap_mask
from drey_runtime.mapping.columns import ColumnsReader, ReadColumns
from drey_runtime.mapping.value import from_proto
from drey_testing.fixtures_gateway import (
    Gateway,
    GatewayRig,
    catalog_pages,
    eventually,
    floats,
    name_of,
    setpoint,
)

PVS = 20
WAVE, LONG, TEXTS, HUGE, QUIET = 3, 4, 5, 6, 7
STRINGS = [b"%d" % i * 9 for i in range(60_000)]


def large(wave_first: float) -> Columns:
    """A 10 MB waveform, a 4 MB string, an array of strings, and one that nothing can carry."""
    wave = np.arange(1_300_000, dtype="<f8")
    wave[0] = wave_first
    values: dict[int, Any] = {
        WAVE: (Kind.FLOAT64 | ARRAY, wave),
        LONG: (Kind.STRING, "µ".encode() * 2_000_000),
        TEXTS: (Kind.STRING | ARRAY, STRINGS),
        HUGE: (Kind.STRING | ARRAY, [b"x" * 4_000_000]),
    }
    channels = np.array([setpoint(pv) for pv in values], np.int64)
    kinds = [int(kind) for kind, _ in values.values()]
    out = Columns.from_values(channels, [raw for _, raw in values.values()], kinds)
    out.state[:], out.origin[:] = State.CONNECTED, Origin.MONITOR
    return out


@pytest.fixture
async def served(rig: GatewayRig, admin_key: str):
    publisher = rig.publisher()
    await publisher.beat()
    await publisher.set_catalog(catalog_pages(PVS))
    await publisher.publish(floats([setpoint(pv) for pv in range(1, PVS + 1)], [1.0] * PVS))
    publisher.start()
    gateway = await rig.ready_gateway()
    yield gateway, publisher, (("authorization", f"Bearer {admin_key}"),)
    await publisher.stop()


def client(gateway: Gateway) -> Any:
    """A stub with the limits of an ordinary client."""
    return pb_grpc.MonitorServiceStub(
        grpc.aio.insecure_channel(
            f"127.0.0.1:{gateway.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
    )


def check(rows: dict[int, Any], first: float) -> None:
    wave = np.array(rows[WAVE].setpoint.float64_array.elements)
    assert len(wave) == 1_300_000 and wave[0] == first and wave[-1] == 1_299_999
    long, texts = rows[LONG].setpoint.string_value, rows[TEXTS].setpoint.string_array.elements
    whole = long == "µ" * 2_000_000, [text.encode() for text in texts] == STRINGS
    assert whole == (True, True)
    unsent = rows[HUGE].setpoint.unsent
    assert unsent.reason == Reason.VALUE_TOO_LARGE and name_of(HUGE) in unsent.message
    assert rows[QUIET].setpoint.float64_value == 1.0


async def test_large_values_reach_watchers_and_readers(served):
    gateway, publisher, metadata = served
    everything = selector_pb2.Selector(all=True)
    watch = client(gateway).WatchPvs(
        pb.WatchPvsRequest(spec={"selector": everything}), metadata=metadata
    )
    rows: dict[int, Any] = {}

    async def until_value(pv: int, value: float) -> None:
        async for message in watch:
            part = message.WhichOneof("part")
            if part in ("baseline", "diff"):
                pending.extend(getattr(message, part).rows)
            elif part == "checkpoint":
                for row in whole_rows(pending):
                    held = rows.setdefault(row.number, row)
                    if held is not row and row.HasField("setpoint"):
                        held.setpoint.CopyFrom(row.setpoint)
                    if held is not row and row.HasField("readback"):
                        held.readback.CopyFrom(row.readback)
                pending.clear()
                if pv in rows and rows[pv].setpoint.float64_value == value:
                    return
        raise AssertionError("the watch ended")

    pending: list[Any] = []
    await until_value(QUIET, 1.0)
    await publisher.publish(large(10.0))
    await publisher.publish(floats([setpoint(1)], [2.0]))
    await until_value(1, 2.0)
    check(rows, 10.0)
    # once more: a value that cannot be sent does not make what follows old
    await publisher.publish(large(20.0))
    await publisher.publish(floats([setpoint(1)], [3.0]))
    await until_value(1, 3.0)
    check(rows, 20.0)
    call = client(gateway).GetValues(pb.GetValuesRequest(selector=everything), metadata=metadata)
    read = [row async for message in call for row in message.rows]
    found = {row.number: row for row in whole_rows(read)}
    check(found, 20.0)
    assert found[1].setpoint.float64_value == 3.0
    watch.cancel()


def cells(found: ReadColumns) -> dict[tuple[int, int], Any]:
    """What columns say of each channel, by PV and role."""
    held = found.columns
    return {
        (number, role): (
            int(held.kind[i]),
            held.heap_bytes(i) if heap_mask(held.kind[i : i + 1])[0] else int(held.data[i]),
            int(held.state[i]),
            int(held.source_time[i]),
            int(found.freshness[i]),
        )
        for i, (number, role) in enumerate(
            zip(found.pv_numbers.tolist(), found.roles.tolist(), strict=True)
        )
    }


async def test_columns_say_the_same_as_rows(served):
    gateway, publisher, metadata = served
    await publisher.publish(large(10.0))
    await publisher.publish(floats([setpoint(1), setpoint(2)], [1.0, 2.0]))
    stub, selector = client(gateway), selector_pb2.Selector(all=True)

    async def read(form: Any) -> list[Any]:
        request = pb.GetValuesRequest(selector=selector, form=form)
        return [message async for message in stub.GetValues(request, metadata=metadata)]

    async def arrived() -> bool:
        got = await read(form_pb2.VALUE_FORM_ROWS)
        held = {row.number: row for row in whole_rows(row for m in got for row in m.rows)}
        return held[2].setpoint.float64_value == 2.0 and held[2].setpoint.freshness == 1

    await eventually(arrived, "all that was published")
    answers = await read(form_pb2.VALUE_FORM_ROWS)
    in_rows = {
        (row.number, role): (*from_proto(value), value.state, value.source_time_ns, value.freshness)
        for row in whole_rows(row for message in answers for row in message.rows)
        for role, value in ((1, row.setpoint), (2, row.readback))
        if row.HasField("setpoint" if role == 1 else "readback") and row.number != HUGE
    }
    reader, in_columns = ColumnsReader(), dict[tuple[int, int], Any]()
    for answer in await read(form_pb2.VALUE_FORM_COLUMNS):
        found = reader.join_columns(answer.columns)
        in_columns |= cells(found) if found is not None else {}
    huge = in_columns.pop((HUGE, 1))
    assert len(huge[1]) > 4_000_000  # which no row can carry
    in_columns.pop((HUGE, 2), None)
    assert in_columns == in_rows

    spec = {"selector": selector, "form": form_pb2.VALUE_FORM_COLUMNS}
    watch = stub.WatchPvs(pb.WatchPvsRequest(spec=spec), metadata=metadata)
    watched, last = dict[tuple[int, int], Any](), dict[tuple[int, int], Any]()
    async for message in watch:
        part = message.WhichOneof("part")
        if part == "baseline_begin":
            assert message.baseline_begin.form == form_pb2.VALUE_FORM_COLUMNS
        elif part in ("baseline", "diff"):
            assert not getattr(message, part).rows
            found = reader.join_columns(getattr(message, part).columns)
            last = cells(found) if found is not None else {}
            watched |= last
        elif part == "baseline_end":
            assert {k: v for k, v in watched.items() if k[0] != HUGE} == in_rows
            await publisher.publish(floats([setpoint(1)], [7.0]))
        if part == "diff" and last:
            break
    assert list(last) == [(1, 1)] and last[1, 1][1] == int(np.float64(7.0).view(np.uint64))
    watch.cancel()


async def test_a_form_that_is_not_built_is_refused(served):
    gateway, _, metadata = served
    stub, spec = client(gateway), {"selector": {"all": True}, "form": form_pb2.VALUE_FORM_ARROW}
    for call in (
        stub.GetValues(pb.GetValuesRequest(**spec), metadata=metadata),
        stub.WatchPvs(pb.WatchPvsRequest(spec=spec), metadata=metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
