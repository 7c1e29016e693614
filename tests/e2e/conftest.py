"""One running stack with a simulated machine, for all end-to-end tests of a worker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import grpc
import pytest

from drey.access.v1 import access_pb2, access_service_pb2, access_service_pb2_grpc
from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey.common.v1 import selector_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2, snapshot_service_pb2_grpc
from drey_core.permissions import ADMIN, ROLES
from drey_stack import HttpOptions
from drey_stack.simulated import SimulatedMachine
from drey_stack.whole import Stack, StackOptions
from drey_testing.leaks import Keeper, Resources, connections_of, keep, keep_threads
from tests.e2e.collector import THREADS, Collector, collecting

T = TypeVar("T")

SHARDS = 3
"""The demo, and what is tested with it, has one."""
PVS = 300
APPROVED = "APPROVED:"
"""PVs whose names begin so are restored by two persons; the machine's own are not."""
ORIGIN = "https://screens.example.org"
"""A site whose pages may call."""
EVERYTHING = selector_pb2.Selector(all=True)
OPTIONS = [
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 32 << 20),
    ("grpc.enable_http_proxy", 0),
]


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that share the one stack run on one worker; others have stacks of their own."""
    for item in items:
        shares = "running" in getattr(item, "fixturenames", ())
        if shares and "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.xdist_group("e2e"))


@dataclass
class Running:
    """What a test gets. `keys` by role name; calls are made over `channel`."""

    stack: Stack
    machine: SimulatedMachine
    channel: grpc.Channel
    keys: dict[str, str]
    loop: asyncio.AbstractEventLoop
    collector: Collector

    def metadata(self, role: str = "ADMIN") -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.keys[role]}"),)

    def call(self, role: str = "ADMIN", timeout: float = 200.0) -> dict[str, Any]:
        return {"metadata": self.metadata(role), "timeout": timeout}

    @property
    def catalog(self) -> catalog_service_pb2_grpc.CatalogServiceStub:
        return catalog_service_pb2_grpc.CatalogServiceStub(self.channel)

    @property
    def snapshots(self) -> snapshot_service_pb2_grpc.SnapshotServiceStub:
        return snapshot_service_pb2_grpc.SnapshotServiceStub(self.channel)

    @property
    def monitor(self) -> monitor_service_pb2_grpc.MonitorServiceStub:
        return monitor_service_pb2_grpc.MonitorServiceStub(self.channel)

    def pump(self, until: Callable[[], bool], seconds: float = 300.0) -> None:
        """Drive the stack's event loop (it restarts what dies) until a condition holds."""

        async def waiting() -> None:
            async with asyncio.timeout(seconds):
                while not until():
                    await asyncio.sleep(0.02)

        self.loop.run_until_complete(waiting())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the stack's event loop."""
        return self.loop.run_until_complete(work)

    def take(self, title: str = "") -> snapshot_pb2.Snapshot:
        response = self.snapshots.TakeSnapshot(
            snapshot_service_pb2.TakeSnapshotRequest(
                spec=snapshot_pb2.SnapshotSpec(
                    selector=EVERYTHING,
                    gates=snapshot_pb2.Gates(any_missing={}),
                    title_template=title,
                ),
                request_id=str(uuid4()),
            ),
            **self.call(),
        )
        assert response.HasField("snapshot"), response.job
        return response.snapshot


