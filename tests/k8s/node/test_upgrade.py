"""A rolling upgrade of everything under a watch and a loop of snapshots; wrong values before it."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from typing import Any, Self

import grpc
import pytest

from drey.catalog.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from drey.common.v1 import selector_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.restore.v1 import restore_service_pb2, restore_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2, snapshot_service_pb2_grpc
from drey_runtime.status import reason_of
from tests.k8s.node.site import CHART, ROOT, SERVICES, Site, timed, until
from tests.k8s.node.watching import BusListener, Watcher

pytestmark = pytest.mark.node
TRIES = 4
"""`maxAttempts` of the published policy."""
HAND_OVER_S = 60.0
"""In which a shard gets its next owner, on a machine of any pace."""


class CallLoop:
    """Makes one call after the other, repeated as the published policy says.

    Use as a context manager.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.made = 0
        self.failed = Counter[str]()

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self.made or self.failed, f"calls of {type(self).__name__}")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def call_once(self, channel: grpc.Channel) -> None:
        """One of them."""
        raise NotImplementedError

    def _run(self) -> None:
        policy = (ROOT / "proto/service_config.json").read_text()
        with self._site.channel(("grpc.service_config", policy)) as channel:
            while not self._over.wait(0.2):
                try:
                    self.call_once(channel)
                    self.made += 1
                except grpc.RpcError as error:
                    self.failed[f"{error.code().name}: {error.details()}"] += 1


class SnapshotLoop(CallLoop):
    """Takes snapshots; where the answer says that a shard is between two owners, again."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.told_to_wait = 0
        self.connected = Counter[int]()
        """How many snapshots have so many channels connected."""

    def call_once(self, channel: grpc.Channel) -> None:
        stub = snapshot_service_pb2_grpc.SnapshotServiceStub(channel)
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
                taken = stub.TakeSnapshot(request, metadata=self._site.metadata(), timeout=60)
                if taken.HasField("snapshot"):  # or its job goes on
                    self.connected[taken.snapshot.counts.connected] += 1
                return
            except grpc.RpcError as error:
                # nothing is taken of a shard between two owners: the answer says to try again
                if reason_of(error)[0] != "IMAGE_NOT_FRESH" or time.monotonic() > end:
                    raise
                self.told_to_wait += 1
                time.sleep(0.5)


class ReadLoop(CallLoop):
    """Reads from each service in turn, through the gateway."""

    def call_once(self, channel: grpc.Channel) -> None:
        sent: dict[str, Any] = {"metadata": self._site.metadata(), "timeout": 60}
        values = monitor_service_pb2.GetValuesRequest(
            selector=selector_pb2.Selector(names=["COUNT:0000"])
        )
        for row in monitor_service_pb2_grpc.MonitorServiceStub(channel).GetValues(values, **sent):
            assert row
        pvs = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        assert pvs.ListPvs(catalog_service_pb2.ListPvsRequest(page_size=5), **sent).pvs
        plans = restore_service_pb2_grpc.RestoreServiceStub(channel)
        plans.ListPlans(restore_service_pb2.ListPlansRequest(page_size=5), **sent)


def test_wrong_values_change_nothing(site: Site) -> None:
    before = site.helm("history", "drey", "--namespace", "drey", "-o", "json")
    for wrong, said in (("monitor.replicas=0", "replicas"), ("shardz=1", "shardz")):
        with pytest.raises(RuntimeError, match=said):
            site.helm("upgrade", "drey", str(CHART), *site.values(), "--set", wrong)
    assert site.helm("history", "drey", "--namespace", "drey", "-o", "json") == before


def test_everything_is_upgraded_under_load(site: Site) -> None:
    site.wait_connected()
    pods = {name for service in SERVICES for name in site.pods(service)}
    gateways = len(site.pods("gateway"))
    with (
        Watcher(site) as watcher,
        BusListener(site) as bus,
        SnapshotLoop(site) as snapshots,
        ReadLoop(site) as reads,
    ):
        with timed("helm upgrade"):
            site.upgrade("--set-json", 'settings.common.log_level="WARNING"')
        watcher.wait_updates("the upgrade")
        made = snapshots.made, reads.made
        until(lambda: snapshots.made > made[0] + 2, "snapshots go on")
        until(lambda: reads.made > made[1] + 2, "reads go on")
        watcher.check("helm upgrade")
        bus.check()
    now = {name for service in SERVICES for name in site.pods(service)}
    assert not pods & now, "every pod is a new one"
    print(
        f"snapshots taken {snapshots.made}, told to wait for a shard's owner"
        f" {snapshots.told_to_wait} times; rounds of reads {reads.made}; watcher told that values"
        f" are not fresh {watcher.told_stale} times"
    )
    assert not snapshots.failed, snapshots.failed
    assert not reads.failed, reads.failed
    # no hand-over shows a channel as lost that is not
    assert len(snapshots.connected) == 1, snapshots.connected
    # a stream ends with its gateway, and goes on at the next within the policy's tries
    assert set(watcher.count.ended) <= {"UNAVAILABLE"}, watcher.count.ended
    assert watcher.count.ended.total() <= gateways * TRIES, watcher.count.ended
