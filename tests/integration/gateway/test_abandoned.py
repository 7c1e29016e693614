"""Streams of the gateway that a reader leaves half read, in every way: nothing of them stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from drey.audit.v1 import audit_service_pb2, audit_service_pb2_grpc
from drey.common.v1 import selector_pb2
from drey.event.v1 import event_service_pb2, event_service_pb2_grpc
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import monitor_service_pb2_grpc as pb_grpc
from drey.monitor.v1 import watch_pb2
from drey.system.v1 import system_service_pb2, system_service_pb2_grpc
from drey_gateway.app import main
from drey_gateway.settings import GatewaySettings
from drey_testing.fixtures_catalog import loopback, running
from drey_testing.fixtures_gateway import WATCHES, GatewayRig, ScriptedOwner, eventually
from drey_testing.live_calls import live_calls, wait_calls_gone
from tests.integration.gateway.test_access import bearer

ROUNDS, CALLS = 5, 3
EVERYTHING = selector_pb2.Selector(all=True)
SPEC = watch_pb2.WatchSpec(selector=EVERYTHING, with_metadata=True)


def _makers(channel: grpc.aio.Channel, key: str) -> list[Callable[[], Any]]:
    """Each begins a stream."""
    monitor: Any = pb_grpc.MonitorServiceStub(channel)
    audit: Any = audit_service_pb2_grpc.AuditServiceStub(channel)
    events: Any = event_service_pb2_grpc.EventServiceStub(channel)
    system: Any = system_service_pb2_grpc.SystemServiceStub(channel)
    session = pb.OpenWatchRequest(subscriptions=[pb.Subscription(name="a", spec=SPEC)])
    asked = [
        (monitor.WatchPvs, pb.WatchPvsRequest(spec=SPEC)),
        (monitor.OpenWatch, session),
        (monitor.GetValues, pb.GetValuesRequest(selector=EVERYTHING, with_metadata=True)),
        (audit.WatchEvents, audit_service_pb2.WatchEventsRequest(after_sequence=0)),
        (events.WatchEvents, event_service_pb2.WatchEventsRequest()),
        (system.WatchSystemSummary, system_service_pb2.WatchSystemSummaryRequest()),
    ]
    return [partial(method, sent, metadata=bearer(key), timeout=60) for method, sent in asked]


async def _serves(channel: grpc.aio.Channel) -> bool:
    health: Any = health_pb2_grpc.HealthStub(channel)
    try:
        answer = await health.Check(health_pb2.HealthCheckRequest(service=WATCHES), timeout=5)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize("how", ["cancel", "close", "leave"])
async def test_nothing_stays_of_streams_that_are_left_half_read(
    rig: GatewayRig, publisher: ScriptedOwner, url: str, admin_key: str, how: str
) -> None:
    dead = loopback()
    settings = GatewaySettings.model_validate(
        {
            "postgres_url": url,
            "nats_url": rig.nats.url,
            "redis_url": rig.valkey.url,
            "namespace": "test",
            "signing_key": rig.folder / "keys" / "gateway.pem",
            "trusted_keys": rig.folder / "keys" / "trusted.json",
            "listen": loopback(),
            **{f"{name}_target": dead for name in ("snapshot", "restore", "monitor")},
        }
    )
    before = None
    async with running(main, settings):
        for _ in range(ROUNDS):
            channel = grpc.aio.insecure_channel(settings.listen)
            await eventually(partial(_serves, channel), "the gateway serves watches")
            calls = [make() for make in _makers(channel, admin_key) * CALLS]
            readers = [call.__aiter__() for call in calls]
            assert all(await asyncio.gather(*(anext(reader) for reader in readers)))
            if how == "cancel":
                for call in calls:
                    call.cancel()
            if how == "leave":
                calls.clear()
                readers.clear()
            await channel.close()
            del channel, calls, readers
            if before is None:
                await asyncio.sleep(0.5)
                before = live_calls()  # what is made once is made by now
        assert before is not None
        await wait_calls_gone(before)
