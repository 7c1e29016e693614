"""Real Postgres, NATS and Valkey for the session; a database, a service and an image a test."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import numpy as np
import pytest

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as catalog_rpc
from drey.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from drey.common.v1 import form_pb2, selector_pb2, state_pb2
from drey.compare.v1 import compare_pb2, compare_service_pb2
from drey.compare.v1.compare_service_pb2_grpc import CompareServiceStub
from drey.internal.directory.v1.directory_service_pb2_grpc import DirectoryServiceStub
from drey.snapshot.v1 import snapshot_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as rpc
from drey.snapshot.v1.snapshot_service_pb2_grpc import SnapshotServiceStub
from drey_core.values import Columns
from drey_runtime.image import Image
from drey_runtime.migrate import apply_migrations
from drey_runtime.status import reason_of
from drey_snapshot.app import main
from drey_snapshot.settings import SnapshotSettings
from drey_stack import Nats, Part, Postgres, Valkey
from drey_testing.fixtures_catalog import TESTER, Keys, loopback, running, until_serving
from drey_testing.fixtures_snapshot import FakeMonitor, csv_of

if TYPE_CHECKING:  # classes of the type stubs alone
    from drey.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from drey.compare.v1.compare_service_pb2_grpc import CompareServiceAsyncStub
    from drey.internal.directory.v1.directory_service_pb2_grpc import DirectoryServiceAsyncStub
    from drey.snapshot.v1.snapshot_service_pb2_grpc import SnapshotServiceAsyncStub

TEMPLATE = "snapshot_template"
EVERYTHING = selector_pb2.Selector(all=True)


@dataclass
class Parts:
    postgres: Postgres
    nats: Nats
    valkey: Valkey


def make_parts(folder: Path, fsync: bool = False) -> Parts:
    return Parts(
        Postgres(folder / "postgres", fsync=fsync), Nats(folder / "nats"), Valkey(folder / "valkey")
    )


async def start_parts(found: Parts) -> None:
    every: list[Part] = [found.postgres, found.nats, found.valkey]
    await asyncio.gather(*(part.start() for part in every))
    connection = await asyncpg.connect(found.postgres.url)
    await connection.execute(f"CREATE DATABASE {TEMPLATE}")
    await connection.close()
    await apply_migrations(found.postgres.database_url(TEMPLATE), ["drey_runtime", "drey_snapshot"])


async def stop_parts(found: Parts) -> None:
    every: list[Part] = [found.postgres, found.nats, found.valkey]
    await asyncio.gather(*(part.stop() for part in every))


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    found = make_parts(tmp_path_factory.mktemp("parts"))
    with asyncio.Runner() as runner:
        runner.run(start_parts(found))
        yield found
        runner.run(stop_parts(found))


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


async def new_database(parts: Parts) -> str:
    name = f"t_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(parts.postgres.url)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    await connection.close()
    return parts.postgres.database_url(name)


def make_settings(parts: Parts, keys: Keys, url: str, **more: Any) -> SnapshotSettings:
    return SnapshotSettings.model_validate(
        {
            "postgres_url": url,
            "nats_url": parts.nats.url,
            "redis_url": parts.valkey.url,
            "namespace": f"t{uuid.uuid4().hex[:20]}",
            "listen": loopback(),
            "trusted_keys": keys.trusted,
            "signing_key": keys.folder / "snapshot.pem",
            **more,
        }
    )


@asynccontextmanager
async def process_of(
    settings: SnapshotSettings, more: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The service as a process with more environment, which may be killed."""
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("DREY_")},
        **(more or {}),
        "DREY_POSTGRES_URL": settings.postgres_url.get_secret_value(),
        "DREY_NATS_URL": settings.nats_url,
        "DREY_REDIS_URL": settings.redis_url.get_secret_value(),
        "DREY_NAMESPACE": settings.namespace,
        "DREY_SNAPSHOT_LISTEN": settings.listen,
        "DREY_TRUSTED_KEYS": str(settings.trusted_keys),
        "DREY_SIGNING_KEY": str(settings.signing_key),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "drey_snapshot", env=env)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


class _Signing:
    def __init__(self, sign: Callable[[str], Any]) -> None:
        self._sign = sign


