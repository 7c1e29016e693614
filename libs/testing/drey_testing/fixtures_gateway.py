"""A rig around gateway processes: real servers, and a publisher in the place of the monitors."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from drey.common.v1 import value_pb2
from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat
from drey.internal.reference.v1 import reference_service_pb2
from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT, CatalogPage, MetadataPage
from drey_core.errors import NotFound, Unavailable
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS, shard_of_page
from drey_core.slot_sequences import SlotSequences
from drey_core.values import Columns, Kind, Origin, State
from drey_core.wire_columns import column_chunks
from drey_runtime.auth import make_keys
from drey_runtime.batches import encode_batches
from drey_runtime.bus import Bus
from drey_runtime.directory_codec import encode_catalog, encode_metadata
from drey_runtime.image import Image
from drey_stack import Nats, Valkey, free_port

WATCHES, EVENTS = "drey.monitor.v1.MonitorService", "drey.event.v1.EventService"
START = 1_700_000_000_000_000_000
C = TypeVar("C")


async def eventually(
    condition: Callable[[], Awaitable[bool]], what: str, timeout: float = 300.0
) -> float:
    """Wait until `condition` holds; the seconds it took. AssertionError naming `what`."""
    began = time.monotonic()
    while time.monotonic() - began < timeout:
        if await condition():
            return time.monotonic() - began
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within {timeout} s")


def name_of(pv: int) -> str:
    """Name of the rig's PV with this number."""
    return f"PV:{pv:05d}"


def catalog_pages(pvs: int) -> list[CatalogPage]:
    """PV n (from 1) has setpoint 256 + 2n and readback 256 + 2n + 1; device D0 to D9."""
    pages: dict[int, CatalogPage] = {}
    for pv in range(1, pvs + 1):
        for role, channel in ((ROLE_SETPOINT, 256 + 2 * pv), (ROLE_READBACK, 257 + 2 * pv)):
            number, slot = channel >> PAGE_SHIFT, channel & PAGE_MASK
            page = pages.setdefault(number, CatalogPage.empty_page(number))
            page.pv_number[slot], page.role[slot], page.protocol[slot] = pv, role, 1
            page.names[slot], page.devices[slot] = name_of(pv), f"D{pv % 10}"
            page.addresses[slot] = f"{name_of(pv)}:{'SP' if role == ROLE_SETPOINT else 'RB'}"
    return [pages[n] for n in sorted(pages)]


def setpoint(pv: int) -> int:
    """Its channel."""
    return 256 + 2 * pv


def readback(pv: int) -> int:
    """Its channel."""
    return 257 + 2 * pv


def floats(channels: Sequence[int], values: Sequence[float], time_ns: int = START) -> Columns:
    """Connected float64 scalars."""
    n = len(channels)
    out = Columns.from_values(np.array(channels, np.int64), list(values), [int(Kind.FLOAT64)] * n)
    out.state[:] = State.CONNECTED
    out.origin[:] = Origin.MONITOR
    out.source_time[:] = time_ns
    out.receive_time[:] = time_ns + 1000
    return out


def every_channel(pvs: int, value: float) -> Columns:
    """One value for both channels of each PV."""
    channels = [channel for pv in range(1, pvs + 1) for channel in (setpoint(pv), readback(pv))]
    return floats(channels, [value] * len(channels))


