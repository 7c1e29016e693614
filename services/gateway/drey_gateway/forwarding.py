"""Forwards whole services byte for byte.

A forwarded call is a stream of bytes each way, whatever its kind: one message waits at a time in
each direction, so back pressure reaches from one end to the other. The caller was authenticated,
and the role checked, by the interceptor; the service behind gets a signed token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from google.protobuf import descriptor_pool

from drey_core.errors import DreyError, Reason, Unavailable
from drey_runtime import telemetry
from drey_runtime.auth import REQUEST_METADATA, TOKEN_METADATA, TokenSigner, current_principal
from drey_runtime.status import STATUS_METADATA

Context = grpc.aio.ServicerContext[Any, Any]


class Forwarder(grpc.GenericRpcHandler):
    """Handles every method of the services in `upstreams` (full name → name and channel)."""

    def __init__(
        self, upstreams: Mapping[str, tuple[str, grpc.aio.Channel]], signer: TokenSigner
    ) -> None:
        self._signer = signer
        self._handlers: dict[str, Any] = {}
        for service, (name, channel) in upstreams.items():
            descriptor = descriptor_pool.Default().FindServiceByName(service)
            for method in descriptor.methods:
                path = f"/{service}/{method.name}"
                forward = _ForwardedMethod(path, name, channel, signer)
                self._handlers[path] = grpc.stream_stream_rpc_method_handler(forward.serve)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method that is forwarded; None for others."""
        return self._handlers.get(handler_call_details.method)


class _ForwardedMethod:
    def __init__(
        self, path: str, upstream: str, channel: grpc.aio.Channel, signer: TokenSigner
    ) -> None:
        self._path, self._upstream, self._signer = path, upstream, signer
        self._call: Any = channel.stream_stream(path)

    async def serve(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        # the first message is checked before anybody behind is troubled
        first = await anext(requests, None)
        call = self._call(timeout=context.time_remaining(), metadata=self._call_metadata())
        # a client that left is noticed here, even while a message waits to be taken by it
        context.add_done_callback(lambda _: call.cancel())  # type: ignore[arg-type]
        pump = asyncio.create_task(_pump_requests(first, requests, call))
        try:
            initial = tuple(await call.initial_metadata() or ())
            if initial:
                await context.send_initial_metadata(_passable_metadata(initial))
            async for message in call:
                yield message
            context.set_trailing_metadata(_passable_metadata(await call.trailing_metadata()))
        except grpc.aio.AioRpcError as error:
            refusal = _refusal_of(pump)
            if refusal is not None:
                raise refusal from error
            await self._fail_call(error, context)
        except asyncio.CancelledError:
            # gRPC says so too when it was us who cancelled the call behind
            refusal = _refusal_of(pump)
            if refusal is not None:
                raise refusal from None
            raise
        finally:
            if not call.done():
                call.cancel()
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    def _call_metadata(self) -> list[tuple[str, str]]:
        principal = current_principal.get()
        return [
            (TOKEN_METADATA, self._signer.sign(principal, self._upstream, self._path)),
            (REQUEST_METADATA, principal.request_id),
            *telemetry.headers().items(),
        ]

    async def _fail_call(self, error: grpc.aio.AioRpcError, context: Context) -> None:
        trailing = tuple(error.trailing_metadata() or ())
        detailed = any(key == STATUS_METADATA for key, _ in trailing)
        if error.code() is grpc.StatusCode.UNAVAILABLE and not detailed:
            raise Unavailable(
                f"the {self._upstream} service is away; try again in a moment",
                reason=Reason.UPSTREAM_UNAVAILABLE,
                metadata={"service": self._upstream},
            ) from error
        await context.abort(error.code(), error.details() or "", _passable_metadata(trailing))


async def _pump_requests(first: bytes | None, requests: AsyncIterator[bytes], call: Any) -> None:
    """Send what the client sends. A request that is refused here ends the call behind."""
    try:
        if first is not None:
            await call.write(first)
        async for message in requests:
            await call.write(message)
        await call.done_writing()
    except DreyError:
        call.cancel()
        raise
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        # the call behind has ended before all was sent: its status says why
        return


def _refusal_of(pump: asyncio.Task[None]) -> DreyError | None:
    if not pump.done() or pump.cancelled():
        return None
    error = pump.exception()
    return error if isinstance(error, DreyError) else None


def _passable_metadata(metadata: Any) -> tuple[tuple[str, str | bytes], ...]:
    """What may be set: gRPC keeps names that begin with `grpc-` to itself, but for the details."""
    return tuple(
        (key, value)
        for key, value in metadata or ()
        if not key.startswith("grpc-") or key == STATUS_METADATA
    )
