"""The service as a process: it starts while everything is away, and recovers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from dataclasses import dataclass

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from drey_runtime.migrate import apply_migrations
from drey_snapshot.settings import SnapshotSettings
from drey_stack import Nats, Postgres, Valkey
from drey_testing.fixtures_catalog import loopback, until_serving
from tests.integration.catalog.conftest import connect, make_settings
from tests.integration.catalog.helpers import import_, refused
from tests.integration.snapshot.conftest import new_database, process_of

CATALOG = "drey.catalog.v1.CatalogService"
SNAPSHOT = "drey.snapshot.v1.SnapshotService"


@dataclass
class CatalogOfProcess:
    """As `Service`, for the helpers."""

    catalog: CatalogServiceStub


@pytest.fixture
async def away(tmp_path):
    """Parts that were started once, so that they have their ports, and stopped again."""
    found = (
        Postgres(tmp_path / "pg", fsync=False),
        Nats(tmp_path / "nats"),
        Valkey(tmp_path / "valkey"),
    )
    await asyncio.gather(*(part.start() for part in found))
    await apply_migrations(found[0].url, ["drey_runtime", "drey_snapshot"])
    urls = [part.url for part in found]
    await asyncio.gather(*(part.stop() for part in found))
    yield found, urls
    for part in found:
        if part.running:
            await part.stop()


async def test_it_starts_while_all_is_away_and_recovers(away, keys) -> None:
    parts, (postgres, nats, valkey) = away
    settings = SnapshotSettings.model_validate(
        {
            "postgres_url": postgres,
            "nats_url": nats,
            "redis_url": valkey,
            "listen": loopback(),
            "trusted_keys": keys.trusted,
            "signing_key": keys.folder / "snapshot.pem",
        }
    )
    async with process_of(settings) as process:
        async with connect(settings, keys) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            async def serves(service: str) -> bool:
                request = health_pb2.HealthCheckRequest(service=service)
                answer = await health.Check(request, timeout=60, wait_for_ready=True)
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            # it lives, and nobody should restart it; it has nothing to answer from yet
            assert await serves("")
            assert not await serves(CATALOG) and not await serves(SNAPSHOT)
            catalog = CatalogServiceStub(channel)
            with refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
                await catalog.ListPvs(rpc.ListPvsRequest())
            await asyncio.gather(*(part.start() for part in parts))
            await until_serving(channel, 60)
            await catalog.CreatePv(
                rpc.CreatePvRequest(pv=catalog_pb2.Pv(setpoint={"address": "A"}))
            )
            assert (await catalog.ListPvs(rpc.ListPvsRequest())).total_size == 1
            assert await serves("") and await serves(CATALOG)
            await parts[0].stop()
            async with asyncio.timeout(60):
                while await serves(SNAPSHOT):
                    await asyncio.sleep(0.05)
            # the catalog is in memory
            assert await serves("") and await serves(CATALOG)
            assert (await catalog.ListPvs(rpc.ListPvsRequest())).total_size == 1
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_an_import_that_is_killed_at_its_end_has_done_nothing_and_is_done_once(
    parts, keys
) -> None:
    settings = make_settings(parts, keys, await new_database(parts))
    content = b"Setpoint\n" + b"".join(b"A%d\n" % number for number in range(500))
    wanted = {"format": catalog_pb2.FILE_FORMAT_CSV, "request_id": str(uuid.uuid4())}
    waits = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    owner = await asyncpg.connect(settings.postgres_url.get_secret_value())
    try:
        async with process_of(settings) as process, connect(settings, keys) as channel:
            await until_serving(channel)
            catalog = CatalogOfProcess(CatalogServiceStub(channel))
            async with owner.transaction():
                # the last that it writes: the PVs are there by then, for itself
                await owner.execute("LOCK TABLE audit.entry IN ACCESS EXCLUSIVE MODE")
                running = asyncio.create_task(import_(catalog, content, **wanted))
                async with asyncio.timeout(60):
                    while not await owner.fetchval(waits) and not running.done():
                        await asyncio.sleep(0.01)
                process.send_signal(signal.SIGKILL)
                await process.wait()
                with pytest.raises(grpc.aio.AioRpcError):
                    await running
        assert await owner.fetchval("SELECT count(*) FROM catalog.pv") == 0
        async with process_of(settings), connect(settings, keys) as channel:
            await until_serving(channel)
            catalog = CatalogOfProcess(CatalogServiceStub(channel))
            for _ in range(2):
                _, summary = await import_(catalog, content, **wanted)
                assert (summary.added, summary.applied) == (500, True)
        acts = "SELECT count(*) FROM audit.entry WHERE action = 'pv.import'"
        assert await owner.fetchval(acts) == 1
        assert await owner.fetchval("SELECT count(*) FROM catalog.pv") == 500
    finally:
        await owner.close()


async def test_it_refuses_to_start_without_keys_to_trust(tmp_path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("DREY_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "drey_snapshot",
        env=env | {"DREY_SNAPSHOT_LISTEN": loopback()},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert b"DREY_TRUSTED_KEYS" in out + err
