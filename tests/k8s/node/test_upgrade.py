"""A rolling upgrade of everything under a watch and a loop of snapshots; wrong values before it."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter

import grpc
import pytest

from drey.common.v1 import selector_pb2
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2, snapshot_service_pb2_grpc
from drey_runtime.status import reason_of
from tests.k8s.node.site import CHART, ROOT, SERVICES, Site, timed, until
from tests.k8s.node.watching import BusListener, Watcher

pytestmark = pytest.mark.node
HAND_OVER_S = 60.0
"""In which a shard gets its next owner, on a machine of any pace."""


class SnapshotLoop:
    """Takes one snapshot after the other.

    Calls are repeated as the published policy says, and where the answer itself says so.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.taken = self.told_to_wait = 0
        self.failed = Counter[str]()

    def __enter__(self) -> SnapshotLoop:
        self._thread.start()
        until(lambda: self.taken, "snapshots are taken")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        policy = (ROOT / "proto/service_config.json").read_text()
        with self._site.channel(("grpc.service_config", policy)) as channel:
            stub = snapshot_service_pb2_grpc.SnapshotServiceStub(channel)
            while not self._over.wait(0.2):
                try:
                    self._take(stub)
                    self.taken += 1
                except grpc.RpcError as error:
                    self.failed[f"{error.code().name}: {error.details()}"] += 1

    def _take(self, stub: snapshot_service_pb2_grpc.SnapshotServiceStub) -> None:
        request = snapshot_service_pb2.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(
                selector=selector_pb2.Selector(all=True),
                gates=snapshot_pb2.Gates(any_missing={}),
            ),
            request_id=str(uuid.uuid4()),
        )
        end = time.monotonic() + HAND_OVER_S
        while True:
            try:
                stub.TakeSnapshot(request, metadata=self._site.metadata(), timeout=60)
                return
            except grpc.RpcError as error:
                # nothing is taken of a shard between two owners: the answer says to try again
                if reason_of(error)[0] != "IMAGE_NOT_FRESH" or time.monotonic() > end:
                    raise
                self.told_to_wait += 1
                time.sleep(0.5)


def test_wrong_values_change_nothing(site: Site) -> None:
    before = site.helm("history", "drey", "--namespace", "drey", "-o", "json")
    for wrong, said in (("monitor.replicas=0", "replicas"), ("shardz=1", "shardz")):
        with pytest.raises(RuntimeError, match=said):
            site.helm("upgrade", "drey", str(CHART), *site.values(), "--set", wrong)
    assert site.helm("history", "drey", "--namespace", "drey", "-o", "json") == before


def test_everything_is_upgraded_under_load(site: Site) -> None:
    pods = {name for service in SERVICES for name in site.pods(service)}
    with Watcher(site) as watcher, BusListener(site) as bus, SnapshotLoop(site) as loop:
        with timed("helm upgrade"):
            site.upgrade("--set-json", 'settings.common.log_level="WARNING"')
        watcher.wait_updates("the upgrade")
        taken = loop.taken
        until(lambda: loop.taken > taken + 2, "snapshots go on")
        watcher.check("helm upgrade")
        bus.check()
    now = {name for service in SERVICES for name in site.pods(service)}
    assert not pods & now, "every pod is a new one"
    print(
        f"snapshots taken {loop.taken}, told to wait for a shard's owner {loop.told_to_wait} times"
    )
    assert not loop.failed, loop.failed
