"""Real Postgres, NATS and Valkey for the session; a database and a service for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest

from drey.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from drey.internal.directory.v1.directory_service_pb2_grpc import DirectoryServiceStub
from drey_snapshot.app import main
from drey_snapshot.settings import SnapshotSettings
from drey_testing.fixtures_catalog import Keys, running, until_serving
from tests.integration.snapshot.conftest import (
    Parts,
    connect,
    keys,
    make_settings,
    new_database,
    parts,
)

__all__ = ["connect", "keys", "make_settings", "parts"]


@dataclass
class Service:
    """A running service, its settings, and stubs whose calls carry a token of `TESTER`."""

    settings: SnapshotSettings
    catalog: CatalogServiceStub
    directory: DirectoryServiceStub
    channel: grpc.aio.Channel


@pytest.fixture
async def service(parts: Parts, keys: Keys) -> AsyncIterator[Service]:
    settings = make_settings(parts, keys, await new_database(parts))
    async with running(main, settings), connect(settings, keys) as channel:
        await until_serving(channel)
        yield Service(settings, CatalogServiceStub(channel), DirectoryServiceStub(channel), channel)
