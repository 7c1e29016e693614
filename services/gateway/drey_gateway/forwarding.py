"""Forwards whole services byte for byte.

A forwarded call is bytes each way, whatever its kind: one message waits at a time in each
direction, so back pressure reaches from one end to the other. The caller was authenticated, and the
role checked, by the interceptor; the service behind gets a signed token. Every call that fails does
so with a reason: the service's own, or one of ours where the service had none to give.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from google.protobuf import descriptor_pool

from drey_core.errors import DeadlineExceeded
from drey_runtime import telemetry
from drey_runtime.auth import REQUEST_METADATA, TOKEN_METADATA, TokenSigner, current_principal
from drey_runtime.interceptor import no_message
from drey_runtime.status import STATUS_METADATA
from drey_runtime.upstream import read_stream, translate_error

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
                streams_in = method.client_streaming
                forward = _ForwardedMethod(path, name, channel, signer, streams_in)
                self._handlers[path] = grpc.stream_stream_rpc_method_handler(forward.serve)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method that is forwarded; None for others."""
        return self._handlers.get(handler_call_details.method)


class _ForwardedMethod:
    def __init__(
        self,
        path: str,
        upstream: str,
        channel: grpc.aio.Channel,
        signer: TokenSigner,
        streams_in: bool,
    ) -> None:
        self._path, self._upstream, self._signer = path, upstream, signer
        # one message is sent with the headers: it cannot come too late for a call that was refused
        self._streams_in = streams_in
        self._call: Any = (channel.stream_stream if streams_in else channel.unary_stream)(path)

    async def serve(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        # the first message is checked before anybody behind is troubled
        first = await anext(requests, None)
        options = {"timeout": context.time_remaining(), "metadata": self._call_metadata()}
        pump = None
        if self._streams_in:
            call = self._call(**options)
            pump = asyncio.create_task(_pump_requests(first, requests, call))
        elif first is None:
            raise no_message()
        else:
            call = self._call(first, **options)
        # a client that left is noticed here, even while a message waits to be taken by it
        context.add_done_callback(lambda _: call.cancel())  # type: ignore[arg-type]
        try:
            async with read_stream(call) as messages:
                initial = tuple(await call.initial_metadata() or ())
                if initial:
                    await context.send_initial_metadata(_passable_metadata(initial))
                async for message in messages:
                    yield message
            context.set_trailing_metadata(_passable_metadata(await call.trailing_metadata()))
        except grpc.aio.AioRpcError as error:
            _raise_refusal(pump)
            await self._fail_call(error, context)
        except asyncio.CancelledError:
            # gRPC says so too when it was us who cancelled the call behind
            _raise_refusal(pump)
            raise
        finally:
            if pump is not None:
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)

    def _call_metadata(self) -> list[tuple[str, str]]:
        principal = current_principal.get()
        return [
            (TOKEN_METADATA, self._signer.sign_token(principal, self._upstream, self._path)),
            (REQUEST_METADATA, principal.request_id),
            *telemetry.trace_headers().items(),
        ]

    async def _fail_call(self, error: grpc.aio.AioRpcError, context: Context) -> None:
        trailing = tuple(error.trailing_metadata() or ())
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise translate_error(self._upstream, error) from error
        if not any(key == STATUS_METADATA for key, _ in trailing):
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineExceeded(
                    f"the call's deadline was over before the {self._upstream} service had done"
                    " its work"
                ) from error
            raise translate_error(self._upstream, error) from error
        await context.abort(error.code(), error.details() or "", _passable_metadata(trailing))


async def _pump_requests(first: bytes | None, requests: AsyncIterator[bytes], call: Any) -> None:
    """Send what the client sends. What fails here ends the call behind."""
    try:
        if first is not None:
            await _send_message(first, call)
        async for message in requests:
            await _send_message(message, call)
        await call.done_writing()
    except (grpc.aio.AioRpcError, grpc.aio.InternalError):
        # the call behind has ended before all was sent: its status says why
        return
    except Exception:
        call.cancel()
        raise


async def _send_message(message: bytes, call: Any) -> None:
    """As `call.write`, which puts an INTERNAL of gRPC's own, without a reason, in the place of the
    status of a call that has ended meanwhile.
    """
    await call.wait_for_connection()
    await call._cython_call.send_serialized_message(message)


def _raise_refusal(pump: asyncio.Task[None] | None) -> None:
    """Raise what the client's own messages were refused for."""
    if pump is not None and pump.done() and not pump.cancelled():
        pump.result()


def _passable_metadata(metadata: Any) -> tuple[tuple[str, str | bytes], ...]:
    """What may be set: gRPC keeps names that begin with `grpc-` to itself, but for the details."""
    return tuple(
        (key, value)
        for key, value in metadata or ()
        if not key.startswith("grpc-") or key == STATUS_METADATA
    )
