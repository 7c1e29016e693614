"""Something is killed, and the design's table of deaths says what users see."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from uuid import uuid4

import grpc
import pytest

from drey.common.v1 import selector_pb2, value_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from drey_stack.part import Part
from tests.e2e.conftest import EVERYTHING, OPTIONS, Running


class Watcher:
    """Watches everything in a thread of its own, connecting again with its token when cut."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.rows: dict[str, value_pb2.PvRow] = {}
        self.diff_rows = 0
        self.epochs: set[int] = set()
        self.freshness: list[int] = []
        self.stalled: list[bool] = []
        self.connections = 0
        self.keeps_state: list[bool] = []
        self.token = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failures: list[BaseException] = []

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with grpc.insecure_channel(self._running.stack.server, options=OPTIONS) as channel:
                    self._watch(channel)
            except grpc.RpcError as error:
                code = error.code()
                if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                    self.failures.append(error)
                    return
                self._stop.wait(0.2)

    def _watch(self, channel: grpc.Channel) -> None:
        stub = monitor_service_pb2_grpc.MonitorServiceStub(channel)
        request = monitor_service_pb2.WatchPvsRequest(
            spec={"selector": EVERYTHING}, token=self.token
        )
        call = stub.WatchPvs(request, metadata=self._running.metadata())
        for message in call:
            self._fold(message)
            if self._stop.is_set():
                call.cancel()
                return

    def _fold(self, message: monitor_service_pb2.WatchPvsResponse) -> None:
        part = message.WhichOneof("part")
        if part == "baseline_begin":
            self.connections += 1
            self.keeps_state.append(message.baseline_begin.keeps_state)
            if not message.baseline_begin.keeps_state:
                self.rows.clear()
        elif part == "baseline":
            self._hold(message.baseline.rows)
        elif part == "baseline_end":
            self.token = message.baseline_end.token
        elif part == "diff":
            self._hold(message.diff.rows)
            self.diff_rows += len(message.diff.rows)
        elif part == "checkpoint":
            self.token = message.checkpoint.token
            self.epochs |= {s.epoch for s in message.checkpoint.shards}
            self.stalled.append(message.checkpoint.stalled)
        elif part == "freshness":
            self.freshness.append(message.freshness.freshness)

    def _hold(self, rows: Iterable[value_pb2.PvRow]) -> None:
        """A row has the channels that changed; the others are as they were."""
        for row in rows:
            held = self.rows.setdefault(row.name, row)
            for role in ("setpoint", "readback"):
                if row.HasField(role):
                    getattr(held, role).CopyFrom(getattr(row, role))


@pytest.fixture
def watcher(running: Running) -> Iterator[Watcher]:
    with Watcher(running) as found:
        running.pump(lambda: len(found.rows) == 300 and found.diff_rows > 0)
        yield found
    assert not found.failures


def _moves(watcher: Watcher) -> Callable[[], bool]:
    """A condition: further diffs have come."""
    seen = watcher.diff_rows
    return lambda: watcher.diff_rows > seen + 5


def test_a_killed_monitor_is_replaced_without_a_reconnect(
    running: Running, watcher: Watcher
) -> None:
    running.pump(lambda: bool(watcher.epochs))
    epoch = max(watcher.epochs)
    running.stack.supervisor.kill("monitor")
    running.pump(lambda: max(watcher.epochs) > epoch)
    running.pump(_moves(watcher))
    # a successor that is quicker than the mark of silence is never seen as stale
    running.pump(lambda: watcher.freshness[-1:] in ([], [value_pb2.FRESHNESS_FRESH]))
    assert watcher.connections == 1
    assert len(watcher.rows) == 300


def test_a_silent_monitor_is_stale_then_fresh(running: Running, watcher: Watcher) -> None:
    running.stack.supervisor.kill("monitor", signal.SIGSTOP)
    running.pump(lambda: value_pb2.FRESHNESS_STALE in watcher.freshness)
    running.stack.supervisor.kill("monitor", signal.SIGCONT)
    running.pump(lambda: watcher.freshness[-1] == value_pb2.FRESHNESS_FRESH)
    running.pump(_moves(watcher))
    assert watcher.connections == 1


def test_a_killed_gateway_is_found_again_and_nothing_is_wrong(
    running: Running, watcher: Watcher
) -> None:
    running.pump(lambda: bool(watcher.token))
    running.stack.supervisor.kill("gateway")
    running.pump(lambda: watcher.connections >= 2)
    running.pump(_moves(watcher))
    assert len(watcher.rows) == 300
    fresh = running.monitor.GetValues(
        monitor_service_pb2.GetValuesRequest(selector=selector_pb2.Selector(globs=["QUAD*:BDES"])),
        **running.call(),
    )
    for response in fresh:
        for row in response.rows:
            assert watcher.rows[row.name].setpoint.float64_value == row.setpoint.float64_value


def _revive(running: Running, part: Part) -> None:
    """Kill a part; the stack starts it again."""
    pid = part.pid
    running.do(part.kill())
    running.pump(lambda: part.running and part.pid != pid)


def test_watching_goes_on_without_postgres_and_taking_says_so(
    running: Running, watcher: Watcher
) -> None:
    pid = running.stack.postgres.pid
    running.do(running.stack.postgres.kill())
    with pytest.raises(grpc.RpcError) as caught:
        running.snapshots.TakeSnapshot(
            snapshot_service_pb2.TakeSnapshotRequest(
                spec=snapshot_pb2.SnapshotSpec(
                    selector=EVERYTHING, gates=snapshot_pb2.Gates(any_missing={})
                ),
                request_id=str(uuid4()),
            ),
            **running.call(),
        )
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    running.pump(lambda: running.stack.postgres.running and running.stack.postgres.pid != pid)
    running.pump(_moves(watcher))
    assert watcher.connections == 1
    running.pump(lambda: _takes(running))


def test_nats_away_is_stalled_then_goes_on(running: Running, watcher: Watcher) -> None:
    _revive(running, running.stack.nats)
    running.pump(_moves(watcher))
    running.pump(lambda: not watcher.stalled[-1])
    assert watcher.connections == 1


def test_redis_wiped_is_rewritten(running: Running, watcher: Watcher) -> None:
    _revive(running, running.stack.valkey)
    running.pump(lambda: _takes(running))
    taken = running.take("after the wipe")
    assert taken.counts.connected > 400
    running.pump(_moves(watcher))
    assert watcher.connections == 1


def _takes(running: Running) -> bool:
    """Whether a snapshot can be taken; only being away, or not fresh yet, may hinder it."""
    try:
        running.take()
    except grpc.RpcError as error:
        code = error.code()
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION), error
        return False
    return True
