"""The service in this process, on real Postgres, NATS and Valkey, against a simulated machine."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import grpc
import pytest

from drey.restore.v1 import restore_service_pb2 as pb
from drey.restore.v1 import restore_service_pb2_grpc as rpc
from drey_ca import open_table
from drey_machine import Machine
from drey_restore.app import main
from drey_restore.settings import RestoreSettings
from drey_runtime.app import App
from drey_runtime.auth import TokenVerifier, make_keys
from drey_runtime.image import Image
from drey_runtime.migrate import apply_migrations
from drey_runtime.server import serve_grpc
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import return_port, take_port, use_loopback
from drey_testing.restore_world import DirectoryStandIn, RestoreSite, RestoreWorld, SnapshotStandIn
from drey_testing.signing import signed_as_gateway

PVS = 300

use_loopback()  # before anything makes a context of Channel Access


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, Nats, Valkey]]:
    folder = tmp_path_factory.mktemp("parts")
    found = (
        Postgres(folder / "pg", fsync=False),
        Nats(folder / "nats"),
        Valkey(folder / "valkey"),
    )

    async def begin() -> None:
        await asyncio.gather(*(p.start() for p in found))
        connection = await asyncpg.connect(found[0].url)
        await connection.execute("CREATE DATABASE drey_template")
        await connection.close()
        await apply_migrations(
            database(found[0].url, "drey_template"), ["drey_runtime", "drey_restore"]
        )

    async def end() -> None:
        await asyncio.gather(*(p.stop() for p in found))

    with asyncio.Runner() as runner:
        try:
            runner.run(begin())
            yield found
        finally:
            runner.run(end())


def database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    pvs = int(os.environ.get("RESTORE_PVS", PVS))
    # the service runs in this process, whose libca knows the ports of the pool only
    found = Machine(tmp_path_factory.mktemp("machine"), pvs, port=take_port())
    with asyncio.Runner() as runner:
        try:
            runner.run(found.start())
            yield found
        finally:
            runner.run(found.stop())
            return_port(found.port)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder, ["gateway", "restore", "snapshot"])
    return folder


@pytest.fixture
def chunk() -> int:
    """Writes at a time; tests that stop in the middle ask for few."""
    return 64


@pytest.fixture
def job_lease() -> float:
    """Seconds; tests in which somebody dies ask for few."""
    return 20.0


@pytest.fixture
def shards() -> int:
    """How many; a test that means anything with several is parametrized by this name."""
    return 1


@pytest.fixture
def more_settings() -> dict[str, Any]:
    """Settings of the service beside those of every test; given by parametrization."""
    return {}


@pytest.fixture
async def world(
    parts: tuple[Postgres, Nats, Valkey], machine: Machine, shards: int
) -> AsyncIterator[RestoreWorld]:
    namespace = f"t{uuid.uuid4().hex[:12]}"
    async with open_table("aioca") as table, Image.open_image(parts[2].url, namespace) as image:
        world = RestoreWorld(list(machine.catalog_rows()), table, image, shards)
        world.namespace = namespace
        await world.connect()
        await world.publish()
        world.beats = asyncio.create_task(world.beat_for_ever())
        try:
            yield world
        finally:
            world.beats.cancel()
            await asyncio.gather(world.beats, return_exceptions=True)


@pytest.fixture
async def dead_site(
    parts: tuple[Postgres, Nats, Valkey],
    machine: Machine,
    world: RestoreWorld,
    keys: Path,
    chunk: int,
    job_lease: float,
) -> AsyncIterator[RestoreSite]:
    """A site whose service is started by the test, in a process of its own."""
    async with AsyncExitStack() as stack:
        yield await start_site(stack, parts, machine, world, keys, chunk, job_lease)


@pytest.fixture
async def site(
    parts: tuple[Postgres, Nats, Valkey],
    machine: Machine,
    world: RestoreWorld,
    keys: Path,
    chunk: int,
    job_lease: float,
    more_settings: dict[str, Any],
) -> AsyncIterator[RestoreSite]:
    async with AsyncExitStack() as stack:
        found = await start_site(
            stack, parts, machine, world, keys, chunk, job_lease, more_settings
        )
        try:
            # as when a process stops: the loops end before what they use is closed
            async with AsyncExitStack() as inner, asyncio.TaskGroup() as group:
                port = await main(found.settings, App(inner, group))
                channel = await stack.enter_async_context(
                    grpc.aio.insecure_channel(f"127.0.0.1:{port}")
                )
                signed = signed_as_gateway(channel, keys, "restore")
                found.stub, found.port = rpc.RestoreServiceStub(signed), port
                await database_ready(found)
                yield found
                raise _Over
        except* _Over:
            pass


class _Over(Exception):
    pass


async def start_site(
    stack: AsyncExitStack,
    parts: Any,
    machine: Machine,
    world: RestoreWorld,
    keys: Path,
    chunk: int,
    job_lease: float,
    more_settings: dict[str, Any] | None = None,
) -> RestoreSite:
    """All but the service."""
    name = f"t_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(parts[0].url)
    await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE drey_template')
    await connection.close()
    url = database(parts[0].url, name)
    base = RestoreSettings(trusted_keys=keys / "trusted.json", signing_key=keys / "restore.pem")
    services = [
        ("drey.snapshot.v1.SnapshotService", SnapshotStandIn(world)),
        ("drey.internal.directory.v1.DirectoryService", DirectoryStandIn(world)),
    ]
    verifier = TokenVerifier.from_file(keys / "trusted.json", "snapshot")
    port, _ = await stack.enter_async_context(serve_grpc(base, "127.0.0.1:0", verifier, services))
    settings = RestoreSettings.model_validate(
        {
            **base.model_dump(),
            "postgres_url": url,
            "nats_url": parts[1].url,
            "redis_url": parts[2].url,
            "namespace": world.namespace,
            "shards": world.shards,
            "snapshot_target": f"127.0.0.1:{port}",
            "listen": "127.0.0.1:0",
            "channel_access": "native",
            "chunk_size": chunk,
            "connect_timeout": 1.0,
            "job_lease": job_lease,
            **(more_settings or {}),
        }
    )
    return RestoreSite(world, machine, None, settings, keys, url, 0)


async def database_ready(site: RestoreSite) -> None:
    async with asyncio.timeout(300):
        while True:
            with suppress(grpc.aio.AioRpcError):
                await site.call("ListPlans", pb.ListPlansRequest())
                return
            await asyncio.sleep(0.02)