class _Unary(_Signing, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, details, request):
        return await continuation(_signed(details, self._sign), request)


class _Stream(_Signing, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation, details, request):
        return await continuation(_signed(details, self._sign), request)


class _Both(_Signing, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation, details, requests):
        return await continuation(_signed(details, self._sign), requests)


def _path(details: grpc.aio.ClientCallDetails) -> str:
    # the stubs say str, and grpc.aio gives bytes
    method: Any = details.method
    return method.decode() if isinstance(method, bytes) else method


def _signed(details, sign):
    metadata = grpc.aio.Metadata(*sign(_path(details)))
    for key, value in details.metadata or ():
        metadata.add(key, value)
    return details._replace(metadata=metadata, timeout=details.timeout or 30)


def connect(
    settings: SnapshotSettings, keys: Keys, roles: tuple[str, ...] = TESTER, name: str = "tester"
) -> grpc.aio.Channel:
    def sign(method):
        return keys.metadata(method, roles, name)

    return grpc.aio.insecure_channel(
        settings.listen,
        interceptors=[kind(sign) for kind in (_Unary, _Stream, _Both)],
        options=[("grpc.max_receive_message_length", 16 << 20)],
    )


def state_of(snapshot_id: str) -> state_pb2.StateRef:
    """A snapshot, or the live machine where there is no id."""
    if snapshot_id:
        return state_pb2.StateRef(snapshot_id=snapshot_id)
    return state_pb2.StateRef(live=state_pb2.LiveState())


@dataclass
class Site:
    """A running service with its stubs (as `tester`), its image, and a database."""

    settings: SnapshotSettings
    keys: Keys
    catalog: CatalogServiceAsyncStub
    directory: DirectoryServiceAsyncStub
    snapshots: SnapshotServiceAsyncStub
    comparisons: CompareServiceAsyncStub
    monitor: FakeMonitor
    channel: grpc.aio.Channel
    extra: dict[str, Any] = field(default_factory=dict)

    async def add_pvs(self, n: int, first: int = 0) -> None:
        """n PVs with setpoint and readback, in catalog and image."""

        async def requests():
            options = catalog_rpc.ImportOptions(format=catalog_pb2.FILE_FORMAT_CSV)
            yield catalog_rpc.ImportPvsRequest(options=options)
            content = csv_of(n, first)
            for at in range(0, len(content), 1 << 19):
                yield catalog_rpc.ImportPvsRequest(data=content[at : at + (1 << 19)])

        applied = False
        async for response in self.catalog.ImportPvs(requests(), timeout=120):
            if response.HasField("summary"):
                applied = response.summary.applied
                assert applied, response.summary
        assert applied
        await self.follow()

    async def follow(self) -> None:
        """Make the image follow the catalog."""
        await self.monitor.follow(self.directory)
        await self.monitor.describe()
        await self.monitor.rewrite()

    async def fill(self, seed: int = 1) -> Columns:
        """Give every channel a float64."""
        channels = self.monitor.directory.channels
        values = np.random.default_rng(seed).standard_normal(len(channels)) * 100
        columns = self.monitor.floats(channels, values)
        await self.monitor.publish(columns)
        return columns

    async def take(self, **more: Any) -> snapshot_pb2.Snapshot:
        """A snapshot of everything, unless said otherwise."""
        await self.monitor.beat()
        request = rpc.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(**{"selector": EVERYTHING, **more})
        )
        if not request.spec.gates.HasField("max_age"):
            # how fresh is fresh enough has tests of its own, and the machine may be busy
            request.spec.gates.max_age.FromSeconds(60)
        response = await self.snapshots.TakeSnapshot(request)
        assert response.HasField("snapshot"), response.job
        return response.snapshot

    async def rows(self, snapshot_id: str, **more: Any):
        """All rows of a snapshot."""
        found = []
        request = rpc.ReadSnapshotRequest(id=snapshot_id, form=form_pb2.VALUE_FORM_ROWS, **more)
        async for part in self.snapshots.ReadSnapshot(request):
            found += part.rows.rows
        return found

    async def compare_all(
        self, reference: str, /, *others: str, size: int = 0, token: str = "", **spec: Any
    ):
        """(header, rows, token of the next page) of states by id; "" is the live machine."""
        request = compare_service_pb2.CompareRequest(
            spec=compare_pb2.ComparisonSpec(
                **{
                    "reference": state_of(reference),
                    "others": [state_of(other) for other in others],
                    "with_values": True,
                    **spec,
                }
            ),
            page_size=size,
            page_token=token,
        )
        parts = [part async for part in self.comparisons.Compare(request)]
        first, *chunks, last = parts
        assert first.HasField("header") and last.HasField("end")
        rows = [row for part in chunks for row in part.rows.rows]
        return first.header, rows, last.end.next_page_token

    async def compare(self, reference: str, other: str | None = None, **spec: Any):
        """(summary, rows) with another snapshot, or with the live machine."""
        header, rows, _ = await self.compare_all(reference, other or "", **spec)
        return header.summaries[0], rows

    async def database(self) -> asyncpg.Connection:
        """A connection of the test's own; close it."""
        return await asyncpg.connect(self.settings.postgres_url.get_secret_value())

    @asynccontextmanager
    async def stub(self, name: str, *roles: str) -> AsyncIterator[SnapshotServiceStub]:
        """The service as somebody else."""
        async with connect(self.settings, self.keys, roles, name) as channel:
            yield SnapshotServiceStub(channel)

    async def count(self, table: str) -> int:
        """Rows of a table."""
        connection = await self.database()
        try:
            return await connection.fetchval(f"SELECT count(*) FROM {table}")
        finally:
            await connection.close()


