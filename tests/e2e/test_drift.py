"""Drift through the whole stack: what the screen holds is what a comparison says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from drey.common.v1 import selector_pb2, state_pb2
from drey.compare.v1 import compare_pb2, compare_service_pb2, compare_service_pb2_grpc
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey_testing.fixtures_gateway import DriftClient
from tests.e2e.conftest import OPTIONS, Running
from tests.http_calls import open_call

QUIET = selector_pb2.Selector(globs=["QUAD:*BDES", "BEND:*BDES"])
"""Setpoints that nobody moves but the test."""


@contextmanager
def screen(
    address: str, key: str, spec: monitor_service_pb2.DriftSpec, client: DriftClient
) -> Iterator[list[BaseException]]:
    """A watch in a thread, folded into `client`; what it failed by."""
    failures: list[BaseException] = []
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        stub = monitor_service_pb2_grpc.MonitorServiceStub(channel)
        request = monitor_service_pb2.WatchDriftRequest(spec=spec, token=client.token)
        metadata = (("authorization", f"Bearer {key}"),)
        call = stub.WatchDrift(request, metadata=metadata, wait_for_ready=True)

        def read() -> None:
            try:
                for message in call:
                    client.take(message)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.CANCELLED:
                    failures.append(error)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            yield failures
        finally:
            call.cancel()
            thread.join(60)


def compared(running: Running, snapshot_id: str) -> dict[str, tuple[int, int, float]]:
    """(class of the setpoint, of the readback, deviation) of each PV, as CompareService says."""
    spec = compare_pb2.ComparisonSpec(
        reference=state_pb2.StateRef(snapshot_id=snapshot_id),
        others=[state_pb2.StateRef(live=state_pb2.LiveState())],
        selector=QUIET,
    )
    stub = compare_service_pb2_grpc.CompareServiceStub(running.channel)
    answers = stub.Compare(compare_service_pb2.CompareRequest(spec=spec), **running.call())
    return {
        row.name: (
            row.cells[0].setpoint.difference_class,
            row.cells[0].readback.difference_class,
            max(row.cells[0].setpoint.deviation, row.cells[0].readback.deviation),
        )
        for answer in answers
        for row in answer.rows.rows
    }


def told(client: DriftClient) -> dict[str, tuple[int, int, float]]:
    return {
        row.live.name: (row.setpoint_class, row.readback_class, row.deviation)
        for row in list(client.rows.values())
    }


def knows_keys(running: Running) -> bool:
    try:
        request = monitor_service_pb2.GetMonitorStatusRequest()
        running.monitor.GetMonitorStatus(request, **running.call("VIEWER"))
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        return False
    return True


def test_what_is_told_is_what_a_comparison_says(running: Running) -> None:
    snapshot = running.take("before the drift")
    reference = state_pb2.StateRef(snapshot_id=snapshot.id)
    spec = monitor_service_pb2.DriftSpec(reference=reference, selector=QUIET)
    client = DriftClient()

    def agrees() -> bool:
        held = told(client)
        return client.summary is not None and held == compared(running, snapshot.id)

    def again() -> bool:
        assert not failures, failures
        return client.ended_baselines == 2 and agrees()

    with screen(running.stack.server, running.keys["VIEWER"], spec, client) as failures:
        running.pump(lambda: client.ended_baselines == 1 and agrees())
        same = client.summary.same
        running.do(running.machine.run("disturb", "--count", "60", "--seed", "23"))
        running.pump(lambda: len(client.rows) > 0 and agrees())
        assert client.summary.same < same
        # the screen goes on when its gateway is killed: another one knows nothing of the past
        running.stack.supervisor.kill("gateway")
        running.pump(lambda: bool(failures))
    # it listens before it has read the keys, and refuses who comes then
    running.pump(lambda: knows_keys(running))
    with screen(running.stack.server, running.keys["VIEWER"], spec, client) as failures:
        running.pump(again)
        running.pump(lambda: ("drey-gateway", "drey.drift.pvs") in running.collector.metrics)


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
def test_drift_by_rest(running: Running, accept: str) -> None:
    snapshot = running.take("drift by REST")
    body = json.dumps({"spec": {"reference": {"snapshotId": snapshot.id}}}).encode()
    headers = {"authorization": f"Bearer {running.stack.key}", "accept": accept}
    with open_call(running.stack.web, "POST", "/v1/drift:watch", body, **headers) as response:
        assert response.status == 200
        lines = filter(None, (line.strip() for line in response))
        messages = (json.loads(line.removeprefix(b"data: ")) for line in lines)
        first = next(messages)
        assert first["baselineBegin"]["snapshotId"] == snapshot.id
        parts = set()
        for message in messages:
            parts |= set(message)
            if "checkpoint" in message:
                break
        assert {"summary", "baselineEnd", "checkpoint"} <= parts
