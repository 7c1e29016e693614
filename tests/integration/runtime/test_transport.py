"""How the parts speak with each other: certificates of both sides, Unix sockets, NATS and Redis."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import nkeys
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nats.errors import Error as NatsError

from drey.access.v1 import access_service_pb2 as pb
from drey.access.v1 import access_service_pb2_grpc as pb_grpc
from drey_core.errors import Unavailable
from drey_runtime.bus import Bus
from drey_runtime.image import Image
from drey_runtime.server import PublicServing, channel, serve_grpc
from drey_runtime.settings import CommonSettings
from drey_stack import Postgres, Valkey
from drey_stack.nats import nats_program
from drey_stack.ports import LOOPBACK, free_port
from drey_stack.process import Process
from drey_testing.certificates import Authority, Pair
from tests.integration.runtime.test_server import SERVICE, ByName, Servicer

AS_VIEWER = {"metadata": (("token", "VIEWER"),), "timeout": 5}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


def secured(authority: Authority, part: Pair, **more: Any) -> CommonSettings:
    return CommonSettings(
        tls_cert=part.certificate,
        tls_key=part.key,
        tls_ca=authority.certificate,
        tls_client_ca=authority.certificate,
        **more,
    )


@asynccontextmanager
async def listening(
    settings: CommonSettings, listen: str = "127.0.0.1:0", *, public: bool = False
) -> AsyncIterator[int]:
    services = [(SERVICE, Servicer())]
    side = PublicServing() if public else None
    async with serve_grpc(settings, listen, ByName(), services, public=side) as (port, _):
        yield port


async def who(found: grpc.aio.Channel) -> str:
    stub: Any = pb_grpc.AccessServiceStub(found)
    answer = await stub.WhoAmI(pb.WhoAmIRequest(), **AS_VIEWER)
    return str(answer.principal)


async def test_a_part_without_a_certificate_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "strangers", "stranger").sign("stranger")
    async with listening(secured(authority, authority.sign("snapshot"))) as port:
        target = f"127.0.0.1:{port}"
        async with channel(secured(authority, authority.sign("gateway")), target) as known:
            assert await who(known) == "viewer"
        for settings in (
            CommonSettings(tls_ca=authority.certificate),
            CommonSettings(
                tls_ca=authority.certificate,
                tls_client_cert=stranger.certificate,
                tls_client_key=stranger.key,
            ),
            CommonSettings(),
        ):
            async with channel(settings, target) as unknown:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await who(unknown)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_public_listener_asks_nobody_for_a_certificate(authority: Authority) -> None:
    settings = secured(authority, authority.sign("gateway"))
    async with (
        listening(settings, public=True) as port,
        channel(CommonSettings(tls_ca=authority.certificate), f"127.0.0.1:{port}") as found,
    ):
        assert await who(found) == "viewer"


async def test_a_unix_socket_is_plain_whatever_the_certificates(
    authority: Authority, tmp_path: Path
) -> None:
    settings = secured(authority, authority.sign("part"))
    target = f"unix:{tmp_path}/part.sock"
    async with listening(settings, target), channel(settings, target) as found:
        assert await who(found) == "viewer"


# --- NATS ---


async def started(process: Process, port: int) -> None:
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.close()
            return
        assert process.returncode is None, "the server has ended"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def nats(folder: Path, text: str) -> AsyncIterator[int]:
    port = free_port()
    (folder / "nats.conf").write_text(f'host: "{LOOPBACK}"\nport: {port}\n{text}\n')
    argv = [nats_program(), "-c", str(folder / "nats.conf")]
    process = Process.spawn_process(argv, log=folder / "nats.log")
    try:
        await started(process, port)
        yield port
    finally:
        process.kill_group()
        await process.wait()


@asynccontextmanager
async def running(bus: Bus) -> AsyncIterator[Bus]:
    task = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_nats_by_tls_certificate_and_nkey(authority: Authority, tmp_path: Path) -> None:
    server, part = authority.sign("nats"), authority.sign("part")
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
    user = nkeys.from_seed(bytearray(seed)).public_key.decode()
    (tmp_path / "user.nk").write_bytes(seed)
    text = (
        f'tls {{ cert_file: "{server.certificate}", key_file: "{server.key}",'
        f' ca_file: "{authority.certificate}", verify: true }}\n'
        f"authorization {{ users: [ {{ nkey: {user} }} ] }}"
    )
    whole = {
        "nats_ca": authority.certificate,
        "nats_cert": part.certificate,
        "nats_key": part.key,
        "nats_nkey": tmp_path / "user.nk",
    }
    async with nats(tmp_path, text) as port:
        url = f"tls://{LOOPBACK}:{port}"
        async with running(
            Bus.bus_of_service(CommonSettings(nats_url=url, **whole), "part")
        ) as bus:
            await bus.wait_connected(60)
            got: asyncio.Queue[bytes] = asyncio.Queue()

            async def put(message: Any) -> None:
                await got.put(message.data)

            await bus.subscribe_handler("x", put)
            await bus.nc.flush()
            await bus.publish("x", b"hello")
            assert await asyncio.wait_for(got.get(), 60) == b"hello"
        for lacking in (("nats_cert", "nats_key"), ("nats_nkey",)):
            some = {name: value for name, value in whole.items() if name not in lacking}
            settings = CommonSettings(nats_url=url, **some)
            async with running(Bus.bus_of_service(settings, "part")) as bus:
                with pytest.raises((Unavailable, NatsError)):
                    await bus.wait_connected(0.7)


# --- Redis and Postgres ---

Handshake = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def behind_tls(
    port: int, authority: Authority, handshake: Handshake | None = None
) -> AsyncIterator[int]:
    """A relay that asks for a certificate in front of a server that is built without TLS."""
    pair = authority.sign("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pair.certificate, pair.key)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if handshake is not None:
                await handshake(reader, writer)
                await writer.start_tls(context)
            inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, port)
            await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    at_once = None if handshake is not None else context
    server = await asyncio.start_server(relay, LOOPBACK, 0, ssl=at_once)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_redis_by_tls_and_by_unix_socket(authority: Authority, tmp_path: Path) -> None:
    part = authority.sign("part")
    async with AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(Valkey(tmp_path / "valkey"))
        port = await stack.enter_async_context(behind_tls(valkey.port, authority))
        url = (
            f"rediss://:{valkey.password}@{LOOPBACK}:{port}/0?ssl_ca_certs={authority.certificate}"
        )
        shown = f"&ssl_certfile={part.certificate}&ssl_keyfile={part.key}"
        async with Image.open_image(url + shown, "drey") as image:
            await image.ping_server()
        async with Image.open_image(url, "drey") as image:
            with pytest.raises(Unavailable):
                await image.ping_server()


async def test_postgres_by_tls(authority: Authority, tmp_path: Path) -> None:
    part = authority.sign("part")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readexactly(8))[4:] == b"\x04\xd2\x16\x2f"  # SSLRequest
        writer.write(b"S")
        await writer.drain()

    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(Postgres(tmp_path / "pg", fsync=False))
        port = await stack.enter_async_context(behind_tls(postgres.port, authority, accept))
        base = postgres.url.replace(str(postgres.port), str(port))
        checked = f"{base}?sslmode=verify-full&sslrootcert={authority.certificate}"
        shown = f"&sslcert={part.certificate}&sslkey={part.key}"
        connection = await asyncpg.connect(checked + shown)
        try:
            assert await connection.fetchval("SELECT 1") == 1
        finally:
            await connection.close()
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await asyncpg.connect(checked, timeout=60)


async def test_the_kubelet_asks_for_health_without_tls_and_for_nothing_else(
    authority: Authority,
) -> None:
    probes = f"127.0.0.1:{free_port()}"
    settings = secured(authority, authority.sign("snapshot"), probe_listen=probes)
    services = [(SERVICE, Servicer())]
    async with (
        serve_grpc(settings, "127.0.0.1:0", ByName(), services) as (_, health),
        grpc.aio.insecure_channel(probes) as found,
    ):
        stub = health_pb2_grpc.HealthStub(found)
        states = health_pb2.HealthCheckResponse.ServingStatus

        async def state_of(service: str) -> int:
            request = health_pb2.HealthCheckRequest(service=service)
            return int((await stub.Check(request, timeout=5)).status)

        assert await state_of("") == states.SERVING
        assert await state_of(SERVICE) == states.NOT_SERVING
        await health.set(True)
        assert await state_of(SERVICE) == states.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await who(found)
        assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED
