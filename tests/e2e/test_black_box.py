"""The gateway from outside, by a stub of `pytest-grpc` over the running stack.

The plugin serves where its fixtures fit: a stub on the client side. Nothing else uses it, so this
file alone knows its names. Without it, `monitor_stub` returns
`MonitorServiceStub(running.channel)`, the two fixtures above it go, and so does the line in
`pyproject.toml`.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from drey.common.v1 import selector_pb2, value_pb2
from drey.monitor.v1 import monitor_service_pb2
from drey.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub
from tests.e2e.conftest import Running


@pytest.fixture(scope="module")
def grpc_channel(running: Running) -> grpc.Channel:
    return running.channel


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[MonitorServiceStub]:
    return MonitorServiceStub


@pytest.fixture(scope="module")
def monitor_stub(grpc_stub: MonitorServiceStub) -> MonitorServiceStub:
    return grpc_stub


def _rows(
    monitor_stub: MonitorServiceStub, running: Running, **selector: Any
) -> dict[str, value_pb2.PvRow]:
    request = monitor_service_pb2.GetValuesRequest(
        selector=selector_pb2.Selector(**selector), with_metadata=True
    )
    return {
        row.name: row
        for response in monitor_stub.GetValues(request, **running.call("VIEWER"))
        for row in response.rows
    }


def test_values_have_type_alarm_times_and_state(
    monitor_stub: MonitorServiceStub, running: Running
) -> None:
    rows = _rows(monitor_stub, running, globs=["QUAD:*:BDES"])
    assert rows
    for row in rows.values():
        for value in (row.setpoint, row.readback):
            assert value.WhichOneof("data") == "float64_value"
            assert value.state == value_pb2.CONNECTION_STATE_CONNECTED
            assert value.freshness == value_pb2.FRESHNESS_FRESH
            assert value.severity == value_pb2.ALARM_SEVERITY_NO_ALARM
            assert value.receive_time_ns > 1_700_000_000 * 10**9


def test_every_type_of_the_machine_arrives(
    monitor_stub: MonitorServiceStub, running: Running
) -> None:
    kinds = {
        value.WhichOneof("data")
        for row in _rows(monitor_stub, running, all=True).values()
        for value in (row.setpoint, row.readback)
    }
    assert {
        "float64_value",
        "enum_value",
        "int32_value",
        "string_value",
        "raw_string_value",
        "float64_array",
        "uint8_array",
        "string_array",
        None,
    } <= kinds


def test_unknown_names_are_said_and_known_ones_come(
    monitor_stub: MonitorServiceStub, running: Running
) -> None:
    known = next(iter(_rows(monitor_stub, running, globs=["QUAD:*:BDES"])))
    request = monitor_service_pb2.GetValuesRequest(
        selector=selector_pb2.Selector(names=[known, "NO:SUCH", known])
    )
    responses = list(monitor_stub.GetValues(request, **running.call("VIEWER")))
    assert list(responses[0].not_found) == ["NO:SUCH"]
    assert [row.name for r in responses for row in r.rows] == [known]
