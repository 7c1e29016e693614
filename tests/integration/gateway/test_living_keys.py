"""Nothing passes the gateway under a key that has died, whenever it died, in either direction."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf import descriptor_pool

from drey.access.v1 import access_service_pb2 as pb
from drey.access.v1 import access_service_pb2_grpc as pb_grpc
from drey.snapshot.v1 import snapshot_service_pb2 as snap
from drey_gateway.app import FORWARDED
from drey_runtime.auth import TokenVerifier
from drey_runtime.server import serve_grpc
from drey_runtime.settings import CommonSettings
from drey_testing.fixtures_gateway import (
    REFERENCE,
    Gateway,
    GatewayRig,
    ReferenceStandIn,
    eventually,
)
from tests.integration.gateway.test_access import bearer, behind, failure, make_key

CATALOG = "drey.catalog.v1.CatalogService"
RESTORE = "drey.restore.v1.RestoreService"
SNAPSHOT = "drey.snapshot.v1.SnapshotService"
UNARY = f"/{SNAPSHOT}/GetSnapshot"
UPLOAD = f"/{CATALOG}/ImportPvs"
DOWNLOAD = f"/{SNAPSHOT}/ReadSnapshot"


class Behind:
    """Every service behind the gateway: remembers each message that came through."""

    def __init__(self, service: str) -> None:
        self.came: list[str] = []
        self.running = 0
        """Streams that are being served."""
        self.ended = asyncio.Event()
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            kind = self._stream if method.server_streaming else self._single
            setattr(self, method.name, self._bound(kind, method.name, method.client_streaming))

    def _bound(self, kind: Any, name: str, streams_in: bool) -> Any:
        return lambda request, context: kind(request, context, name, streams_in)

    async def _single(self, request: Any, context: Any, name: str, streams_in: bool) -> bytes:
        self.came.append(name)
        return b""

    async def _stream(
        self, request: Any, context: Any, name: str, streams_in: bool
    ) -> AsyncIterator[bytes]:
        self.running += 1
        try:
            if streams_in:
                async for _ in request:
                    self.came.append(name)
                    yield b""
            else:
                self.came.append(name)
                yield b""
                await asyncio.Event().wait()  # silent from here on
        finally:
            self.running -= 1
            self.ended.set()


@asynccontextmanager
async def everything(rig: GatewayRig, **settings: str) -> AsyncIterator[tuple[Gateway, Any]]:
    """A gateway with all that is forwarded behind it."""
    parts = {service: Behind(service) for service in FORWARDED}
    trusted = rig.folder / "keys" / "trusted.json"
    targets = {}
    async with AsyncExitStack() as stack:
        for name in set(FORWARDED.values()):
            served: list[tuple[str, object]] = [
                (s, parts[s]) for s, part in FORWARDED.items() if part == name
            ]
            if name == "snapshot":
                served.append((REFERENCE, ReferenceStandIn(2)))
            port, _ = await stack.enter_async_context(
                serve_grpc(
                    CommonSettings(),
                    "127.0.0.1:0",
                    TokenVerifier.from_file(trusted, name),
                    served,
                )
            )
            targets[f"{name}_target"] = f"127.0.0.1:{port}"
        gateway = await rig.ready_gateway(**targets, **settings)
        yield gateway, parts


async def says(gateway: Gateway, secret: str) -> str:
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
    return (await failure(stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(secret))))[1]


async def revoke(gateway: Gateway, admin: str, key_id: str) -> None:
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
    await stub.RevokeKey(pb.RevokeKeyRequest(id=key_id), metadata=bearer(admin))


async def expire_soon(url: str, key_id: str) -> None:
    """Half a second, which nobody has to do anything in; the gateway hears of it by looking."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "UPDATE access.key SET expire_time_ns = $2 WHERE id = $1",
        key_id,
        time.time_ns() + 500_000_000,
    )
    await connection.close()


def opened(gateway: Gateway, path: str, secret: str) -> Any:
    """A call of which only the headers have been sent."""
    return gateway.channel.stream_stream(path)(metadata=bearer(secret))


async def end_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """(code, reason) at its end; messages before it are left out."""
    code, reason, _ = await asyncio.wait_for(failure(_rest(call)), 60)
    return code, reason


async def _rest(call: Any) -> AsyncIterator[bytes]:
    while (message := await call.read()) is not grpc.aio.EOF:
        yield message
    if (code := await call.code()) is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata()
        )


