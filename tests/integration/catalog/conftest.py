"""Real Postgres, NATS and Valkey for the session; a database and a service for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from drey.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from drey.internal.directory.v1.directory_service_pb2_grpc import DirectoryServiceStub
from drey_runtime.migrate import apply
from drey_snapshot.app import main
from drey_snapshot.settings import SnapshotSettings
from drey_stack import Nats, Part, Postgres, Valkey
from drey_testing.fixtures_catalog import TESTER, Keys, loopback, running, until_serving

TEMPLATE = "catalog_template"


@dataclass
class Parts:
    postgres: Postgres
    nats: Nats
    valkey: Valkey


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = tmp_path_factory.mktemp("parts")
    found = Parts(
        Postgres(folder / "postgres", fsync=False), Nats(folder / "nats"), Valkey(folder / "valkey")
    )
    all_parts: list[Part] = [found.postgres, found.nats, found.valkey]

    async def begin() -> None:
        await asyncio.gather(*(part.start() for part in all_parts))
        connection = await asyncpg.connect(found.postgres.url)
        await connection.execute(f"CREATE DATABASE {TEMPLATE}")
        await connection.close()
        url = found.postgres.database_url(TEMPLATE)
        await apply(url, ["drey_runtime", "drey_snapshot"])

    async def end() -> None:
        await asyncio.gather(*(part.stop() for part in all_parts))

    with asyncio.Runner() as runner:
        runner.run(begin())
        yield found
        runner.run(end())


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


async def new_database(parts: Parts) -> str:
    name = f"t_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(parts.postgres.url)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    await connection.close()
    return parts.postgres.database_url(name)


def make_settings(parts: Parts, keys: Keys, url: str, namespace: str) -> SnapshotSettings:
    return SnapshotSettings.model_validate(
        {
            "postgres_url": url,
            "nats_url": parts.nats.url,
            "redis_url": parts.valkey.url,
            "namespace": namespace,
            "listen": loopback(),
            "trusted_keys": keys.trusted,
            "signing_key": keys.folder / "snapshot.pem",
        }
    )


@dataclass
class Service:
    """A running service, its settings, and stubs whose calls carry a token of `TESTER`."""

    settings: SnapshotSettings
    catalog: CatalogServiceStub
    directory: DirectoryServiceStub
    channel: grpc.aio.Channel


def _path(details: grpc.aio.ClientCallDetails) -> str:
    # the stubs say str, and grpc.aio gives bytes
    method: Any = details.method
    return method.decode() if isinstance(method, bytes) else method


class _Signed:
    def __init__(self, keys: Keys, roles: tuple[str, ...]) -> None:
        self._keys, self._roles = keys, roles

    def details(self, details):
        metadata = grpc.aio.Metadata(*self._keys.metadata(_path(details), self._roles))
        for key, value in details.metadata or ():
            metadata.add(key, value)
        return details._replace(metadata=metadata, timeout=details.timeout or 30)


class _Unary(_Signed, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, details, request):
        return await continuation(self.details(details), request)


class _Stream(_Signed, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation, details, request):
        return await continuation(self.details(details), request)


class _Both(_Signed, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation, details, requests):
        return await continuation(self.details(details), requests)


def connect(
    settings: SnapshotSettings, keys: Keys, roles: tuple[str, ...] = TESTER
) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        settings.listen,
        interceptors=[kind(keys, roles) for kind in (_Unary, _Stream, _Both)],
        options=[("grpc.max_receive_message_length", 16 << 20)],
    )


@pytest.fixture
async def service(parts: Parts, keys: Keys, tmp_path: Path) -> AsyncIterator[Service]:
    settings = make_settings(parts, keys, await new_database(parts), f"t{uuid.uuid4().hex[:20]}")
    async with running(main, settings), connect(settings, keys) as channel:
        await until_serving(channel)
        yield Service(settings, CatalogServiceStub(channel), DirectoryServiceStub(channel), channel)