async def _run(
    folder: Path,
    ready: asyncio.Future[tuple[Stack, SimulatedMachine]],
    stop: asyncio.Event,
    collector: Collector,
) -> None:
    telemetry = {
        "DREY_OTLP_ENDPOINT": collector.endpoint,
        "DREY_METRICS_LISTEN": "127.0.0.1:0",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    async with SimulatedMachine(folder / "machine", PVS) as machine:
        options = StackOptions(
            folder / "state",
            epics=machine.environment,
            environment={**telemetry, "DREY_RESTORE_APPROVAL_REQUIRED": f"{APPROVED}*"},
            http=HttpOptions(origins=[ORIGIN]),
            fsync=False,
            shards=SHARDS,
        )
        async with Stack(options) as stack:
            ready.set_result((stack, machine))
            await stop.wait()


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The stack: catalog imported, every channel that is to be had connected.

    Its event loop runs only inside `pump` and `do`, in the main thread, to which the children
    belong; the services are processes of their own and do not need it.
    """
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready: asyncio.Future[tuple[Stack, SimulatedMachine]] = loop.create_future()
    folder = tmp_path_factory.mktemp("e2e")
    with collecting() as collector:
        life = loop.create_task(_run(folder, ready, stop, collector))
        try:
            futures: set[asyncio.Future[Any]] = {ready, life}
            both = asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            loop.run_until_complete(both)
            if life.done():
                life.result()
            stack, machine = ready.result()
            with grpc.insecure_channel(stack.server, options=OPTIONS) as channel:
                keys = {"ADMIN": stack.key}
                found = Running(stack, machine, channel, keys, loop, collector)
                _make_keys(found)
                _import(found)
                _settle(found)
                with keep(keep_started_again(found)), keep(keep_threads(THREADS)):
                    yield found
        finally:
            stop.set()
            if not life.done():
                loop.run_until_complete(life)
            loop.close()


def keep_started_again(running: Running) -> Keeper:
    """What the stack starts again when a test has killed it, and what connects again then.

    That is: processes of the stack; their exporters at our collector; our channel at the gateway.
    """
    stack = running.stack
    collector = int(running.collector.endpoint.rpartition(":")[2])
    gateway = int(stack.server.rpartition(":")[2])

    def chosen(left: Resources) -> Resources:
        parts = [stack.postgres, stack.nats, stack.valkey, stack.envoy]
        pids = {status.pid for status in stack.supervisor.child_statuses()}
        pids |= {part.pid for part in parts if part is not None}
        connections = connections_of(left.sockets).items()
        exporters = [name for name, c in connections if c and c.laddr.port == collector]
        channels = [name for name, c in connections if c and c.raddr and c.raddr.port == gateway]
        sockets = frozenset([*exporters, *channels[:1]])
        return Resources(sockets=sockets, processes=left.processes & pids)

    return chosen


def _make_keys(running: Running) -> None:
    stub = access_service_pb2_grpc.AccessServiceStub(running.channel)
    for role in (*(name.upper() for name in ROLES if name != ADMIN), "REVOKED"):
        grant = access_pb2.Grant(role=role.replace("REVOKED", ADMIN).lower())
        created = stub.CreateKey(
            access_service_pb2.CreateKeyRequest(name=f"test {role}", grants=[grant]),
            **running.call(),
        )
        running.keys[role] = created.secret
        if role == "REVOKED":
            stub.RevokeKey(access_service_pb2.RevokeKeyRequest(id=created.key.id), **running.call())


def _import(running: Running) -> None:
    content = running.machine.catalog.read_bytes()
    requests = [
        catalog_service_pb2.ImportPvsRequest(
            options=catalog_service_pb2.ImportOptions(
                format=catalog_pb2.FILE_FORMAT_CSV, request_id=str(uuid4())
            )
        ),
        catalog_service_pb2.ImportPvsRequest(data=content),
    ]
    *_, last = running.catalog.ImportPvs(iter(requests), **running.call())
    assert last.summary.applied, last
    assert last.summary.added == PVS


def _settle(running: Running) -> None:
    dead = len(json.loads((running.machine.folder / "machine.json").read_text())["dead"])
    end = time.monotonic() + 500
    while time.monotonic() < end:
        status = running.monitor.GetMonitorStatus(
            monitor_service_pb2.GetMonitorStatusRequest(), **running.call()
        )
        channels = sum(s.channels for s in status.shards)
        connected = sum(s.connected for s in status.shards)
        if channels and connected >= channels - dead:
            return
        time.sleep(0.05)
    raise AssertionError(f"{connected} of {channels} channels are connected")
