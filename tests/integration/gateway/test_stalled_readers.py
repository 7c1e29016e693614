"""Clients that open calls and never read: cut, and everything that was kept for them let go."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial
from typing import Any

import psutil
import pytest

from drey.common.v1 import selector_pb2
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.snapshot.v1 import snapshot_service_pb2
from drey_testing.fixtures_gateway import (
    Gateway,
    GatewayRig,
    ScriptedOwner,
    catalog_pages,
    eventually,
    floats,
    readback,
    setpoint,
)
from drey_testing.raw_http2 import StubbornClient
from tests.integration.gateway.test_access import behind
from tests.integration.gateway.test_watch import watching

PVS = 4000
CALLS, CONNECTIONS = 100, 4
QUIET_ROUNDS, MOST_ROUNDS = 3, 20
ALL = selector_pb2.Selector(all=True)
WATCH = ("/drey.monitor.v1.MonitorService/WatchPvs", pb.WatchPvsRequest(spec={"selector": ALL}))
GET = ("/drey.monitor.v1.MonitorService/GetValues", pb.GetValuesRequest(selector=ALL))
CHANNELS = [channel for pv in range(1, PVS + 1) for channel in (setpoint(pv), readback(pv))]


async def publish(publisher: ScriptedOwner, value: float) -> None:
    await publisher.publish(floats(CHANNELS, [value] * len(CHANNELS)))


@pytest.fixture
async def served(rig: GatewayRig):
    publisher = rig.publisher()
    await publisher.beat()
    await publisher.set_catalog(catalog_pages(PVS))
    await publish(publisher, 0.0)
    publisher.start()
    gateway = await rig.ready_gateway(gateway_stall_cut="1", gateway_max_watchers="250")
    yield gateway, publisher
    await publisher.stop()


def megabytes(gateway: Gateway) -> float:
    return psutil.Process(gateway.pid).memory_info().rss / 1e6


def connections(gateway: Gateway) -> int:
    return len(psutil.Process(gateway.pid).net_connections("tcp"))


@pytest.mark.parametrize(
    ("call", "polite"),
    [(WATCH, True), (WATCH, False), (GET, True)],
    ids=["WatchPvs-polite", "WatchPvs-silent", "GetValues-polite"],
)
async def test_a_reader_that_never_reads_leaves_nothing(served, admin_key, polite, call):
    gateway, publisher = served
    path, request = call
    before = connections(gateway)
    highest, quiet, seen = 0.0, 0, list[float]()
    # the first rounds find the size that so many calls at a time take; a leak grows in every one
    while quiet < QUIET_ROUNDS:
        turn = len(seen)
        assert turn < MOST_ROUNDS, f"it goes on growing: {seen}"
        # they stay connected for as long as they can: nothing is freed by their leaving
        clients = [
            await StubbornClient("127.0.0.1", gateway.port, polite=polite).__aenter__()
            for _ in range(CONNECTIONS)
        ]
        for i in range(CALLS):
            client = clients[i % CONNECTIONS]
            await client.call(path, request.SerializeToString(), admin_key)
        await publish(publisher, float(turn))

        async def let_go() -> bool:
            return connections(gateway) <= before

        await eventually(let_go, "connections closed by the gateway")
        seen.append(megabytes(gateway))
        quiet = quiet + 1 if seen[-1] < highest + 5 else 0
        highest = max(highest, seen[-1])
        for client in clients:
            await client.__aexit__()
    assert "Traceback" not in gateway.log


async def test_others_read_on_and_a_shared_connection_is_kept(served, admin_key):
    gateway, publisher = served
    async with watching(gateway, admin_key) as running:
        # the one connection carries a watch that is read beside one that is not
        stub_call: Any = gateway.channel.unary_stream(WATCH[0])(
            WATCH[1].SerializeToString(), metadata=(("authorization", f"Bearer {admin_key}"),)
        )
        await stub_call.initial_metadata()
        async with StubbornClient("127.0.0.1", gateway.port, polite=True) as stubborn:
            await stubborn.call(WATCH[0], WATCH[1].SerializeToString(), admin_key)
            await asyncio.wait_for(stubborn.closed.wait(), 60)

        async def cut() -> bool:
            await publish(publisher, 1.0)
            return gateway.log.count("a call is cut") >= 2

        await eventually(cut, "both are cut")
        await publish(publisher, 2.0)
        await running.until(lambda c: c.value(1) == 2.0, "the others go on")
        assert running.client.ended_baselines == 1
        stub_call.cancel()


async def test_a_client_that_leaves_is_no_error(served, admin_key):
    gateway, publisher = served
    for turn in range(3):
        async with watching(gateway, admin_key):
            await publish(publisher, float(turn))
    async with StubbornClient("127.0.0.1", gateway.port, polite=True) as stubborn:
        await stubborn.call(WATCH[0], WATCH[1].SerializeToString(), admin_key)
        await asyncio.sleep(0.3)

    async with watching(gateway, admin_key):
        assert "Traceback" not in gateway.log and '"ERROR"' not in gateway.log


async def test_a_forwarded_stream_that_is_not_read_is_cut(rig, admin_key, monkeypatch):
    monkeypatch.setattr(rig, "gateway", partial(rig.gateway, gateway_stall_cut="1"))
    async with behind(rig) as (fake, gateway):
        request = snapshot_service_pb2.ReadSnapshotRequest(id=str(uuid.uuid4()))
        async with StubbornClient("127.0.0.1", gateway.port, polite=True) as stubborn:
            path = "/drey.snapshot.v1.SnapshotService/ReadSnapshot"
            await stubborn.call(path, request.SerializeToString(), admin_key)
            await asyncio.wait_for(fake.cancelled.wait(), 60)
            await asyncio.wait_for(stubborn.closed.wait(), 60)
        assert "a call is cut" in gateway.log and "Traceback" not in gateway.log