@pytest.mark.parametrize("way", ["KEY_REVOKED", "KEY_EXPIRED"])
async def test_what_comes_after_the_end_of_the_key_goes_nowhere(
    rig: GatewayRig, admin_key: str, url: str, way: str
) -> None:
    """Every method of every service that is forwarded, and of those served here.

    A key for each service: one key alone is read only its share of first messages at a time.
    """
    pool = descriptor_pool.Default()
    async with everything(rig, gateway_poll="0.2") as (gateway, parts):
        for service in [*FORWARDED, "drey.access.v1.AccessService", "drey.job.v1.JobService"]:
            methods = pool.FindServiceByName(service).methods
            await _ends(gateway, admin_key, url, way, [f"/{service}/{m.name}" for m in methods])
        assert [part.came for part in parts.values()] == [[] for _ in parts]


async def _ends(gateway: Gateway, admin_key: str, url: str, way: str, paths: list[str]) -> None:
    """Each of the calls, opened under a key, says of what the key died, and takes no message."""
    secret, key_id = await make_key(gateway, admin_key, "admin")
    calls = [opened(gateway, path, secret) for path in paths]
    await asyncio.gather(*(call.wait_for_connection() for call in calls))
    assert await says(gateway, secret) == ""
    if way == "KEY_REVOKED":
        await revoke(gateway, admin_key, key_id)
    else:
        await expire_soon(url, key_id)

    async def dead() -> bool:
        return await says(gateway, secret) == way

    await eventually(dead, "the end of the key")

    for path, call in zip(paths, calls, strict=True):
        assert await end_of(call) == (grpc.StatusCode.UNAUTHENTICATED, way), path
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await call.write(b"")


@pytest.mark.parametrize("way", ["KEY_REVOKED", "KEY_EXPIRED", "PERMISSION_DENIED"])
async def test_running_streams_are_cut(rig: GatewayRig, admin_key: str, url: str, way: str) -> None:
    """One that sends, one that is sent; both silent when it happens."""
    async with everything(rig, gateway_poll="0.2") as (gateway, parts):
        secret, key_id = await make_key(gateway, admin_key, "admin")
        upload = opened(gateway, UPLOAD, secret)
        await upload.write(b"")
        download = opened(gateway, DOWNLOAD, secret)
        await download.write(snap.ReadSnapshotRequest(id=str(uuid.uuid4())).SerializeToString())
        await download.done_writing()
        assert await upload.read() == b"" and await download.read() == b""
        if way == "KEY_REVOKED":
            await revoke(gateway, admin_key, key_id)
        elif way == "KEY_EXPIRED":
            await expire_soon(url, key_id)
        else:
            connection = await asyncpg.connect(url)
            await connection.execute(
                "UPDATE access.key SET roles = ARRAY['viewer'] WHERE id = $1", key_id
            )
            await connection.close()
        code = {"PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED}.get(
            way, grpc.StatusCode.UNAUTHENTICATED
        )
        assert await end_of(upload) == (code, way)
        if way == "PERMISSION_DENIED":  # a viewer may go on reading
            assert not download.done()
            download.cancel()
        else:
            assert await end_of(download) == (code, way)
        for service in (SNAPSHOT, CATALOG):
            await asyncio.wait_for(parts[service].ended.wait(), 60)


async def test_a_reader_that_reads_nothing_is_cut_too(rig: GatewayRig, admin_key: str) -> None:
    async with behind(rig) as (fake, gateway):
        secret, key_id = await make_key(gateway, admin_key, "admin")
        call = gateway.channel.unary_stream(DOWNLOAD)(
            snap.ReadSnapshotRequest(id=str(uuid.uuid4())).SerializeToString(),
            metadata=bearer(secret),
        )
        assert await call.read()
        await fake.wait_full()
        assert not fake.cancelled.is_set()
        await revoke(gateway, admin_key, key_id)
        await asyncio.wait_for(fake.cancelled.wait(), 60)


async def test_who_ends_their_own_key_is_told_so(rig: GatewayRig, admin_key: str) -> None:
    gateway = await rig.ready_gateway()
    secret, key_id = await make_key(gateway, admin_key, "admin")
    await revoke(gateway, secret, key_id)
    assert await says(gateway, secret) == "KEY_REVOKED"


async def test_a_first_message_has_a_deadline(rig: GatewayRig, admin_key: str) -> None:
    async with everything(rig, first_message="0.3") as (gateway, parts):
        calls = [opened(gateway, path, admin_key) for path in (UNARY, UPLOAD, DOWNLOAD)]
        calls.append(opened(gateway, "/drey.access.v1.AccessService/WhoAmI", admin_key))
        for call in calls:
            assert await end_of(call) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        # health calls without a key too
        call = gateway.channel.stream_stream("/grpc.health.v1.Health/Check")()
        assert await end_of(call) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert [part.came for part in parts.values()] == [[] for _ in parts]
