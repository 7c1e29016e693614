"""The main job through the gateway: watch, snapshot, disturb, compare, plan, restore, verify."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import grpc
import pytest

from drey.common.v1 import state_pb2
from drey.compare.v1 import compare_pb2, compare_service_pb2, compare_service_pb2_grpc
from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from drey_cli.demo import plain_data
from drey_client import value_of
from tests.e2e.conftest import EVERYTHING, PVS, Running

DISTURBED = 40


def _restores(running: Running) -> restore_service_pb2_grpc.RestoreServiceStub:
    return restore_service_pb2_grpc.RestoreServiceStub(running.channel)


def _summary(running: Running, reference: str) -> compare_pb2.ComparisonSummary:
    request = compare_service_pb2.CompareRequest(
        spec=compare_pb2.ComparisonSpec(
            reference=state_pb2.StateRef(snapshot_id=reference),
            others=[state_pb2.StateRef(live=state_pb2.LiveState())],
        ),
        summary_only=True,
    )
    stub = compare_service_pb2_grpc.CompareServiceStub(running.channel)
    header, _ = stub.Compare(request, **running.call())
    return header.header.summaries[0]


def _different_setpoints(running: Running, reference: str) -> int:
    return sum(
        c.setpoints
        for c in _summary(running, reference).counts
        if c.difference_class == compare_pb2.DIFFERENCE_CLASS_DIFFERENT
    )


def _plan(running: Running, snapshot_id: str) -> restore_pb2.Plan:
    request = restore_service_pb2.CreatePlanRequest(
        spec=restore_pb2.PlanSpec(state=state_pb2.StateRef(snapshot_id=snapshot_id)),
        request_id=str(uuid4()),
    )
    return _restores(running).CreatePlan(request, **running.call()).plan


def _execute(running: Running, plan: restore_pb2.Plan, request_id: str) -> restore_pb2.Restore:
    request = restore_service_pb2.ExecutePlanRequest(
        plan_id=plan.id, digest=plan.digest, request_id=request_id
    )
    restore = _restores(running).ExecutePlan(request, **running.call("RESTORER")).restore
    watch = restore_service_pb2.WatchRestoreRequest(id=restore.id)
    for response in _restores(running).WatchRestore(watch, **running.call(timeout=400)):
        restore = response.restore
    return restore


def _verdicts(restore: restore_pb2.Restore) -> dict[str, int]:
    return {
        restore_pb2.Verdict.Name(c.verdict).removeprefix("VERDICT_"): c.pvs
        for c in restore.verdicts
        if c.pvs
    }


def _setpoints(running: Running, snapshot_id: str) -> dict[str, Any]:
    request = snapshot_service_pb2.ReadSnapshotRequest(id=snapshot_id)
    rows: dict[str, Any] = {}
    for response in running.snapshots.ReadSnapshot(request, **running.call()):
        for row in response.rows.rows:
            if row.HasField("setpoint"):
                rows[row.name] = plain_data(value_of(row.setpoint).data)
    return rows


def test_a_disturbed_machine_is_put_back_and_proved(running: Running) -> None:
    before = running.take("before")
    assert before.pv_count == PVS
    assert before.counts.connected > 400
    running.do(running.machine.run("disturb", "--count", str(DISTURBED)))
    running.pump(lambda: _different_setpoints(running, before.id) >= DISTURBED)

    plan = _plan(running, before.id)
    assert DISTURBED <= plan.writes < DISTURBED + 20
    assert plan.writes + sum(s.pvs for s in plan.skips) == plan.pvs
    skips = {restore_pb2.SkipReason.Name(s.reason) for s in plan.skips}
    assert {"SKIP_REASON_EQUAL", "SKIP_REASON_NO_SETPOINT"} <= skips

    request_id = str(uuid4())
    restore = _execute(running, plan, request_id)
    verdicts = _verdicts(restore)
    assert restore.state == restore_pb2.RESTORE_STATE_COMPLETED
    assert verdicts.get("VERIFIED", 0) >= DISTURBED, verdicts
    assert sum(verdicts.values()) == plan.pvs
    # the image follows the machine by a tick
    running.pump(lambda: _different_setpoints(running, before.id) <= plan.writes - DISTURBED)

    again = _restores(running).ExecutePlan(
        restore_service_pb2.ExecutePlanRequest(
            plan_id=plan.id, digest=plan.digest, request_id=request_id
        ),
        **running.call("RESTORER"),
    )
    assert again.restore.id == restore.id, "a repeat writes nothing"


def test_a_plan_is_executed_once_and_by_its_digest(running: Running) -> None:
    before = running.take()
    running.do(running.machine.run("disturb", "--count", "5", "--seed", "7"))
    running.pump(lambda: _different_setpoints(running, before.id) >= 5)
    plan = _plan(running, before.id)
    wrong = restore_service_pb2.ExecutePlanRequest(
        plan_id=plan.id, digest="0" * 64, request_id=str(uuid4())
    )
    with pytest.raises(grpc.RpcError) as caught:
        _restores(running).ExecutePlan(wrong, **running.call("RESTORER"))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    _execute(running, plan, str(uuid4()))
    with pytest.raises(grpc.RpcError) as caught:
        _execute(running, plan, str(uuid4()))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_a_forced_read_agrees_with_the_image(running: Running) -> None:
    image = running.take()
    response = running.snapshots.TakeSnapshot(
        snapshot_service_pb2.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(
                selector=EVERYTHING,
                source=snapshot_pb2.SNAPSHOT_SOURCE_READ,
                gates=snapshot_pb2.Gates(any_missing={}),
            ),
            request_id=str(uuid4()),
        ),
        **running.call(),
    )
    read = response.snapshot
    assert read.source == snapshot_pb2.SNAPSHOT_SOURCE_READ
    assert read.counts.connected == image.counts.connected
    by_image, by_read = _setpoints(running, image.id), _setpoints(running, read.id)
    assert by_image.keys() == by_read.keys()
    same = sum(repr(by_image[name]) == repr(by_read[name]) for name in by_image)
    assert same > 0.95 * len(by_image), "only what moves by itself may differ"


def test_a_repeated_request_takes_one_snapshot(running: Running) -> None:
    request = snapshot_service_pb2.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(
            selector=EVERYTHING, gates=snapshot_pb2.Gates(any_missing={})
        ),
        request_id=str(uuid4()),
    )
    first = running.snapshots.TakeSnapshot(request, **running.call())
    second = running.snapshots.TakeSnapshot(request, **running.call())
    assert first.snapshot.id == second.snapshot.id
    request.spec.title_template = "another request"
    with pytest.raises(grpc.RpcError) as caught:
        running.snapshots.TakeSnapshot(request, **running.call())
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS


def test_dead_channels_are_missing_by_name_and_refuse_a_snapshot(running: Running) -> None:
    request = snapshot_service_pb2.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING), request_id=str(uuid4())
    )
    with pytest.raises(grpc.RpcError) as caught:
        running.snapshots.TakeSnapshot(request, **running.call())
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    taken = running.take()
    missing = snapshot_service_pb2.ReadSnapshotRequest(id=taken.id, only_missing=True)
    names = [
        row.name
        for response in running.snapshots.ReadSnapshot(missing, **running.call())
        for row in response.rows.rows
    ]
    assert names
    assert all(name.startswith("GONE") for name in names), names
