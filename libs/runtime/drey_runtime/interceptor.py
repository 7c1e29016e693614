"""The one interceptor in front of every RPC: admit first, read then.

In this order: who calls, from the headers alone; whether there is a place for the call; the
permission; and only then the first message, which has a deadline. Each message of a request is
looked at as bytes (size, number of parts), then parsed, then held against its limits; before each
message in either direction the caller is looked at again, so that nothing passes under a key that
has died.
Errors become status in one place, with metrics and one log line. Denied by default: a method
without a permission in the contracts is refused to everybody.

Every handler is offered to gRPC as one that is sent a stream, because gRPC reads the message of
any other before it asks anybody.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import DecodeError, Message
from opentelemetry.trace import SpanKind

from drey.common.v1 import annotations_pb2
from drey_core import errors
from drey_runtime import limits, status, telemetry
from drey_runtime.admission import (
    LONGEST_TURN_S,
    MAKING,
    PASSES,
    READING,
    Admission,
    Bounds,
    Room,
    host_of,
)
from drey_runtime.auth import Authenticator, Principal, current_principal
from drey_runtime.stalls import GuardedContext, Outgoing, StallGuard
from drey_runtime.waiting import Turns, current_holder

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 4 << 20
"""Largest request that is taken."""
HARD_LIMIT_BYTES = MAX_REQUEST_BYTES + (256 << 10)
"""gRPC itself ends a call with a larger one, unread and without a reason; up to here we tell it."""

OPEN_PREFIXES = ("/grpc.health.v1.Health/",)
"""Methods that need no key: probes."""
_REFLECTION = "/grpc.reflection."
REFLECTION_PERMISSION = "system.contracts.get"
"""What server reflection demands, whose methods are not ours to annotate."""

# generic in their stubs only
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handler = Callable[[Any, Context], Any]


@cache
def permission_of(method: str) -> str:
    """The permission that `/package.Service/Method` demands; empty: nobody may."""
    if method.startswith(_REFLECTION):
        return REFLECTION_PERMISSION
    descriptor = _method_descriptor(method)
    if descriptor is None:
        return ""
    return str(descriptor.GetOptions().Extensions[annotations_pb2.permission])


def _method_descriptor(method: str) -> MethodDescriptor | None:
    service, _, name = method.strip("/").partition("/")
    try:
        return descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    except KeyError:
        return None


class Calls:
    """The calls that run now: looked at when the keys have changed."""

    def __init__(self) -> None:
        self._running: set[_Call] = set()

    def add_call(self, call: _Call) -> None:
        """It runs."""
        self._running.add(call)

    def discard_call(self, call: _Call) -> None:
        """It has ended, or is about to."""
        self._running.discard(call)

    def recheck_calls(self) -> None:
        """Cut the streams whose caller may not go on."""
        for call in tuple(self._running):
            call.cut_unless_allowed()

    def end_all(self, error: errors.DreyError) -> None:
        """Cut them all: whoever waits is told why, before the connections are closed."""
        for call in tuple(self._running):
            call.cut_call(error)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """See the module."""

    def __init__(
        self,
        authenticator: Authenticator,
        guard: StallGuard,
        bounds: Bounds | None = None,
        calls: Calls | None = None,
        address_of: Callable[[Mapping[str, str], str], str] | None = None,
    ) -> None:
        self.authenticator, self.guard, self._address_of = authenticator, guard, address_of
        self.admission = Admission(bounds or Bounds())
        self.calls = calls or Calls()
        self.reading = Turns(READING, self.admission.bounds.share)
        self.making = Turns(MAKING, self.admission.bounds.share)
        self._wrapped: dict[str, RpcHandler] = {}

    def host_of(self, metadata: Mapping[str, str], peer: str) -> str:
        """Whom a call without a key counts for: the host that calls."""
        address = self._address_of(metadata, peer) if self._address_of is not None else ""
        return address or host_of(peer)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[RpcHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> RpcHandler:
        """Wrap the handler of one call."""
        path = handler_call_details.method
        if path in self._wrapped:
            return self._wrapped[path]
        handler = await continuation(handler_call_details)
        wrapped = self._wrap_handler(path, handler)
        if handler is not None:  # names that are made up are not kept
            self._wrapped[path] = wrapped
        return wrapped

    def _wrap_handler(self, path: str, handler: Any) -> RpcHandler:
        method = _Method.method_of_path(path, handler)

        async def serve_single(_requests: Any, context: Context) -> Any:
            async with _Call(self, method, context) as call:
                return await call.answer_call()

        async def serve_streaming(_requests: Any, context: Context) -> None:
            async with _Call(self, method, context) as call:
                await call.answer_stream()

        if handler is not None and not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(
                serve_single, response_serializer=handler.response_serializer
            )
        serializer = None if handler is None else handler.response_serializer
        return grpc.stream_stream_rpc_method_handler(
            serve_streaming, response_serializer=serializer
        )


@dataclass(frozen=True, slots=True)
class _Method:
    """What is the same for all calls of a method."""

    path: str
    inner: Handler | None
    parse: Callable[[bytes], Any] | None
    reads_stream: bool
    streams_in: bool
    streams_out: bool
    in_turns: bool
    open: bool
    permission: str

    @classmethod
    def method_of_path(cls, path: str, handler: Any) -> _Method:
        """Of a handler of gRPC; None where nobody serves the method."""
        descriptor = _method_descriptor(path)
        if handler is None:
            inner = None
        elif handler.request_streaming:
            inner = handler.stream_stream or handler.stream_unary
        else:
            inner = handler.unary_stream or handler.unary_unary
        # what is forwarded is a stream to gRPC; its kind is in the contracts
        return cls(
            path=path,
            inner=inner,
            parse=handler.request_deserializer if handler is not None else None,
            reads_stream=handler is not None and handler.request_streaming,
            streams_in=descriptor is not None and descriptor.client_streaming,
            streams_out=descriptor is not None and descriptor.server_streaming,
            in_turns=handler is not None
            and handler.request_deserializer is not None
            and descriptor is not None
            and _reads_much(descriptor),
            open=path.startswith(OPEN_PREFIXES),
            permission=permission_of(path),
        )


class _Call:
    """One call, from its headers to its status."""

    def __init__(self, server: CallInterceptor, method: _Method, context: Context) -> None:
        self._server, self._method, self._context = server, method, context
        self._begin = time.monotonic()
        self._task = asyncio.current_task()
        self._principal: Principal | None = None
        self._accepted = False
        self._ended_for: errors.DreyError | None = None
        self._places = ExitStack()
        self._outgoing: Outgoing | None = None

    # --- admission ---

    async def __aenter__(self) -> _Call:
        carrier = telemetry.metadata_carrier(self._context.invocation_metadata())
        self._span = telemetry.start_span(self._method.path.strip("/"), carrier, SpanKind.SERVER)
        self._span.__enter__()
        try:
            self._admit_caller(carrier)
        except Exception as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise  # not reached: telling the status raises
        self._server.calls.add_call(self)
        return self

    def _admit_caller(self, metadata: dict[str, str]) -> None:
        """Who calls, is there a place, may they; nothing of the call has been read."""
        admission, method = self._server.admission, self._method
        peer = self._context.peer()
        if method.open:
            host = self._server.host_of(metadata, peer)
            self._places.enter_context(admission.probes.take_place(host, "your address"))
            return
        try:
            principal = self._server.authenticator.authenticate_call(metadata, method.path, peer)
        except errors.Unauthenticated:
            admission.count_refused(self._server.host_of(metadata, peer), self._begin)
            raise
        holder = principal.holder
        if principal.key_id:  # the parts themselves call each other as often as they have to
            admission.count_call(holder, self._begin)
        self._hold_place(admission.calls, holder)
        if method.inner is None:
            raise errors.Unimplemented(
                f"{method.path[:200]} is not served here; server reflection lists what is",
                reason=errors.Reason.UNKNOWN_METHOD,
                metadata={"method": method.path[:200]},
            )
        principal.require_permission(method.permission, method.path)
        if method.streams_in:
            self._hold_place(admission.uploads, holder)
        remaining = self._context.time_remaining()
        if remaining is not None and remaining <= 0:
            raise errors.DeadlineExceeded("the deadline was over when the call arrived")
        self._principal = principal
        self._holder = holder
        current_principal.set(principal)
        current_holder.set(holder if principal.key_id else "")

    def _hold_place(self, room: Room, holder: str) -> None:
        self._places.enter_context(room.take_place(holder, "this key"))

    def _leave_places(self) -> None:
        """Give back the places; a call that has been refused may take long to be told so."""
        self._server.calls.discard_call(self)
        self._places.close()

    # --- the caller, again ---

    def _require_allowed(self) -> None:
        if self._principal is None:
            return
        now = self._server.authenticator.renew_principal(self._principal)
        now.require_permission(self._method.permission, self._method.path)

    def cut_unless_allowed(self) -> None:
        """End the call when its caller may not go on.

        A call with one request and one answer that has been accepted is answered: what it did is
        done, and whoever revokes the key that they call with is told so.
        """
        unary = not self._method.streams_in and not self._method.streams_out
        if unary and self._accepted:
            return
        try:
            self._require_allowed()
        except errors.DreyError as error:
            self.cut_call(error)

    def cut_call(self, error: errors.DreyError) -> None:
        """End the call for a reason; the first one is told."""
        if self._ended_for is not None:
            return
        self._ended_for = error
        if self._outgoing is not None and self._outgoing.since is not None:
            self._outgoing.cut_stream(error)  # its client may never read again
        elif self._task is not None:
            self._task.cancel()

    # --- messages ---

    async def answer_call(self) -> Any:
        """The one answer."""
        return await self._inner_handler()(await self._request_argument(), self._context)

    async def answer_stream(self) -> None:
        argument = await self._request_argument()
        with self._server.guard.watch_stream(self._context) as self._outgoing:
            context: Any = GuardedContext(self._context, self._outgoing)
            answers = self._inner_handler()(argument, context)
            del argument  # the stream may live for days
            if inspect.iscoroutine(answers):  # refuses before it streams, or writes by itself
                answers = await answers
            if answers is None:
                return
            if self._method.in_turns:
                answers = self._make_in_turns(answers)
            async with aclosing(answers):  # its clean-up runs when the call ends, not later
                async for message in answers:
                    if self._method.streams_out:
                        self._require_allowed()
                    await self._outgoing.write_message(message)

    async def _make_in_turns(self, answers: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
        """The answers, each made in a turn of the key; none is held while a client takes one.

        Others would wait for a part of every call that this key has begun.
        """
        holder = current_holder.get()
        async with aclosing(answers):
            while holder:
                async with self._server.making.take_turn(holder, LONGEST_TURN_S):
                    for _ in range(PASSES):  # else who calls now waits for parts of others
                        await asyncio.sleep(0)
                    message = await anext(answers, None)
                if message is None:
                    return
                yield message
            async for message in answers:
                yield message

    def _inner_handler(self) -> Handler:
        assert self._method.inner is not None, "_admit_caller has refused it"
        return self._method.inner

    async def _request_argument(self) -> Any:
        first = await self._first_message()
        if self._method.reads_stream:
            return self._stream_requests(first)
        if first is None:
            raise no_message()
        return self._check_request(first)

    async def _first_message(self) -> bytes | None:
        seconds = self._server.admission.bounds.first_message_s
        try:
            async with asyncio.timeout(seconds):
                if self._principal is None or self._method.streams_in:
                    raw = await self._read_message()
                else:
                    async with self._server.reading.take_turn(self._holder):
                        raw = await self._read_message()
        except TimeoutError as error:
            raise errors.DeadlineExceeded(
                f"no whole message came within {seconds:g} s of the call's begin; send it at once"
            ) from error
        self._accepted = True
        return raw

    async def _read_message(self) -> bytes | None:
        raw: Any = await self._context.read()
        if raw is grpc.aio.EOF:
            return None
        self._require_allowed()
        _check_size(raw)
        return bytes(raw)

    async def _stream_requests(self, first: bytes | None) -> AsyncIterator[Any]:
        raw = first
        while raw is not None:
            yield self._check_request(raw)
            raw = await self._read_message()

    def _check_request(self, raw: bytes) -> Any:
        return (
            raw
            if self._method.parse is None
            else parse_request(self._method.path, self._method.parse, raw)
        )

    # --- the end ---

    async def __aexit__(self, kind: Any, error: BaseException | None, tb: Any) -> None:
        try:
            self._leave_places()
            await self._finish_call(error)
        finally:
            self._span.__exit__(None, None, None)

    async def _finish_call(self, error: BaseException | None) -> None:
        if self._ended_for is not None and isinstance(error, asyncio.CancelledError):
            if self._task is not None:
                self._task.uncancel()
            error = self._ended_for
        if error is None:
            self._record_call("OK")
        elif isinstance(error, errors.DreyError):
            await self._abort_call(error)
        elif isinstance(error, grpc.aio.InternalError):
            # of the call that gRPC has ended already, as it is about to say
            self._record_call("CANCELLED")
            raise asyncio.CancelledError from error
        elif isinstance(error, grpc.aio.AbortError):
            self._record_call("FORWARDED")
        elif isinstance(error, GeneratorExit) or self._is_cancelled(error):
            self._record_call("CANCELLED")
        elif isinstance(error, Exception | asyncio.CancelledError):
            # gRPC tells a client nothing at all of a handler that is cancelled from inside: a part
            # of its work that was cancelled by somebody else is a defect like any other
            log.exception("%s failed", self._method.path, exc_info=error)
            trace = telemetry.trace_id()
            internal = errors.Internal(
                f"a defect in Drey; its log has it under trace {trace}",
                metadata={"trace_id": trace},
            )
            await self._abort_call(internal)

    def _is_cancelled(self, error: BaseException) -> bool:
        """Whether it is the end that gRPC made of a call that its client has left."""
        if not isinstance(error, asyncio.CancelledError) or self._task is None:
            return False
        return self._task.cancelling() > 0 or (self._outgoing is not None and self._outgoing.broken)

    async def _abort_call(self, error: errors.DreyError) -> None:
        status_message = status.to_status(error)
        code = status.code_of(error)
        self._record_call(code.name, error.reason.name)
        try:
            await self._context.abort(
                code, error.message, ((status.STATUS_METADATA, status_message.SerializeToString()),)
            )
        except (grpc.aio.InternalError, grpc.aio.UsageError) as broken:
            # the client has left before it could be told, which is what gRPC is about to say, or a
            # status was on its way already
            raise asyncio.CancelledError from broken

    def _record_call(self, code: str, reason: str = "") -> None:
        elapsed = time.monotonic() - self._begin
        # names that callers make up do not become names of metrics
        method = self._method.path if self._method.inner is not None else "unknown"
        telemetry.rpc_seconds.record(elapsed, {"method": method, "code": code})
        level = logging.WARNING if code == "INTERNAL" else logging.DEBUG
        log.log(
            level,
            "%s %s",
            method,
            code,
            extra={"seconds": round(elapsed, 6), "reason": reason, "code": code},
        )


def no_message() -> errors.InvalidArgument:
    """The error of a call that ends before its one message."""
    return errors.InvalidArgument(
        "the call carries no message; send one, which may be empty",
        reason=errors.Reason.MALFORMED_MESSAGE,
    )


def _check_size(raw: bytes) -> None:
    if len(raw) > MAX_REQUEST_BYTES:
        raise errors.ResourceExhausted(
            f"the request has {len(raw)} bytes, at most {MAX_REQUEST_BYTES} are taken; split it",
            reason=errors.Reason.MESSAGE_TOO_LARGE,
            metadata={"bytes": str(len(raw)), "limit": str(MAX_REQUEST_BYTES)},
        )


def parse_request(path: str, from_bytes: Callable[[bytes], Any], raw: bytes) -> Any:
    """A request of ours within its limits. Raises `InvalidArgument`."""
    descriptor = _method_descriptor(path)
    if descriptor is not None:
        limits.check_outline(descriptor.input_type, raw)
    try:
        request = from_bytes(raw)
    except DecodeError as error:
        raise errors.InvalidArgument(
            f"the bytes are no message of {path}: {error}",
            reason=errors.Reason.MALFORMED_MESSAGE,
        ) from error
    if isinstance(request, Message):
        if descriptor is not None and method_acts(descriptor):
            limits.check_known_fields(request, raw)
        limits.check_limits(request)
    return request


def _reads_much(method: MethodDescriptor) -> bool:
    """Whether a method streams what there is, rather than what comes."""
    comes = method.name.startswith(("Watch", "Open"))
    return method.server_streaming and not method.client_streaming and not comes


def method_acts(method: MethodDescriptor) -> bool:
    """Whether a call of the method may change something."""
    return bool(method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS)
