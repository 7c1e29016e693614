"""Parts that answer and are of no use: it is told, with what to do, and so is their mending."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis

from drey.system.v1 import system_service_pb2, system_service_pb2_grpc
from drey_gateway.bootstrap import make_first_key
from drey_runtime.migrate import apply_migrations
from drey_stack import Postgres
from drey_testing.fixtures_gateway import Gateway, GatewayRig, eventually
from tests.integration.gateway.test_access import bearer

UP, DOWN = system_service_pb2.PART_STATE_UP, system_service_pb2.PART_STATE_DOWN
Ask = Callable[[], Awaitable[system_service_pb2.SystemSummary]]


def asking(gateway: Gateway, key: str) -> Ask:
    """Asks for the summary."""
    stub = system_service_pb2_grpc.SystemServiceStub(gateway.channel)

    async def ask() -> system_service_pb2.SystemSummary:
        request = system_service_pb2.GetSystemSummaryRequest()
        return (await stub.GetSystemSummary(request, metadata=bearer(key))).summary

    return ask


async def wait_part(ask: Ask, name: str, state: int, words: str = "") -> None:
    """Wait until a part is in a state; where that is down, by a finding with these words."""

    async def told() -> bool:
        summary = await ask()
        (part,) = [part for part in summary.parts if part.name == name]
        found = [f for f in summary.findings if f.part == name]
        if state == UP:
            return part.state == UP and not found
        return part.state == DOWN and bool(found and words in found[0].text and found[0].remedy)

    await eventually(told, f"{name} is told to be {state}")


async def test_a_redis_without_memory_is_told_until_it_has_some(
    rig: GatewayRig, admin_key: str
) -> None:
    ask = asking(await rig.ready_gateway(), admin_key)
    await wait_part(ask, "redis", UP)
    async with Redis.from_url(rig.valkey.url) as redis:
        await redis.config_set("maxmemory", "100kb")
        await wait_part(ask, "redis", DOWN, "maxmemory")
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        await wait_part(ask, "redis", UP)
        await redis.config_set("maxmemory-policy", "noeviction")
        await wait_part(ask, "redis", DOWN, "maxmemory")
        await redis.config_set("maxmemory", "0")
        await wait_part(ask, "redis", UP)


async def test_a_redis_that_evicts_is_told_until_it_has_room(
    rig: GatewayRig, admin_key: str
) -> None:
    ask = asking(await rig.ready_gateway(), admin_key)
    await wait_part(ask, "redis", UP)
    async with Redis.from_url(rig.valkey.url) as redis:

        async def ask_after_writes() -> system_service_pb2.SystemSummary:
            for number in range(200):
                await redis.set(f"filler:{number}", bytes(10_000))
            return await ask()

        await redis.config_set("maxmemory-policy", "allkeys-lru")
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", used + 1_000_000)
        await wait_part(ask_after_writes, "redis", DOWN, "evicted")
        await redis.config_set("maxmemory", "0")
        await wait_part(ask_after_writes, "redis", UP)


async def test_a_postgres_that_takes_no_connection_is_told_though_old_ones_answer(
    tmp_path: Path,
) -> None:
    postgres = Postgres(tmp_path / "postgres", fsync=False)
    await postgres.start()
    try:
        url = postgres.url
        await apply_migrations(url, ["drey_runtime", "drey_gateway"])
        key = await make_first_key(url)
        async with GatewayRig(tmp_path / "rig", url) as rig:
            ask = asking(await rig.ready_gateway(), key)
            await wait_part(ask, "postgres", UP)
            assert postgres.pid is not None
            os.kill(postgres.pid, signal.SIGSTOP)
            try:
                await wait_part(ask, "postgres", DOWN, "takes no new one")
            finally:
                os.kill(postgres.pid, signal.SIGCONT)
            await wait_part(ask, "postgres", UP)
    finally:
        await postgres.stop()


async def test_what_is_not_known_while_nats_is_away_is_not_told_as_none(
    rig: GatewayRig, admin_key: str
) -> None:
    ask = asking(await rig.ready_gateway(), admin_key)

    async def known(wanted: bool) -> bool:
        summary = await ask()
        return bool(summary.instances) == wanted != summary.HasField("signs_lost_since")

    await eventually(lambda: known(True), "this gateway is listed")
    await rig.nats.stop()
    await eventually(lambda: known(False), "the list is empty, and said to be unknown")
    since = (await ask()).signs_lost_since
    assert since == (await ask()).signs_lost_since
    await rig.nats.start()
    await eventually(lambda: known(True), "this gateway is listed again")
