"""gRPC servers and channels, made the same way everywhere, and whether a server is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from drey_core import errors
from drey_runtime.admission import Bounds
from drey_runtime.auth import Authenticator
from drey_runtime.interceptor import HARD_LIMIT_BYTES, CallInterceptor, Calls
from drey_runtime.settings import CommonSettings, is_unix, require_safe_listen
from drey_runtime.stalls import MAX_WAITING_BYTES, STALL_CUT_S, StallGuard

log = logging.getLogger(__name__)

_LARGEST_ANSWER = 16 << 20
"""The parts send each other more than the public 4 MiB at a time."""
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
_STREAMS = 1000
"""Calls of one connection from outside; its client lets further ones wait."""
_METADATA_BYTES = 40 << 10
"""More than a proxy in front of us takes, the address of a request included: gRPC itself refuses
what is above, without a reason."""
_SPARE_CALLS = 200
"""Calls beyond our own limits that gRPC keeps, for the moment in which they are refused."""
_LOOK_AGAIN_S = 0.2
_TOLD_AFTER = 0.75
"""The part of the time to end in which calls may do so by themselves; then they are told why."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", _LARGEST_ANSWER),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)


def _server_options(settings: CommonSettings, public: bool) -> list[tuple[str, int]]:
    """What a connection may do before, and beside, our own limits."""
    options = [
        *_OPTIONS,
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", HARD_LIMIT_BYTES),
        # a message that nobody has asked for waits at its sender, but for one window of 64 KiB
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_connection_idle_ms", int(settings.idle_connection * 1000)),
        ("grpc.server_handshake_timeout_ms", 10_000),
    ]
    if not public:
        return options
    return [
        *options,
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * _METADATA_BYTES),
    ]


def _serialize_message(message: Message | bytes) -> bytes:
    """Handlers may give messages, or bytes already encoded."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def method_handlers(service: str, servicer: object) -> grpc.GenericRpcHandler:
    """Handlers of all methods of `service` (full name) by the methods of `servicer`.

    Unlike the generated function this one lets a handler return encoded bytes, and refuses a
    servicer that lacks a method.
    """
    descriptor = descriptor_pool.Default().FindServiceByName(service)
    handlers = {}
    for method in descriptor.methods:
        function = getattr(servicer, method.name)
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streaming, method.server_streaming]
        request = message_factory.GetMessageClass(method.input_type)
        handlers[method.name] = make(function, request.FromString, _serialize_message)
    return grpc.method_handlers_generic_handler(service, handlers)


class Health:
    """`grpc.health.v1`: "" says that the process lives, each service whether it can do its work.

    That "" is answered shows that the event loop turns, and no more: it is for liveness, and no
    dependency that is away changes it. Readiness asks for a service by name.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self.servicer = HealthServicer()
        self._serving: dict[str, bool | None] = dict.fromkeys(services)

    @property
    def service_names(self) -> frozenset[str]:
        """All whose state is told."""
        return frozenset(self._serving)

    @property
    def serving(self) -> bool:
        """Whether every service can do its work."""
        return all(self._serving.values())

    def serves_service(self, service: str) -> bool:
        """Whether it can do its work."""
        return bool(self._serving[service])

    async def set(self, serving: bool, *services: str) -> None:
        """Say whether these services serve; without names: all of them."""
        state = health_pb2.HealthCheckResponse.ServingStatus
        for service in services or tuple(self._serving):
            if self._serving[service] is not serving:
                self._serving[service] = serving
                await self.servicer.set(service, state.SERVING if serving else state.NOT_SERVING)


def bounds_of(settings: CommonSettings) -> Bounds:
    """What a server with these settings takes at most."""
    return Bounds(
        calls=settings.max_calls,
        probes=settings.max_probes,
        share=settings.caller_share,
        calls_per_s=settings.calls_per_second,
        refused_per_s=settings.refusals_per_second,
        first_message_s=settings.first_message,
    )


@dataclass(frozen=True)
class PublicServing:
    """What a server has that clients from outside reach.

    Whoever knows that keys have changed tells `calls` to look at them again. What is counted by
    address is that of the connection, or the one that `address_of` finds for metadata and peer.
    A client that takes nothing of what is streamed to it for `stall_cut_s` is cut. `forwarded`:
    the services that others serve, and who hands their calls on.
    """

    calls: Calls = field(default_factory=Calls)
    address_of: Callable[[Mapping[str, str], str], str] | None = None
    stall_cut_s: float = STALL_CUT_S
    forwarded: tuple[Sequence[str], grpc.GenericRpcHandler] | None = None