def site_over(
    settings: SnapshotSettings, keys: Keys, channel: grpc.aio.Channel, monitor: FakeMonitor
) -> Site:
    """A site whose service answers on a channel."""
    return Site(
        settings,
        keys,
        CatalogServiceStub(channel),
        DirectoryServiceStub(channel),
        SnapshotServiceStub(channel),
        CompareServiceStub(channel),
        monitor,
        channel,
    )


async def site_on(parts: Parts, keys: Keys, url: str = "", **more: Any) -> AsyncIterator[Site]:
    """A site on a new database, or on the one of a URL."""
    settings = make_settings(parts, keys, url or await new_database(parts), **more)
    redis = Image.open_image(settings.redis_url.get_secret_value(), settings.namespace)
    async with (
        running(main, settings),
        connect(settings, keys) as channel,
        redis as image,
        FakeMonitor(image, settings.shards) as monitor,
    ):
        await until_serving(channel)
        yield site_over(settings, keys, channel, monitor)


@pytest.fixture
def shards() -> int:
    """How many; a test that means anything with several is parametrized by this name."""
    return 1


@pytest.fixture
async def site(parts: Parts, keys: Keys, shards: int) -> AsyncIterator[Site]:
    async for found in site_on(parts, keys, shards=shards):
        yield found


async def refused(call) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """(code, reason, metadata) of a call (or stream) that must fail."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return (error.code(), *reason_of(error))
    raise AssertionError("it was not refused")


@pytest.fixture(name="refused")
def _refused():
    return refused


@pytest.fixture
async def own_site(tmp_path: Path, keys: Keys) -> AsyncIterator[Site]:
    """A site whose servers a test may kill; they are `extra["parts"]`."""
    parts = make_parts(tmp_path)
    await start_parts(parts)
    try:
        async for found in site_on(parts, keys):
            found.extra["parts"] = parts
            yield found
    finally:
        await stop_parts(parts)


@pytest.fixture
async def make_process(parts: Parts, keys: Keys):
    """The service as a process with more environment; a context manager that gives a site."""

    @asynccontextmanager
    async def make(more: dict[str, str]) -> AsyncIterator[Site]:
        settings = make_settings(parts, keys, await new_database(parts))
        redis = Image.open_image(settings.redis_url.get_secret_value(), settings.namespace)
        async with (
            process_of(settings, more),
            connect(settings, keys) as channel,
            redis as image,
            FakeMonitor(image) as monitor,
        ):
            await until_serving(channel, 60)
            yield site_over(settings, keys, channel, monitor)

    return make