class ScriptedOwner:
    """The owner of one shard, as a monitor would be: batches, image, heartbeats, directory."""

    def __init__(
        self, bus: Bus, image: Image, epoch: int, *, shard: int = 0, shards: int = 1
    ) -> None:
        self.bus, self.image, self.epoch = bus, image, epoch
        self.shard, self.shards = shard, shards
        self.sequence = self.never_connected = 0
        self.table = PageTable(np.zeros(0, np.int64))
        self.changed = SlotSequences()
        self.catalog: dict[int, CatalogPage] = {}
        self.metadata: dict[int, MetadataPage] = {}
        self.version = 0
        self._beating: asyncio.Task[None] | None = None

    def take_over(self, former: ScriptedOwner) -> None:
        """Go on with the values of a former owner."""
        self.table = former.table

    async def set_catalog(
        self,
        pages: Sequence[CatalogPage],
        metadata: Sequence[MetadataPage] = (),
        *,
        on_bus: bool = True,
    ) -> None:
        """Write the directory, and say so; `on_bus` False: as if that were lost."""
        self.version += 1
        self.catalog = {p.number: p for p in pages}
        self.metadata |= {p.number: p for p in metadata}
        self.table.add_pages(np.array(sorted(self.catalog), np.int64))
        self.changed.grow_pages(self.table.page_numbers)
        numbers = sorted(self.catalog)
        version = DirectoryVersion(
            shard=self.shard,
            epoch=self.epoch,
            version=self.version,
            pages=numbers,
            page_versions=[self.version] * len(numbers),
            catalog_version=self.version,
        )
        await self.image.write_directory(
            version,
            {n: encode_catalog(self.catalog[n]) for n in numbers},
            {n: encode_metadata(p) for n, p in self.metadata.items()},
        )
        if on_bus:
            await self._send("directory", version.SerializeToString())

    async def publish(
        self, columns: Columns, *, on_bus: bool = True, in_image: bool = True
    ) -> None:
        """One tick; either way can be left out, as if it were lost."""
        self.sequence += 1
        touched = self.table.apply_batch(columns)
        self.changed.note_changed(columns.key, self.sequence)
        for raw in encode_batches(
            columns,
            shard=self.shard,
            epoch=self.epoch,
            sequence=self.sequence,
            time_ns=time.time_ns(),
            directory_version=self.version,
        ):
            if on_bus:
                await self._send("values", raw)
        if in_image:
            await self.write_pages(touched)

    async def write_pages(self, indices: Any = None) -> None:
        """Write pages of the image; all of them by default."""
        chosen = np.arange(len(self.table.page_numbers)) if indices is None else indices
        await self.image.write_pages(
            self.shard,
            self.epoch,
            self.sequence,
            time.time_ns(),
            self.table.take_pages(chosen),
            self.changed.ages_since(self.table.page_numbers[chosen], self.sequence),
        )

    async def _send(self, kind: str, raw: bytes) -> None:
        try:
            await self.bus.publish(self.bus.full_subject(kind, self.shard), raw)
        except Unavailable:
            return

    async def beat(self) -> None:
        """One sign of life."""
        heartbeat = Heartbeat(
            shard=self.shard,
            shard_count=self.shards,
            epoch=self.epoch,
            sequence=self.sequence,
            time_ns=time.time_ns(),
            owner="rig:1",
            channels=PAGE_SLOTS,
            connected=PAGE_SLOTS - self.never_connected,
            never_connected=self.never_connected,
            channel_access="aioca",
            tick_ms=100,
            directory_version=self.version,
        )
        await self._send("heartbeats", heartbeat.SerializeToString())
        try:
            await self.image.write_heartbeat(heartbeat)
        except Unavailable:
            return

    def start(self) -> None:
        """Beat every 0.3 s until `stop`."""

        async def forever() -> None:
            while True:
                await self.beat()
                await asyncio.sleep(0.3)

        self._beating = asyncio.create_task(forever())

    async def stop(self) -> None:
        """Fall silent."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
            self._beating = None


class ScriptedOwners:
    """The owners of all shards of a site, used as one owner is."""

    def __init__(self, bus: Bus, image: Image, epoch: int, shards: int) -> None:
        self.owners = [
            ScriptedOwner(bus, image, epoch, shard=shard, shards=shards) for shard in range(shards)
        ]

    @property
    def catalog(self) -> dict[int, CatalogPage]:
        """All pages, by number."""
        return {n: page for owner in self.owners for n, page in owner.catalog.items()}

    def take_over(self, former: ScriptedOwners) -> None:
        """As `ScriptedOwner.take_over`, each from its own."""
        for owner, before in zip(self.owners, former.owners, strict=True):
            owner.take_over(before)

    async def set_catalog(
        self,
        pages: Sequence[CatalogPage],
        metadata: Sequence[MetadataPage] = (),
        *,
        on_bus: bool = True,
    ) -> None:
        """As `ScriptedOwner.set_catalog`, to each the pages of its shard."""
        shards = len(self.owners)
        for n, owner in enumerate(self.owners):
            await owner.set_catalog(
                [page for page in pages if shard_of_page(page.number, shards) == n],
                [page for page in metadata if shard_of_page(page.number, shards) == n],
                on_bus=on_bus,
            )

    async def publish(
        self, columns: Columns, *, on_bus: bool = True, in_image: bool = True
    ) -> None:
        """As `ScriptedOwner.publish`, by each owner that has rows of them."""
        shard_of_row = shard_of_page(columns.key >> PAGE_SHIFT, len(self.owners))
        for n in np.unique(shard_of_row).tolist():
            rows = columns.take_rows(shard_of_row == n)
            await self.owners[n].publish(rows, on_bus=on_bus, in_image=in_image)

    async def write_pages(self) -> None:
        """As `ScriptedOwner.write_pages`."""
        for owner in self.owners:
            await owner.write_pages()

    async def beat(self) -> None:
        """As `ScriptedOwner.beat`."""
        for owner in self.owners:
            await owner.beat()

    def start(self) -> None:
        """As `ScriptedOwner.start`."""
        for owner in self.owners:
            owner.start()

    async def stop(self) -> None:
        """As `ScriptedOwner.stop`."""
        for owner in self.owners:
            await owner.stop()


class Gateway:
    """One gateway process."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.port = free_port()
        self._env = env | {"DREY_GATEWAY_LISTEN": f"127.0.0.1:{self.port}"}
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self.channel = self.open_channel()

    def open_channel(self) -> grpc.aio.Channel:
        """A channel of its own to the gateway."""
        options = [
            ("grpc.max_receive_message_length", 16 << 20),
            ("grpc.max_send_message_length", 32 << 20),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 100),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self._folder / f"gateway-{self.port}.log").read_text()

    async def start(self) -> None:
        """Start the process; does not wait for it to be ready."""
        with (self._folder / f"gateway-{self.port}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "drey_gateway", env=self._env, stdout=log, stderr=log
            )

    async def serving(self, service: str = WATCHES) -> bool:
        """Whether its health check says that it can serve watches, or another service."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        try:
            health = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=1)
        except grpc.aio.AioRpcError:
            return False
        return bool(health.status == health_pb2.HealthCheckResponse.SERVING)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop the process; its exit code."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(how)
        async with asyncio.timeout(300):
            code = await self._process.wait()
        self._process = None
        return code


class GatewayRig:
    """NATS and Valkey of its own, a namespace, keys of services; a database is given."""

    def __init__(self, folder: Path, postgres_url: str, shards: int = 1) -> None:
        self.folder, self.postgres_url, self.shards = folder, postgres_url, shards
        self.nats, self.valkey = Nats(folder / "nats"), Valkey(folder / "valkey")
        self._stack = AsyncExitStack()
        self.gateways: list[Gateway] = []
        self.bus: Bus
        self.image: Image

    async def __aenter__(self) -> Self:
        """Start the servers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        make_keys(self.folder / "keys", ["gateway", "snapshot", "restore"])
        await self._stack.enter_async_context(self.nats)
        await self._stack.enter_async_context(self.valkey)
        self.bus = Bus(self.nats.url, "test", "rig")
        running = asyncio.create_task(self.bus.run())
        self._stack.push_async_callback(_cancelled, running)
        await self.bus.wait_connected(300)
        self.image = await self._stack.enter_async_context(
            Image.open_image(self.valkey.url, "test")
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop everything."""
        for gateway in self.gateways:
            await gateway.channel.close()
            await gateway.end()
        await self._stack.aclose()

    def publisher(self, epoch: int = 1) -> ScriptedOwner:
        """An owner of the one shard."""
        return ScriptedOwner(self.bus, self.image, epoch)

    def owners(self, epoch: int = 1) -> ScriptedOwner | ScriptedOwners:
        """Of all shards."""
        if self.shards == 1:
            return self.publisher(epoch)
        return ScriptedOwners(self.bus, self.image, epoch, self.shards)

    async def gateway(self, **settings: str) -> Gateway:
        """A new gateway process, with `DREY_<NAME>` settings beside the usual."""
        base = {k: v for k, v in os.environ.items() if not k.startswith(("DREY_", "EPICS_"))}
        dead = f"127.0.0.1:{free_port()}"
        env = base | {
            "DREY_POSTGRES_URL": self.postgres_url,
            "DREY_NATS_URL": self.nats.url,
            "DREY_REDIS_URL": self.valkey.url,
            "DREY_NAMESPACE": "test",
            "DREY_SHARDS": str(self.shards),
            "DREY_SIGNING_KEY": str(self.folder / "keys" / "gateway.pem"),
            "DREY_TRUSTED_KEYS": str(self.folder / "keys" / "trusted.json"),
            "DREY_SNAPSHOT_TARGET": dead,
            "DREY_RESTORE_TARGET": dead,
            "DREY_MONITOR_TARGET": dead,
            **{f"DREY_{name.upper()}": value for name, value in settings.items()},
        }
        gateway = Gateway(self.folder, env)
        self.gateways.append(gateway)
        await gateway.start()
        return gateway

    async def ready_gateway(self, **settings: str) -> Gateway:
        """As `gateway`, when it can serve watches, and what is in its database."""
        gateway = await self.gateway(**settings)
        await eventually(gateway.serving, "ready")
        await eventually(lambda: gateway.serving(EVENTS), "connected to its database")
        return gateway

    @asynccontextmanager
    async def publishing(self, pvs: int, value: float = 1.0) -> AsyncIterator[ScriptedOwner]:
        """An owner of so many PVs in one shard, which beats within."""
        publisher = self.publisher()
        async with _publishing(publisher, pvs, value):
            yield publisher

    @asynccontextmanager
    async def publishing_all(
        self, pvs: int, value: float = 1.0
    ) -> AsyncIterator[ScriptedOwner | ScriptedOwners]:
        """Likewise, in all shards."""
        owners = self.owners()
        async with _publishing(owners, pvs, value):
            yield owners


@asynccontextmanager
async def _publishing(
    owners: ScriptedOwner | ScriptedOwners, pvs: int, value: float
) -> AsyncIterator[None]:
    await owners.beat()
    await owners.set_catalog(catalog_pages(pvs))
    await owners.publish(every_channel(pvs, value))
    owners.start()
    try:
        yield
    finally:
        await owners.stop()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class ReferenceStandIn:
    """`ReferenceService` of PVs as `catalog_pages` makes them, the same values in any snapshot.

    `reads` counts those that were read whole. Who is not in `snapshots`, where it is given, is not
    found; `golden` is the id of the snapshot that is golden under any label.
    """

    def __init__(self, pvs: int, value: float = 0.0) -> None:
        self.pages = catalog_pages(pvs)
        for page in self.pages:
            page.absolute[:] = 0.5
        self._columns = every_channel(pvs, value)
        self._numbers = np.repeat(np.arange(1, pvs + 1), 2)
        self._roles = np.tile(np.array([ROLE_SETPOINT, ROLE_READBACK], np.uint8), pvs)
        self.reads = 0
        self.golden = ""
        self.snapshots: set[str] | None = None

    async def ReadReference(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """See the contract."""
        golden = request.state.HasField("golden")
        snapshot_id = self.golden if golden else request.state.snapshot_id
        if not snapshot_id or (self.snapshots is not None and snapshot_id not in self.snapshots):
            raise NotFound(
                f"there is no snapshot {snapshot_id}",
                field="spec.reference.golden" if golden else "spec.reference.snapshot_id",
            )
        yield reference_service_pb2.ReadReferenceResponse(snapshot_id=snapshot_id, time_ns=START)
        if snapshot_id == request.known_id:
            return
        self.reads += 1
        pages = [encode_catalog(page) for page in self.pages]
        yield reference_service_pb2.ReadReferenceResponse(catalog_pages=pages)
        for chunk in column_chunks(self._numbers, self._roles, self._columns):
            columns = value_pb2.ValueColumns.FromString(chunk)
            yield reference_service_pb2.ReadReferenceResponse(columns=columns)


REFERENCE = "drey.internal.reference.v1.ReferenceService"


class FoldedCall(Generic[C]):
    """A stream that is read in the background; `client.take` folds each message of it."""

    def __init__(self, call: Any, client: C) -> None:
        self.call, self.client = call, client
        self.error: grpc.aio.AioRpcError | None = None
        self.task = asyncio.create_task(self._read_all())

    async def _read_all(self) -> None:
        client: Any = self.client
        try:
            async for message in self.call:
                client.take(message)
        except grpc.aio.AioRpcError as error:
            self.error = error

    async def until(self, condition: Callable[[C], bool], what: str) -> float:
        """Wait until the client holds it; the seconds it took. The end of the stream fails it."""

        async def holds() -> bool:
            if self.error is not None:
                raise AssertionError(f"{what}: the stream ended: {self.error}")
            return condition(self.client)

        return await eventually(holds, what)

    async def stop(self) -> None:
        self.call.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class DriftClient:
    """Folds a watch of drift into what its user holds, by the contract's words alone."""

    def __init__(self) -> None:
        self.rows: dict[int, Any] = {}
        self.token = ""
        self.begun: list[Any] = []
        self.ended_baselines = 0
        self.summary: Any = None
        self.checkpoints: list[Any] = []
        self.freshness: list[Any] = []
        self.resyncs: list[str] = []
        self.merged = 0
        self.changed_rows = 0

    def take(self, message: Any) -> str:
        """Fold one WatchDriftResponse; which part it had."""
        part: str = message.WhichOneof("part")
        getattr(self, f"_{part}")(getattr(message, part))
        return part

    def _baseline_begin(self, part: Any) -> None:
        self.begun.append(part)
        if not part.keeps_state:
            self.rows = {}

    def _baseline(self, part: Any) -> None:
        for row in part.rows:
            self.rows[row.live.number] = row

    def _changed(self, part: Any) -> None:
        for number in part.left:
            self.rows.pop(number, None)
        for row in part.rows:
            self.rows[row.live.number] = row
        self.merged += part.merged
        self.changed_rows += len(part.rows)

    def _summary(self, part: Any) -> None:
        self.summary = part

    def _baseline_end(self, part: Any) -> None:
        self.token = part.token
        self.ended_baselines += 1

    def _checkpoint(self, part: Any) -> None:
        self.token = part.token
        self.checkpoints.append(part)

    def _freshness(self, part: Any) -> None:
        self.freshness.append(part)

    def _resync_required(self, part: Any) -> None:
        self.resyncs.append(part.reason)


class WatchClient:
    """Folds a watch into what its user holds, by the contract's words alone."""

    def __init__(self) -> None:
        self.rows: dict[int, Any] = {}
        self.stale: set[int] = set()
        self.token = ""
        self.ended_baselines = 0
        self.kept = False
        self.merged = 0
        self.diff_rows = 0
        self.baseline_rows = 0
        self.resyncs: list[str] = []
        self.left: list[Any] = []
        self.metadata: dict[int, Any] = {}
        self.checkpoints: list[Any] = []
        self.reasons: list[str] = []
        self.links: dict[str, list[tuple[str, int]]] = {}
        self.not_found: set[str] = set()

    def take(self, message: Any) -> str:
        """Fold one WatchPvsResponse; which part it had."""
        part: str = message.WhichOneof("part")
        getattr(self, f"_{part}")(getattr(message, part))
        return part

    def value(self, pv: int) -> float:
        """The setpoint held."""
        value: float = self.rows[pv].setpoint.float64_value
        return value

    def _baseline_begin(self, part: Any) -> None:
        self.kept = part.keeps_state
        if not part.keeps_state:
            self.rows, self.stale = {}, set()

    def _put(self, rows: Any) -> None:
        for row in rows:
            held = self.rows.setdefault(row.number, row)
            held.name = row.name
            for role, value in row.ListFields() if held is not row else ():
                if role.message_type is not None:
                    getattr(held, role.name).CopyFrom(value)
            fresh = [v.freshness for v in (row.setpoint, row.readback) if v.freshness]
            (self.stale.add if 2 in fresh else self.stale.discard)(row.number)

    def _baseline(self, part: Any) -> None:
        self.baseline_rows += len(part.rows)
        self._put(part.rows)

    def _baseline_end(self, part: Any) -> None:
        self.token = part.token
        self.ended_baselines += 1

    def _diff(self, part: Any) -> None:
        self.diff_rows += len(part.rows)
        self.merged += part.merged
        self._put(part.rows)

    def _checkpoint(self, part: Any) -> None:
        self.token = part.token
        self.checkpoints.append(part)

    def _freshness(self, part: Any) -> None:
        numbers = set(self.rows) if part.all else set(part.pv_numbers)
        if part.freshness == 2:
            self.stale |= numbers
            self.reasons.append(part.reason)
        else:
            self.stale -= numbers

    def _left(self, part: Any) -> None:
        for pv in part.pvs:
            self.left.append(pv)
            self.rows.pop(pv.number)

    def _metadata(self, part: Any) -> None:
        for row in part.rows:
            self.metadata[row.number] = row

    def _names(self, part: Any) -> None:
        for asked in {link.asked for link in part.links}:
            self.links[asked] = [(x.name, x.role) for x in part.links if x.asked == asked]
        self.not_found -= self.links.keys()
        self.not_found |= set(part.not_found)

    def _resync_required(self, part: Any) -> None:
        self.resyncs.append(part.reason)
