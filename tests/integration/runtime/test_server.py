"""The server and its interceptor, over a real connection."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from drey.access.v1 import access_service_pb2, access_service_pb2_grpc
from drey_core.errors import NotFound, Unauthenticated
from drey_runtime.auth import Principal, current_principal
from drey_runtime.server import channel, serve_grpc
from drey_runtime.settings import CommonSettings

SERVICE = "drey.access.v1.AccessService"


class ByName:
    """The role is the token."""

    def renew_principal(self, principal: Principal) -> Principal:
        return principal

    def authenticate_call(self, metadata: Mapping[str, str], method: str, peer: str) -> Principal:
        token = metadata.get("token", "")
        if not token:
            raise Unauthenticated("no token")
        return Principal(token.lower(), (token.lower(),))


class Servicer:
    async def WhoAmI(self, request: Any, context: Any) -> Any:
        principal = current_principal.get()
        return access_service_pb2.WhoAmIResponse(principal=principal.name)

    async def ListRoles(self, request: Any, context: Any) -> Any:
        return access_service_pb2.ListRolesResponse()

    async def CreateKey(self, request: Any, context: Any) -> Any:
        if request.name == "slow":
            await asyncio.sleep(30)
        if request.name == "given up":
            shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            shared.cancel()
            await shared
        raise RuntimeError("a defect with a secret in it")

    async def ListKeys(self, request: Any, context: Any) -> bytes:
        return access_service_pb2.ListKeysResponse(next_page_token="x").SerializeToString()

    async def RevokeKey(self, request: Any, context: Any) -> Any:
        raise NotFound("there is none", metadata={"id": request.id})


@pytest.fixture
async def stub() -> AsyncIterator[Any]:
    settings = CommonSettings()
    async with serve_grpc(settings, "127.0.0.1:0", ByName(), [(SERVICE, Servicer())]) as (
        port,
        health,
    ):
        await health.set(True)
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", 32 << 20)]
        ) as channel:
            yield access_service_pb2_grpc.AccessServiceStub(channel), channel


def as_role(role: str) -> dict[str, Any]:
    return {"metadata": (("token", role),), "timeout": 5}


async def refused(call: Any) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_details_pb2.ErrorInfo()
    for key, value in caught.value.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status_pb2.Status.FromString(value).details[0].Unpack(info)
    return caught.value.code(), info, caught.value.details() or ""


async def test_the_caller_is_known_inside(stub: Any) -> None:
    access, _ = stub
    answer = await access.WhoAmI(access_service_pb2.WhoAmIRequest(), **as_role("VIEWER"))
    assert answer.principal == "viewer"


async def test_encoded_bytes_are_an_answer(stub: Any) -> None:
    access, _ = stub
    answer = await access.ListKeys(access_service_pb2.ListKeysRequest(), **as_role("ADMIN"))
    assert answer.next_page_token == "x"


async def test_nobody_and_too_small(stub: Any) -> None:
    access, _ = stub
    code, info, _ = await refused(access.WhoAmI(access_service_pb2.WhoAmIRequest(), timeout=60))
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    code, info, text = await refused(
        access.ListKeys(access_service_pb2.ListKeysRequest(), **as_role("RESTORER"))
    )
    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert dict(info.metadata) == {"permission": "access.keys.list", "roles": "restorer"}
    assert text == f"/{SERVICE}/ListKeys needs the role admin; restorer is restorer"


async def test_errors_carry_their_reason(stub: Any) -> None:
    access, _ = stub
    unknown = "01890000-0000-7000-8000-000000000000"
    code, info, _ = await refused(
        access.RevokeKey(access_service_pb2.RevokeKeyRequest(id=unknown), **as_role("ADMIN"))
    )
    assert (code, info.reason, info.metadata["id"]) == (
        grpc.StatusCode.NOT_FOUND,
        "NOT_FOUND",
        unknown,
    )


async def test_a_defect_tells_its_trace_and_nothing_else(stub: Any) -> None:
    access, _ = stub
    request = access_service_pb2.CreateKeyRequest(name="x", grants=[{"role": "viewer"}])
    code, info, text = await refused(access.CreateKey(request, **as_role("ADMIN")))
    assert (code, info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in text
    assert info.metadata["trace_id"] in text


async def test_work_that_is_cancelled_from_inside_is_told_as_a_defect(stub: Any) -> None:
    access, _ = stub
    request = access_service_pb2.CreateKeyRequest(name="given up", grants=[{"role": "viewer"}])
    call = access.CreateKey(request, metadata=(("token", "ADMIN"),), timeout=60)
    code, info, _ = await refused(call)
    assert (code, info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")


async def test_who_waits_is_told_that_the_server_stops() -> None:
    async with serve_grpc(CommonSettings(), "127.0.0.1:0", ByName(), [(SERVICE, Servicer())]) as (
        port,
        _,
    ):
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        stub = access_service_pb2_grpc.AccessServiceStub(channel)
        request = access_service_pb2.CreateKeyRequest(name="slow", grants=[{"role": "viewer"}])
        call = stub.CreateKey(request, metadata=(("token", "ADMIN"),))
        await stub.WhoAmI(access_service_pb2.WhoAmIRequest(), **as_role("VIEWER"))
    async with channel:
        code, info, text = await refused(call)
    assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE")
    assert text == "this server stops; connect again"


async def test_limits_come_before_the_handler(stub: Any) -> None:
    access, _ = stub
    code, info, _ = await refused(
        access.CreateKey(access_service_pb2.CreateKeyRequest(), **as_role("ADMIN"))
    )
    assert (code, info.reason, info.metadata["field"]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "name",
    )


async def test_a_large_request_is_told_its_size(stub: Any) -> None:
    access, _ = stub
    request = access_service_pb2.ListKeysRequest(page_token="x" * ((4 << 20) + 1))
    code, info, _ = await refused(access.ListKeys(request, **as_role("ADMIN")))
    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    request = access_service_pb2.ListKeysRequest(page_token="x" * (5 << 20))
    code, _, text = await refused(access.ListKeys(request, **as_role("ADMIN")))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text


async def test_a_deadline_ends_the_call(stub: Any) -> None:
    access, _ = stub
    request = access_service_pb2.CreateKeyRequest(name="slow", grants=[{"role": "viewer"}])
    call = access.CreateKey(request, metadata=(("token", "ADMIN"),), timeout=0.2)
    code, _, _ = await refused(call)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_health_needs_no_key(stub: Any) -> None:
    _, channel = stub
    health = health_pb2_grpc.HealthStub(channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_server_that_shakes_hands_late_is_reached() -> None:
    """A loaded machine needs longer for a connection than for anything after it."""
    settings = CommonSettings()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(reader, behind_writer), _copy(behind_reader, writer))

    async with serve_grpc(settings, "127.0.0.1:0", ByName(), [(SERVICE, Servicer())]) as (port, _):
        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        async with server:
            target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with channel(settings, target) as late:
                stub = access_service_pb2_grpc.AccessServiceStub(late)
                request = access_service_pb2.WhoAmIRequest()
                answer = await stub.WhoAmI(request, metadata=(("token", "Admin"),))
    assert answer.principal == "admin"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