@asynccontextmanager
async def serve_grpc(
    settings: CommonSettings,
    listen: str,
    authenticator: Authenticator,
    services: Sequence[tuple[str, object]],
    *,
    public: PublicServing | None = None,
    grace_s: float = 2.0,
) -> AsyncIterator[tuple[int, Health]]:
    """Run a server of `services` ((full name, servicer)); gives (port, health).

    A server that is not `public` asks its callers for a certificate where `tls_client_ca` is set.
    On leaving, new calls are refused at once and running ones have `grace_s` to end: those that do
    not are told that the server stops, before its connections are closed. Raises
    `SettingsError` when `listen` (a setting of this service) is not safe, OSError when it cannot be
    bound.
    """
    require_safe_listen(settings, listen, f"DREY_{settings.service.upper()}_LISTEN")
    side = public or PublicServing()
    guard = StallGuard(side.stall_cut_s, MAX_WAITING_BYTES)
    bounds = bounds_of(settings)
    server = grpc.aio.server(
        interceptors=[CallInterceptor(authenticator, guard, bounds, side.calls, side.address_of)],
        options=_server_options(settings, public is not None),
        maximum_concurrent_rpcs=bounds.calls + bounds.probes + _SPARE_CALLS,
    )
    names = [name for name, _ in services]
    server.add_generic_rpc_handlers(tuple(method_handlers(n, s) for n, s in services))
    if side.forwarded is not None:
        names += side.forwarded[0]
        server.add_generic_rpc_handlers((side.forwarded[1],))
    health = Health(names)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    _serve_reflection(server, names)
    port = _bind_port(server, settings, listen, public is not None)
    await health.set(False)
    await server.start()
    log.info("listening on port %d", port)
    async with asyncio.TaskGroup() as loops:
        guarding = loops.create_task(guard.run())
        try:
            async with _probes_served(settings, health):
                yield port, health
        finally:
            await health.set(False)
            await _stop_server(server, side.calls, settings.service, grace_s)
            guarding.cancel()


async def _stop_server(server: grpc.aio.Server, calls: Calls, service: str, grace_s: float) -> None:
    stops = errors.Unavailable("this server stops; connect again", metadata={"service": service})
    telling = asyncio.get_running_loop().call_later(grace_s * _TOLD_AFTER, calls.end_all, stops)
    try:
        await server.stop(grace_s)
    finally:
        telling.cancel()


@asynccontextmanager
async def _probes_served(settings: CommonSettings, health: Health) -> AsyncIterator[None]:
    if not settings.probe_listen:
        yield
        return
    server = grpc.aio.server(maximum_concurrent_rpcs=settings.max_probes)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    server.add_insecure_port(settings.probe_listen)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


def _serve_reflection(server: grpc.aio.Server, shown: Sequence[str]) -> None:
    """Reflection under both of its names: the messages are the same, and new tools ask for v1."""
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    servicer = ReflectionServicer((*shown, health, reflection.SERVICE_NAME))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
            for name in (reflection.SERVICE_NAME, _REFLECTION_V1)
        )
    )


def _bind_port(server: grpc.aio.Server, settings: CommonSettings, listen: str, public: bool) -> int:
    if settings.tls_cert is None or settings.tls_key is None or is_unix(listen):
        port = server.add_insecure_port(listen)
    else:
        pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
        parts = None if public else _read_file(settings.tls_client_ca)
        credentials = grpc.ssl_server_credentials([pair], parts, parts is not None)
        port = server.add_secure_port(listen, credentials)
    if port == 0 and not is_unix(listen):
        raise OSError(f"cannot listen on {listen}")
    return port


def _read_file(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def channel(settings: CommonSettings, target: str, **options: Any) -> grpc.aio.Channel:
    """A channel to another service, by TLS where `tls_ca` is set; a Unix socket needs none."""
    arguments = [
        *_OPTIONS,
        ("grpc.max_receive_message_length", _LARGEST_ANSWER),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # gRPC's name misleads: it is how long an attempt to connect may take, a handshake included
        ("grpc.min_reconnect_backoff_ms", 5000),
        ("grpc.max_reconnect_backoff_ms", 1000),
        *options.items(),
    ]
    if settings.tls_ca is None or is_unix(target):
        return grpc.aio.insecure_channel(target, options=arguments)
    shown = (settings.tls_client_key, settings.tls_client_cert)
    if shown[0] is None:
        shown = (settings.tls_key, settings.tls_cert)
    credentials = grpc.ssl_channel_credentials(
        settings.tls_ca.read_bytes(), _read_file(shown[0]), _read_file(shown[1])
    )
    return grpc.aio.secure_channel(target, credentials, options=arguments)


class Readiness:
    """Says of each service whether what it needs is there, looked at five times a second."""

    def __init__(self, health: Health, needs: Mapping[str, Callable[[], bool]]) -> None:
        """Raises `ValueError` unless `needs` names every service of `health`, and no other.

        One that nobody looks at would be not ready for ever, and its process with it.
        """
        if odd := health.service_names ^ needs.keys():
            raise ValueError(
                f"whether {', '.join(sorted(odd))} can serve is not said, or not asked"
            )
        self._health, self._needs = health, needs

    async def run(self) -> None:
        """Look for ever."""
        while True:
            for service, is_ready in self._needs.items():
                await self._health.set(is_ready(), service)
            await asyncio.sleep(_LOOK_AGAIN_S)
