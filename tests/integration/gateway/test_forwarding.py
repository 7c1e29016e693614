"""Calls that fail behind the gateway: whoever called is told a reason, whatever was in the way."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from types import AsyncGeneratorType
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from drey.catalog.v1 import catalog_service_pb2 as pb
from drey.catalog.v1 import catalog_service_pb2_grpc
from drey.internal.reference.v1 import reference_service_pb2 as pb_reference
from drey.internal.reference.v1 import reference_service_pb2_grpc as pb_reference_grpc
from drey_client import Client
from drey_core.errors import NotFound, Reason, Unauthenticated
from drey_gateway.adapters.references import ReferenceClient
from drey_gateway.forwarding import Forwarder
from drey_runtime.auth import TokenSigner
from drey_runtime.server import PublicServing, serve_grpc
from drey_runtime.settings import CommonSettings
from drey_runtime.status import STATUS_METADATA, reason_of, to_status
from tests.integration.runtime.test_server import ByName

CATALOG = "drey.catalog.v1.CatalogService"
ADMIN = (("token", "ADMIN"),)
GIVEN = to_status(NotFound("it says so itself")).SerializeToString()


@contextmanager
def upstream(handler: Any) -> Iterator[str]:
    """A service in threads: it answers while the loop stands still."""

    class Service(grpc.GenericRpcHandler):
        def service(self, _details: Any) -> Any:
            return grpc.stream_stream_rpc_method_handler(handler)

    server = grpc.server(ThreadPoolExecutor(4), handlers=(Service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


class Starved:
    """A channel in a process that stands still between the headers and the messages of a call."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def stream_stream(self, path: str) -> Any:
        def begin_call(**options: Any) -> Any:
            call: Any = self._channel.stream_stream(path)(**options)
            connect = call.wait_for_connection

            async def connect_and_stand_still() -> None:
                await connect()
                time.sleep(0.3)  # noqa: ASYNC251  the loop stands still

            call.wait_for_connection = connect_and_stand_still
            return call

        return begin_call


@asynccontextmanager
async def forwarding(handler: Any) -> AsyncIterator[Any]:
    signer = TokenSigner("gateway", Ed25519PrivateKey.generate())
    with upstream(handler) as target:
        async with grpc.aio.insecure_channel(target) as behind:
            starved: Any = Starved(behind)
            forwarder = Forwarder({CATALOG: ("snapshot", starved)}, signer)
            settings = CommonSettings()
            async with (
                serve_grpc(
                    settings,
                    "127.0.0.1:0",
                    ByName(),
                    [],
                    public=PublicServing(forwarded=([], forwarder)),
                ) as (
                    port,
                    _,
                ),
                grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            ):
                yield catalog_service_pb2_grpc.CatalogServiceStub(channel)


async def failure(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, reason_of(caught.value)[0]


async def import_file(stub: Any) -> Any:
    call = stub.ImportPvs(metadata=ADMIN, timeout=60)
    await call.write(pb.ImportPvsRequest(options={"format": "FILE_FORMAT_CSV"}))
    return await call.read()


async def test_every_status_without_a_reason_is_given_one() -> None:
    wanted = ""

    def end_call(_requests: Any, context: Any) -> Iterator[bytes]:
        context.abort(grpc.StatusCode[wanted], "gRPC itself says so")
        yield b""

    async with forwarding(end_call) as stub:
        for code in grpc.StatusCode:
            if code is not grpc.StatusCode.OK:
                wanted = code.name
                get = stub.GetPv(pb.GetPvRequest(name="A"), metadata=ADMIN, timeout=60)
                told, reason = await failure(get)
                assert reason in Reason.__members__ and told != "CANCELLED", f"{code}: {told}"


async def test_a_refusal_that_comes_before_the_messages_is_told() -> None:
    def refuse(_requests: Any, context: Any) -> Iterator[bytes]:
        time.sleep(0.1)  # so that it comes between the headers and the message
        context.set_trailing_metadata(((STATUS_METADATA, GIVEN),))
        context.abort(grpc.StatusCode.NOT_FOUND, "it says so itself")
        yield b""

    async with forwarding(refuse) as stub:
        assert await failure(import_file(stub)) == ("NOT_FOUND", "NOT_FOUND")
        get = stub.GetPv(pb.GetPvRequest(name="A"), metadata=ADMIN, timeout=60)
        assert await failure(get) == ("NOT_FOUND", "NOT_FOUND")


async def test_a_token_that_is_not_accepted_is_no_fault_of_the_callers_key() -> None:
    """The gateway's clock, or its key, is another than the service behind believes in."""
    refusal = to_status(Unauthenticated("clock skew", metadata={"skew_s": "3600.0"}))

    def refuse(_requests: Any, context: Any) -> Iterator[bytes]:
        context.set_trailing_metadata(((STATUS_METADATA, refusal.SerializeToString()),))
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "clock skew")
        yield b""

    async with forwarding(refuse) as stub:
        expected = ("UNAVAILABLE", Reason.UPSTREAM_UNAVAILABLE.name)
        assert await failure(import_file(stub)) == expected
        get = stub.GetPv(pb.GetPvRequest(name="A"), metadata=ADMIN, timeout=60)
        assert await failure(get) == expected


async def test_nothing_is_kept_of_a_stream_that_its_client_leaves() -> None:
    ended = threading.Semaphore(0)

    def stream_on(_requests: Any, context: Any) -> Iterator[bytes]:
        context.add_callback(ended.release)
        while True:
            yield pb.ExportPvsResponse(data=bytes(1 << 16)).SerializeToString()

    # a collector finds what keeps itself, late: after a hundred thousand of such objects
    gc.disable()
    try:
        async with forwarding(stream_on) as stub:
            before = _messages_held()
            for _ in range(10):
                call = stub.ExportPvs(pb.ExportPvsRequest(), metadata=ADMIN, timeout=60)
                await call.read()
                call.cancel()
                assert await asyncio.to_thread(ended.acquire, timeout=60)
            async with asyncio.timeout(60):
                while _messages_held() > before:
                    await asyncio.sleep(0.05)
    finally:
        gc.enable()


def _messages_held() -> int:
    """Readers of streams that are not closed; each holds its call and a message."""
    return sum(
        isinstance(each, AsyncGeneratorType)
        and each.__name__ == "_fetch_stream_responses"
        and each.ag_frame is not None
        for each in gc.get_objects()
    )


async def test_nothing_is_kept_of_a_stream_that_is_left_half_read() -> None:
    def stream_on(_requests: Any, _context: Any) -> Iterator[bytes]:
        while True:
            yield pb_reference.ReadReferenceResponse(snapshot_id="known").SerializeToString()

    with upstream(stream_on) as target:
        gc.disable()
        try:
            before = _messages_held()
            async with Client(target) as drey:
                stub: Any = pb_reference_grpc.ReferenceServiceStub(drey.channel)
                stream: Any = drey.stream(stub.ReadReference, pb_reference.ReadReferenceRequest())
                async with aclosing(stream) as messages:
                    await anext(messages)
                known: dict[str, Any] = {"known": object()}
                found = await ReferenceClient(drey.channel).read_reference(b"", known, "known")
                assert found is known["known"]
            assert _messages_held() == before
            async with asyncio.timeout(60):
                while len(asyncio.all_tasks()) > 1:  # gRPC's own, of calls that were cancelled
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()
