"""A machine, its image, and stand-ins for the snapshot service, with one catalog."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from drey.catalog.v1 import catalog_pb2
from drey.common.v1 import state_pb2, value_pb2
from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat
from drey.internal.directory.v1 import directory_service_pb2 as directory_pb
from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey.snapshot.v1 import snapshot_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as snapshot_pb
from drey_ca.interface import ChannelTable
from drey_core.directory import CatalogPage, Directory, MetadataPage
from drey_core.errors import NotFound
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, shard_of_page
from drey_core.values import Columns, Kind, State
from drey_core.wire_columns import column_chunks
from drey_core.wire_values import wrap_payload
from drey_machine import Machine, SimPv
from drey_runtime.directory_codec import encode_catalog, encode_metadata
from drey_runtime.image import Image
from drey_testing.signing import in_the_name_of

EPOCH = 1


@dataclass
class FakeSnapshot:
    numbers: np.ndarray
    setpoint: Columns
    readback: Columns
    labels: dict[int, list[str]]


@dataclass
class RestoreWorld:
    """PV i (from 1) has the channels 2i (setpoint) and 2i + 1 (readback)."""

    rows: list[SimPv]
    table: ChannelTable
    image: Image
    shards: int = 1
    snapshots: dict[str, FakeSnapshot] = field(default_factory=dict)
    tolerances: dict[int, tuple[float, float]] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    policies: dict[int, Any] = field(default_factory=dict)
    version: int = 1
    golden: dict[tuple[str, str], str] = field(default_factory=dict)
    """Ids of snapshots by scope and label."""
    stored_addresses: dict[int, tuple[str, str]] = field(default_factory=dict)
    """(setpoint, readback) as snapshots have them, of PVs that were re-addressed since."""
    calls: int = 0
    namespace: str = ""
    beats: asyncio.Task[None] | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, reads of snapshots stand still; `at_gate` says that one does."""
    at_gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def connect(self) -> None:
        names, channels = [], []
        for i, row in enumerate(self.rows, 1):
            for channel, name in ((2 * i, row.setpoint), (2 * i + 1, row.readback)):
                if name:
                    names.append(name)
                    channels.append(channel)
        self.names, self.channels = names, np.array(channels, np.int64)
        self.slots = await self.table.add_channels(names)
        dead = {n for r in self.rows if r.kind == "dead" for n in (r.setpoint, r.readback)}
        live = np.array([n not in dead for n in names])
        up = await self.table.wait_connected(self.slots[live], 60)
        assert up.all(), "the machine is not all there"
        self.live = live
        last = int(channels[-1]) >> PAGE_SHIFT
        self.pages = np.arange(0, last + 1, dtype=np.int64)

    def number(self, row: SimPv) -> int:
        return self.rows.index(row) + 1

    def catalog_pages(self) -> list[CatalogPage]:
        pages = [CatalogPage.empty_page(int(n)) for n in self.pages]
        index = {int(c): n for c, n in zip(self.channels, self.names, strict=True)}
        for channel, name in index.items():
            i = channel // 2
            if i in self.deleted:
                continue
            page, slot, row = pages[channel >> PAGE_SHIFT], channel & PAGE_MASK, self.rows[i - 1]
            page.pv_number[slot] = i
            page.role[slot] = 1 + channel % 2
            page.protocol[slot] = 1
            page.read_only[slot] = row.read_only
            page.absolute[slot] = row.readback_abs_tolerance if channel % 2 else row.abs_tolerance
            page.relative[slot] = row.readback_rel_tolerance if channel % 2 else 0.0
            if i in self.tolerances and not channel % 2:
                page.absolute[slot], page.relative[slot] = self.tolerances[i]
            page.names[slot] = row.setpoint or row.readback
            page.addresses[slot] = name
            page.devices[slot] = row.device
        return pages

    async def read(self) -> Columns:
        """All channels by channel number; the dead ones as never connected."""
        found = await self.table.read_values(self.slots[self.live], 60)
        assert (found.code == 1).all()
        out = Columns.empty_columns(len(self.slots))
        out.state[:] = State.NEVER_CONNECTED
        at = np.flatnonzero(self.live)
        for name in ("kind", "state", "origin", "severity", "status", "source_time", "data"):
            getattr(out, name)[at] = getattr(found.values, name)
        out.receive_time[at] = found.values.receive_time
        return Columns(
            **{n: getattr(out, n) for n in Columns.__slots__ if n not in ("key", "heap")},
            key=self.channels,
            heap=found.values.heap,
        )

    async def publish(self, *, pretend: Sequence[int] = ()) -> Columns:
        """Make the image what the machine is now; of `pretend` say that they are connected."""
        values = await self.read()
        lies = np.isin(values.key, pretend)
        values.kind[lies], values.state[lies] = Kind.FLOAT64, State.CONNECTED
        table = PageTable(self.pages)
        table.apply_batch(values)
        now = time.time_ns()
        await self.beat()
        catalog = {p.number: encode_catalog(p) for p in self.catalog_pages()}
        metadata = {p.number: encode_metadata(p) for p in self.metadata_pages(pretend)}
        for shard in range(self.shards):
            mine = np.flatnonzero(shard_of_page(self.pages, self.shards) == shard)
            await self.image.write_pages(shard, EPOCH, 1, now, table.take_pages(mine))
            numbers = self.pages[mine].tolist()
            version = DirectoryVersion(
                shard=shard,
                epoch=EPOCH,
                version=self.version,
                pages=numbers,
                page_versions=[now] * len(numbers),
                catalog_version=self.version,
            )
            await self.image.write_directory(
                version, {n: catalog[n] for n in numbers}, {n: metadata[n] for n in numbers}
            )
        return values

    async def beat(self, *, image_failing: bool = False) -> None:
        for shard in range(self.shards):
            await self.image.write_heartbeat(
                Heartbeat(
                    shard=shard,
                    shard_count=self.shards,
                    epoch=EPOCH,
                    sequence=1,
                    time_ns=time.time_ns(),
                    image_failing=image_failing,
                )
            )

    async def beat_for_ever(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(0.5)

    def metadata_pages(self, pretend: Sequence[int] = ()) -> list[MetadataPage]:
        info = self.table.read_info(self.slots)
        pages = [MetadataPage.empty_page(int(n)) for n in self.pages]
        for i, channel in enumerate(self.channels.tolist()):
            page, slot = pages[channel >> PAGE_SHIFT], channel & PAGE_MASK
            page.kind[slot], page.count[slot] = info.kind[i], info.count[i]
            page.readable[slot], page.writable[slot] = info.readable[i], info.writable[i]
            page.limits[6, slot] = info.control_low[i]
            page.limits[7, slot] = info.control_high[i]
            page.hosts[slot] = info.host[i]
            if channel in pretend:
                page.kind[slot], page.count[slot], page.writable[slot] = Kind.FLOAT64, 1, 1
            if info.labels[i]:
                page.labels[slot] = info.labels[i]
        return pages

    async def take(self) -> str:
        """A snapshot of the machine as it is, by a read."""
        values = await self.read()
        snapshot_id = str(uuid.uuid4())
        labels = self.table.read_info(self.slots).labels
        numbers = np.arange(1, len(self.rows) + 1, dtype=np.int64)
        setpoint, readback = (
            _aligned(values, numbers * 2),
            _aligned(values, numbers * 2 + 1),
        )
        by_pv = {
            c // 2: [x.decode(errors="replace") for x in found]
            for c, found in zip(self.channels.tolist(), labels, strict=True)
            if found and c % 2 == 0
        }
        self.snapshots[snapshot_id] = FakeSnapshot(numbers, setpoint, readback, by_pv)
        return snapshot_id

    def resolve(self, selector: Any) -> np.ndarray:
        """The few ways to select that the tests use."""
        everything = np.arange(1, len(self.rows) + 1, dtype=np.int64)
        if selector.numbers:
            return np.array(sorted(selector.numbers), np.int64)
        if selector.names:
            wanted = set(selector.names)
            return np.array(
                [i for i, r in enumerate(self.rows, 1) if wanted & {r.setpoint, r.readback}],
                np.int64,
            )
        return everything


def _aligned(values: Columns, channels: np.ndarray) -> Columns:
    at = np.minimum(np.searchsorted(values.key, channels), len(values) - 1)
    out = values.take_rows(at)
    missing = values.key[at] != channels
    out.kind[missing] = 0
    out.state[missing] = 0
    out.data[missing] = 0
    return out.with_key(channels)


@dataclass
class RestoreSite:
    """Everything, and a client with the role of a restorer."""

    world: RestoreWorld
    machine: Machine
    stub: Any
    settings: Any
    keys: Path
    url: str
    port: int

    def metadata(
        self, name: str = "ann", roles: tuple[str, ...] = ("operator", "restorer", "approver")
    ) -> Any:
        return in_the_name_of(name, *roles)

    async def call(self, method: str, request: Any, **who: Any) -> Any:
        return await getattr(self.stub, method)(request, timeout=60, metadata=self.metadata(**who))

    async def stream(self, method: str, request: Any) -> list[Any]:
        call = getattr(self.stub, method)(request, timeout=60, metadata=self.metadata())
        return [message async for message in call]

    async def plan(self, snapshot_id: str, request_id: str = "", **more: Any) -> restore_pb2.Plan:
        state = state_pb2.StateRef(snapshot_id=snapshot_id)
        spec = restore_pb2.PlanSpec(state=state, **more)
        request = pb.CreatePlanRequest(spec=spec, request_id=request_id)
        found: restore_pb2.Plan = (await self.call("CreatePlan", request)).plan
        return found

    async def plan_items(self, plan_id: str, **more: Any) -> dict[str, restore_pb2.PlanItem]:
        found = await self.stream("ReadPlan", pb.ReadPlanRequest(id=plan_id, **more))
        return {item.name: item for message in found for item in message.items}

    async def execute(self, plan: restore_pb2.Plan, **more: Any) -> restore_pb2.Restore:
        more.setdefault("request_id", str(uuid.uuid4()))
        request = pb.ExecutePlanRequest(plan_id=plan.id, digest=plan.digest, **more)
        found: restore_pb2.Restore = (await self.call("ExecutePlan", request)).restore
        return found

    async def ended(self, restore_id: str) -> restore_pb2.Restore:
        found = await self.stream("WatchRestore", pb.WatchRestoreRequest(id=restore_id))
        last: restore_pb2.Restore = found[-1].restore
        return last

    async def items(self, restore_id: str) -> dict[str, restore_pb2.RestoreItem]:
        found = await self.stream("ReadRestore", pb.ReadRestoreRequest(id=restore_id))
        return {item.name: item for message in found for item in message.items}


class SnapshotStandIn:
    """`SnapshotService.ReadSnapshot` over a world; the rest is not there."""

    def __init__(self, world: RestoreWorld) -> None:
        self.world = world

    def __getattr__(self, name: str) -> Any:
        async def missing(request: Any, context: Any) -> Any:
            raise NotFound(name)

        return missing

    async def ListSnapshots(self, request: Any, context: Any) -> Any:
        assert request.golden_only
        marks: dict[str, list[snapshot_pb2.GoldenMark]] = {}
        for (scope, label), snapshot_id in self.world.golden.items():
            mark = snapshot_pb2.GoldenMark(scope=scope, label=label)
            marks.setdefault(snapshot_id, []).append(mark)
        return snapshot_pb.ListSnapshotsResponse(
            snapshots=[snapshot_pb2.Snapshot(id=i, golden_marks=m) for i, m in marks.items()]
        )

    def _addresses(self, number: int) -> tuple[str, str]:
        row = self.world.rows[number - 1]
        return self.world.stored_addresses.get(number, (row.setpoint, row.readback))

    async def ReadSnapshot(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if not self.world.gate.is_set():
            self.world.at_gate.set()
            await self.world.gate.wait()
        found = self.world.snapshots.get(request.id)
        if found is None:
            raise NotFound(f"no snapshot {request.id}", field="id")
        numbers = found.numbers
        if request.HasField("selector"):
            numbers = np.intersect1d(numbers, self.world.resolve(request.selector))
        header = snapshot_pb2.Snapshot(id=request.id)
        yield snapshot_pb.ReadSnapshotResponse(header=header)
        if request.with_metadata:
            pvs = [
                snapshot_pb.PvMetadata(
                    number=n,
                    name=self.world.rows[n - 1].setpoint or self.world.rows[n - 1].readback,
                    setpoint=value_pb2.ChannelMetadata(
                        enum_labels=found.labels.get(n, []), address=self._addresses(n)[0]
                    ),
                    readback=value_pb2.ChannelMetadata(address=self._addresses(n)[1]),
                )
                for n in numbers.tolist()
            ]
            yield snapshot_pb.ReadSnapshotResponse(metadata=snapshot_pb.MetadataChunk(pvs=pvs))
        at = numbers - 1
        for role, columns in ((1, found.setpoint.take_rows(at)), (2, found.readback.take_rows(at))):
            there = columns.state != 0
            part = columns.take_rows(there)
            roles = np.full(len(part), role, np.uint8)
            # a channel that is re-addressed gets a number of its own, and the old one stays behind
            changed = np.isin(numbers[there], list(self.world.stored_addresses))
            part = part.with_key(part.key + 1_000_000 * changed)
            for raw in column_chunks(numbers[there], roles, part):
                yield wrap_payload(4, raw)


class DirectoryStandIn:
    """`DirectoryService` over a world."""

    def __init__(self, world: RestoreWorld) -> None:
        self.world = world

    async def GetCatalogPages(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.world.calls += 1
        if request.since_version < self.world.version:
            yield directory_pb.GetCatalogPagesResponse(
                version=self.world.version,
                pages=[encode_catalog(p) for p in self.world.catalog_pages()],
            )

    async def GetRestorePolicies(self, request: Any, context: Any) -> AsyncIterator[Any]:
        policies = dict(sorted(self.world.policies.items()))
        yield directory_pb.GetRestorePoliciesResponse(
            pv_numbers=list(policies),
            policy_indexes=range(len(policies)),
            policies=[
                directory_pb.EffectivePolicy(
                    policy=policy,
                    sources=[
                        catalog_pb2.PolicySource(
                            policy_field=field.name, pv=catalog_pb2.PolicyOfPv()
                        )
                        for field, _ in policy.ListFields()
                    ],
                )
                for policy in policies.values()
            ],
        )

    async def ResolveChannels(self, request: Any, context: Any) -> AsyncIterator[Any]:
        numbers = self.world.resolve(request.selector)
        yield directory_pb.ResolveChannelsResponse(
            version=self.world.version, pv_numbers=numbers.tolist()
        )


def directory_of(world: RestoreWorld) -> Directory:
    return Directory.from_pages(world.version, world.catalog_pages())
