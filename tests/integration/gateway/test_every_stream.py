"""Every stream that a client is sent, found by reflection: a reader that stops, a key that dies."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import drey
from drey.common.v1 import annotations_pb2
from drey_runtime.database import Database
from drey_runtime.jobs import JobStore, NewJob
from drey_testing.fixtures_gateway import (
    Gateway,
    GatewayRig,
    catalog_pages,
    eventually,
    floats,
    name_of,
    setpoint,
)
from drey_testing.raw_http2 import StubbornClient
from drey_testing.requests import valid_request
from tests.integration.gateway.test_access import bearer, make_key
from tests.integration.gateway.test_living_keys import Behind, end_of, everything, opened, revoke

CALLS = 4
"""Of each method at a time, on one connection."""
QUIET_ROUNDS, MOST_ROUNDS = 3, 15
FINITE = {"/drey.monitor.v1.MonitorService/GetValues"}
"""It ends by itself, so that no key can die under it; a reader that stops is cut all the same."""
HEALTH = "/grpc.health.v1.Health/Watch"


@asynccontextmanager
async def served(
    rig: GatewayRig, url: str, **settings: str
) -> AsyncIterator[tuple[Gateway, dict[str, Behind], str]]:
    """A gateway with a machine and all services; the id of a job that does not end."""
    publisher = rig.publisher()
    await publisher.beat()
    await publisher.set_catalog(catalog_pages(2))
    await publisher.publish(floats([setpoint(1), setpoint(2)], [1.0, 2.0]))
    publisher.start()
    try:
        async with Database(url) as database, everything(rig, **settings) as (gateway, parts):
            async with database.begin_transaction() as conn:
                job = await JobStore(database).create_job(
                    conn, NewJob(kind="snapshot", principal="p", role="r", payload=b"")
                )
            yield gateway, parts, job.id
    finally:
        await publisher.stop()


async def streams(gateway: Gateway, key: str, job_id: str) -> dict[str, bytes]:
    """A request of each built method that answers with a stream, by path."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)
    call = stub.ServerReflectionInfo(metadata=bearer(key))
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.done_writing()
    services = [each.name for each in (await call.read()).list_services_response.service]
    for module in pkgutil.walk_packages(drey.__path__, "drey."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)
    pool = descriptor_pool.Default()
    found = {HEALTH: health_pb2.HealthCheckRequest().SerializeToString()}
    for service in services:
        if service.startswith("drey."):
            for method in pool.FindServiceByName(service).methods:
                if method.server_streaming and not _not_built(method):
                    found[f"/{service}/{method.name}"] = _request(method, job_id)
    return found


def _not_built(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().Extensions[annotations_pb2.not_built])


def _request(method: MethodDescriptor, job_id: str) -> bytes:
    request: Any = valid_request(method.input_type)
    if method.name == "WatchJob":
        request.id = job_id
    for path in ("selector", "spec.selector"):
        holder, *inner = path.split(".")
        if holder in method.input_type.fields_by_name:
            place = getattr(request, holder)
            if not inner or hasattr(place, "selector"):
                selector = place.selector if inner else place
                if selector.ListFields():
                    del selector.names[:]
                    selector.names.append(name_of(1))
    return bytes(request.SerializeToString())


async def test_a_reader_that_stops_is_cut_and_nothing_of_it_stays(
    rig: GatewayRig, admin_key: str, url: str
) -> None:
    limits = {"gateway_stall_cut": "1", "gateway_max_watchers": "250"}
    async with served(rig, url, **limits) as (gateway, parts, job_id):
        process = psutil.Process(gateway.pid)
        requests = await streams(gateway, admin_key, job_id)
        assert len(requests) >= 15
        highest, quiet, seen = 0.0, 0, list[float]()
        while quiet < QUIET_ROUNDS:
            assert len(seen) < MOST_ROUNDS, f"it goes on growing: {seen}"
            await _stop_reading(gateway, requests, admin_key)
            await eventually(lambda: _let_go(parts), "the services' ends of the calls")
            seen.append(process.memory_info().rss / 1e6)
            quiet = quiet + 1 if seen[-1] < highest + 3 else 0
            highest = max(highest, seen[-1])
        assert "Traceback" not in gateway.log


async def _stop_reading(gateway: Gateway, requests: dict[str, bytes], key: str) -> None:
    """A connection for each method, whose client takes nothing; each has to be closed."""
    async with AsyncExitStack() as stack:
        clients = {}
        for path, request in requests.items():
            stubborn = StubbornClient("127.0.0.1", gateway.port, polite=True, window=0)
            clients[path] = await stack.enter_async_context(stubborn)
            for _ in range(CALLS):
                await clients[path].call(path, request, key)
        for path, client in clients.items():
            try:
                await asyncio.wait_for(client.closed.wait(), 60)
            except TimeoutError:
                pytest.fail(f"{path}: a client that takes nothing was not cut")


async def _let_go(parts: dict[str, Behind]) -> bool:
    return not any(part.running for part in parts.values())


async def test_a_key_that_is_revoked_ends_the_stream(
    rig: GatewayRig, admin_key: str, url: str
) -> None:
    async with served(rig, url) as (gateway, _, job_id):
        requests = await streams(gateway, admin_key, job_id)
        del requests[HEALTH]  # needs no key
        secret, key_id = await make_key(gateway, admin_key, "admin")
        calls = {}
        for path, request in requests.items():
            calls[path] = opened(gateway, path, secret)
            await calls[path].write(request)
            first = await asyncio.wait_for(calls[path].read(), 60)
            assert first is not grpc.aio.EOF, (path, await calls[path].code())
        await revoke(gateway, admin_key, key_id)
        for path, call in calls.items():
            if path not in FINITE:
                assert await end_of(call) == (
                    grpc.StatusCode.UNAUTHENTICATED,
                    "KEY_REVOKED",
                ), path
