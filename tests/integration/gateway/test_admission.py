"""What a caller costs before, and beside, what they may: memory, places, rates, and reasons."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import psutil
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from drey.access.v1 import access_service_pb2 as pb
from drey.access.v1 import access_service_pb2_grpc as pb_grpc
from drey_testing.fixtures_gateway import Gateway, GatewayRig, eventually
from tests.integration.gateway.test_access import bearer, failure, make_key

GET_VALUES = "/drey.monitor.v1.MonitorService/GetValues"
CREATE = "/drey.catalog.v1.CatalogService/BatchCreatePvs"
WHO = "/drey.access.v1.AccessService/WhoAmI"
WATCH = "/drey.job.v1.JobService/WatchJob"
MB = 1_000_000


def opened(gateway: Gateway, path: str, secret: str) -> Any:
    return gateway.channel.stream_stream(path)(metadata=bearer(secret))


async def refusal(call: Any) -> tuple[str, str, float]:
    """(code, reason, seconds after which to try again) of a stream that is refused."""
    with suppress(grpc.aio.AioRpcError):
        await asyncio.wait_for(call.read(), 60)
    wait = 0.0
    found = error_details_pb2.ErrorInfo()
    for key, value in await call.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(found)
                if detail.Unpack(retry):
                    wait = retry.retry_delay.ToNanoseconds() / 1e9
    return (await call.code()).name, found.reason, wait


async def test_without_a_key_nothing_is_read(rig: GatewayRig) -> None:
    gateway = await rig.ready_gateway()
    process = psutil.Process(gateway.pid)
    before = process.memory_info().rss
    highest = before
    raw = b"\x0a\x00" * (7 << 20)

    async def ask(path: str) -> str:
        call = gateway.channel.unary_unary(path)(raw)
        with suppress(grpc.aio.AioRpcError):
            await call
        return (await call.code()).name

    for path in (GET_VALUES, CREATE, WHO):
        asked = [asyncio.create_task(ask(path)) for _ in range(6)]
        while not all(task.done() for task in asked):
            highest = max(highest, process.memory_info().rss)
            await asyncio.sleep(0.01)
        # where the client was still sending, grpc.aio loses the status and makes up INTERNAL
        assert {task.result() for task in asked} <= {"UNAUTHENTICATED", "INTERNAL"}
    assert highest - before < 32 * MB, f"{(highest - before) / MB:.0f} MB"


async def test_a_small_refusal_is_never_lost(rig: GatewayRig) -> None:
    """The status goes out before the message is read; clients see it all the same."""
    gateway = await rig.ready_gateway(refusals_per_second="1000")
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
    for _ in range(300):
        code, reason, _ = await failure(stub.WhoAmI(pb.WhoAmIRequest()))
        assert (code.name, reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


async def test_every_refusal_has_a_reason_and_comes_after_the_key(
    rig: GatewayRig, admin_key: str
) -> None:
    gateway = await rig.ready_gateway()
    garbage = b"\x0a\xff\xff\xff\xff\x0f garbage"
    cases = [
        (GET_VALUES, garbage, "INVALID_ARGUMENT", "MALFORMED_MESSAGE"),
        (WHO, b"\x0b" * 300, "INVALID_ARGUMENT", "MALFORMED_MESSAGE"),
        ("/drey.access.v1.AccessService/NoSuchMethod", b"", "UNIMPLEMENTED", "UNKNOWN_METHOD"),
        ("/no.such.Service/Method", b"", "UNIMPLEMENTED", "UNKNOWN_METHOD"),
        ("/", b"", "UNIMPLEMENTED", "UNKNOWN_METHOD"),
        ("/grpc.reflection.v1.ServerReflection/X", b"", "UNIMPLEMENTED", "UNKNOWN_METHOD"),
    ]
    for path, raw, code, reason in cases:
        for secret, expected in ((admin_key, (code, reason)), ("x", ("UNAUTHENTICATED",) * 2)):
            call = gateway.channel.unary_unary(path)(raw, metadata=bearer(secret))
            found = await failure(call)
            assert (found[0].name, found[1]) == expected, path
    health = gateway.channel.unary_unary("/grpc.health.v1.Health/Check")(garbage)
    assert (await failure(health))[1] == "MALFORMED_MESSAGE"
    call = opened(gateway, WHO, admin_key)
    await call.done_writing()
    assert (await refusal(call))[:2] == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
    assert "Traceback" not in gateway.log


async def test_one_key_leaves_places_for_others(rig: GatewayRig, admin_key: str) -> None:
    gateway = await rig.ready_gateway(max_calls="10")
    greedy, _ = await make_key(gateway, admin_key, "viewer")
    calls = [opened(gateway, WHO, greedy) for _ in range(5)]
    await asyncio.gather(*(call.wait_for_connection() for call in calls))

    async def full() -> bool:
        call = opened(gateway, WHO, greedy)
        call_end = asyncio.create_task(refusal(call))
        done, _ = await asyncio.wait({call_end}, timeout=0.2)
        if not done:
            call.cancel()
            await asyncio.wait({call_end})
            return False
        code, reason, wait = call_end.result()
        return (code, reason) == ("RESOURCE_EXHAUSTED",) * 2 and wait > 0

    await eventually(full, "no place for a sixth call")
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
    assert (await stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(admin_key))).principal == "admin"
    for call in calls:
        call.cancel()

    async def room_again() -> bool:
        asked = stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(greedy))
        return (await failure(asked))[1] == ""

    await eventually(room_again, "places are given back")


async def test_calls_too_often_are_told_when_to_come_back(rig: GatewayRig, admin_key: str) -> None:
    gateway = await rig.ready_gateway(calls_per_second="2", refusals_per_second="1")
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)

    async def until_refused(metadata: Any) -> Any:
        for _ in range(200):
            call = gateway.channel.stream_stream(WHO)(metadata=metadata)
            with suppress(asyncio.InvalidStateError):
                await call.done_writing()
            found = await refusal(call)
            if found[0] == "RESOURCE_EXHAUSTED":
                return found
        return None

    found = await until_refused(bearer("nonsense"))
    assert found[1] == "RESOURCE_EXHAUSTED" and 0 < found[2] <= 1.1
    # a key that is known is let in from the same address, at its own rate
    assert (await stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(admin_key))).principal == "admin"
    found = await until_refused(bearer(admin_key))
    assert found[1] == "RESOURCE_EXHAUSTED" and 0 < found[2] <= 0.6


async def test_health_watches_have_places_of_their_own(rig: GatewayRig, admin_key: str) -> None:
    gateway = await rig.ready_gateway(max_probes="8")
    stub: Any = health_pb2_grpc.HealthStub(gateway.channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(4)]
    for watch in watches:
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    code, reason, wait = await refusal(stub.Watch(health_pb2.HealthCheckRequest()))
    assert (code, reason) == ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED") and wait > 0
    access: Any = pb_grpc.AccessServiceStub(gateway.channel)
    who = await access.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(admin_key))
    assert who.principal == "admin"
    for watch in watches:
        watch.cancel()
    await eventually(gateway.serving, "health calls again")


async def test_an_idle_connection_is_closed(rig: GatewayRig) -> None:
    gateway = await rig.ready_gateway(idle_connection="1")
    async with gateway.open_channel() as channel:
        await channel.channel_ready()
        state = channel.get_state()
        assert state is grpc.ChannelConnectivity.READY
        await asyncio.wait_for(channel.wait_for_state_change(state), 60)
    assert await gateway.serving()


@pytest.mark.parametrize("path", [WATCH, WHO])
async def test_an_end_without_a_message_frees_its_place(
    rig: GatewayRig, admin_key: str, path: str
) -> None:
    gateway = await rig.ready_gateway(max_calls="10", caller_share="0.2")
    for _ in range(20):
        call = opened(gateway, path, admin_key)
        await call.wait_for_connection()
        call.cancel()

    async def answered() -> bool:
        stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
        asked = stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(admin_key))
        return (await failure(asked))[1] == ""

    await eventually(answered, "a place")
