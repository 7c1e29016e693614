"""The one interceptor in front of every RPC.

In this order: trace, authenticate, role, size, deadline, limits of each request message; then the
handler; then errors to status, metrics and one log line. Denied by default: a method without a
role in the contracts is refused to everybody.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import cache
from typing import Any, TypeAlias

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from opentelemetry.trace import SpanKind

from drey.common.v1 import annotations_pb2
from drey_core import errors
from drey_runtime import limits, status, telemetry
from drey_runtime.auth import Authenticator, Principal, Role, current_principal
from drey_runtime.stalls import StallGuard

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 4 << 20
"""Largest request that is taken; the server reads up to `HARD_LIMIT_BYTES` to say so properly."""
HARD_LIMIT_BYTES = 16 << 20

OPEN_PREFIXES = ("/grpc.health.v1.Health/",)
"""Methods that need no key: probes."""
_REFLECTION = "/grpc.reflection."

# generic in their stubs only
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handler = Callable[[Any, Context], Any]


@cache
def required_role(method: str) -> Role:
    """The least role of `/package.Service/Method`; UNSPECIFIED means nobody may."""
    if method.startswith(_REFLECTION):
        return Role.VIEWER
    service, _, name = method.strip("/").partition("/")
    try:
        descriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    except KeyError:
        return Role.UNSPECIFIED
    return Role(descriptor.GetOptions().Extensions[annotations_pb2.required_role])


class CallInterceptor(grpc.aio.ServerInterceptor):
    """See the module."""

    def __init__(self, authenticator: Authenticator, guard: StallGuard) -> None:
        self._authenticator, self._guard = authenticator, guard

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[RpcHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> RpcHandler | None:
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(OPEN_PREFIXES):
            return handler
        call = _Call(self._authenticator, self._guard, handler_call_details.method)
        return call.wrap(handler)


class _Call:
    def __init__(self, authenticator: Authenticator, guard: StallGuard, method: str) -> None:
        self._authenticator, self._guard = authenticator, guard
        self._method = method

    def wrap(self, handler: Any) -> RpcHandler:
        serializers = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(handler.stream_stream, True), **serializers
            )
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._single(handler.stream_unary, True), **serializers
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(handler.unary_stream, False), **serializers
            )
        return grpc.unary_unary_rpc_method_handler(
            self._single(handler.unary_unary, False), **serializers
        )

    def _single(self, inner: Handler, streaming: bool) -> Handler:
        async def run(request: Any, context: Context) -> Any:
            async with _Served(self, context):
                return await inner(self._checked(request, streaming), context)

        return run

    def _streaming(self, inner: Handler, streaming: bool) -> Handler:
        # No generator: gRPC drops one at its `yield` when the client leaves, and it would be
        # cleaned up at some later time, by another task. A write is cancelled in its place.
        async def run(request: Any, context: Context) -> None:
            async with _Served(self, context):
                answers = inner(self._checked(request, streaming), context)
                if inspect.iscoroutine(answers):  # a method that refuses before it streams
                    answers = await answers
                async with aclosing(answers):  # its clean-up runs when the call ends, not later
                    with self._guard.watched(context) as outgoing:
                        async for message in answers:
                            await outgoing.write(message)

        return run

    def _checked(self, request: Any, streaming: bool) -> Any:
        if streaming:
            return self._checked_stream(request)
        check_message(request)
        return request

    async def _checked_stream(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            check_message(request)
            yield request

    def admit(self, context: Context) -> Principal:
        """Authenticate, check role and deadline."""
        metadata = telemetry.metadata_carrier(context.invocation_metadata())
        principal = self._authenticator.authenticate(metadata)
        needed = required_role(self._method)
        if needed == Role.UNSPECIFIED or principal.role < needed:
            wanted = needed.name.lower() if needed else "nobody"
            raise errors.PermissionDenied(
                f"{self._method} needs the role {wanted}; {principal.name} is "
                f"{principal.role.name.lower()}",
                metadata={"role": principal.role.name, "required_role": needed.name},
            )
        remaining = context.time_remaining()
        if remaining is not None and remaining <= 0:
            raise errors.DeadlineExceeded("the deadline was over when the call arrived")
        return principal


def check_message(request: Any) -> None:
    """Size and limits of one request message (or of its bytes, where it is forwarded)."""
    size = len(request) if isinstance(request, bytes) else request.ByteSize()
    if size > MAX_REQUEST_BYTES:
        raise errors.ResourceExhausted(
            f"the request has {size} bytes, at most {MAX_REQUEST_BYTES} are taken; split it",
            reason=errors.Reason.MESSAGE_TOO_LARGE,
            metadata={"bytes": str(size), "limit": str(MAX_REQUEST_BYTES)},
        )
    if isinstance(request, Message):
        limits.check(request)


class _Served:
    """The frame around one call: span, principal, metrics, and errors to status."""

    def __init__(self, call: _Call, context: Context) -> None:
        self._call, self._context = call, context
        self._begin = time.monotonic()

    async def __aenter__(self) -> None:
        carrier = telemetry.metadata_carrier(self._context.invocation_metadata())
        self._span = telemetry.span(self._call._method.strip("/"), carrier, SpanKind.SERVER)
        self._span.__enter__()
        try:
            self._token = current_principal.set(self._call.admit(self._context))
        except errors.DreyError as error:
            try:
                await self._abort(error)
            finally:
                self._span.__exit__(None, None, None)

    async def __aexit__(self, kind: Any, error: BaseException | None, tb: Any) -> None:
        try:
            await self._finish(error)
        finally:
            self._span.__exit__(None, None, None)

    async def _finish(self, error: BaseException | None) -> None:
        if error is None:
            self._record("OK")
        elif isinstance(error, errors.DreyError):
            await self._abort(error)
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._record("CANCELLED")
        elif isinstance(error, grpc.aio.AbortError):
            self._record("FORWARDED")
        elif isinstance(error, Exception):
            log.exception("%s failed", self._call._method, exc_info=error)
            trace = telemetry.trace_id()
            internal = errors.Internal(
                f"a defect in Drey; its log has it under trace {trace}",
                metadata={"trace_id": trace},
            )
            await self._abort(internal)

    async def _abort(self, error: errors.DreyError) -> None:
        found = status.to_status(error)
        code = status.code_of(error)
        self._record(code.name, error.reason.name)
        try:
            await self._context.abort(
                code, error.message, ((status.STATUS_METADATA, found.SerializeToString()),)
            )
        except grpc.aio.InternalError as broken:
            # the client has left before it could be told, which is what gRPC is about to say
            raise asyncio.CancelledError from broken

    def _record(self, code: str, reason: str = "") -> None:
        elapsed = time.monotonic() - self._begin
        method = self._call._method
        telemetry.rpc_seconds.record(elapsed, {"method": method, "code": code})
        level = logging.WARNING if code == "INTERNAL" else logging.DEBUG
        log.log(
            level,
            "%s %s",
            method,
            code,
            extra={"seconds": round(elapsed, 6), "reason": reason, "code": code},
        )
