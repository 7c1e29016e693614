"""The channel to the server: stubs, key, deadlines, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from uuid import uuid4

import grpc

from drey_cli.errors import from_rpc_error, usage_error
from drey_client.settings import Connection

if TYPE_CHECKING:
    from drey.access.v1.access_service_pb2_grpc import AccessServiceStub
    from drey.audit.v1.audit_service_pb2_grpc import AuditServiceStub
    from drey.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
    from drey.compare.v1.compare_service_pb2_grpc import CompareServiceStub
    from drey.event.v1.event_service_pb2_grpc import EventServiceStub
    from drey.job.v1.job_service_pb2_grpc import JobServiceStub
    from drey.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub
    from drey.policy.v1.policy_service_pb2_grpc import PolicyServiceStub
    from drey.restore.v1.restore_service_pb2_grpc import RestoreServiceStub
    from drey.snapshot.v1.snapshot_service_pb2_grpc import SnapshotServiceStub
    from drey.system.v1.system_service_pb2_grpc import SystemServiceStub

Q = TypeVar("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

STREAM_TIMEOUT_S = 600.0
"""Deadline of a stream that ends by itself, such as the rows of a snapshot."""
_OPTIONS = [
    ("grpc.primary_user_agent", "drey-cli"),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A proxy of the site's web traffic has no business between an operator and the machine.
    ("grpc.enable_http_proxy", 0),
]


class CliClient:
    """A connection to one server. Not for use from several threads, except `stream` results.

    Every call blocks until its answer or its deadline, and raises `CliError` when it is refused.
    """

    catalog: CatalogServiceStub
    snapshots: SnapshotServiceStub
    comparisons: CompareServiceStub
    policies: PolicyServiceStub
    restores: RestoreServiceStub
    monitor: MonitorServiceStub
    jobs: JobServiceStub
    events: EventServiceStub
    access: AccessServiceStub
    audit: AuditServiceStub
    system: SystemServiceStub

    def __init__(self, connection: Connection) -> None:
        self._connect(connection)

    def _connect(self, connection: Connection) -> None:
        self.connection = connection
        self._channel = _open_channel(connection)
        self._metadata = (("authorization", f"Bearer {connection.key}"),) if connection.key else ()

    def close_channel(self) -> None:
        """Close the channel; running calls are cancelled."""
        self._channel.close()

    def move_to(self, connection: Connection) -> None:
        """Speak to another server from here on. Methods that were taken before are of the old."""
        self.close_channel()
        for name in _SERVICES.keys() & self.__dict__.keys():
            delattr(self, name)
        self._connect(connection)

    def call_method(
        self,
        method: grpc.UnaryUnaryMultiCallable[Q, R],
        request: Q,
        *,
        timeout_s: float | None = None,
    ) -> R:
        """Call a unary method. Default deadline: that of the connection.

        A request that acts and has no request id yet gets a fresh one.
        """
        message: Any = request
        if "request_id" in message.DESCRIPTOR.fields_by_name and not message.request_id:
            message.request_id = "" if getattr(message, "dry_run", False) else str(uuid4())
        try:
            return method(
                request,
                timeout=timeout_s or self.connection.timeout_s,
                metadata=self._metadata,
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, server=self.connection.server) from error

    def stream_method(
        self,
        method: grpc.UnaryStreamMultiCallable[Q, R],
        request: Q,
        *,
        timeout_s: float = STREAM_TIMEOUT_S,
    ) -> Stream[R]:
        """Begin a server stream; iterate it, close it."""
        return Stream(
            cast("_RunningCall[R]", method(request, timeout=timeout_s, metadata=self._metadata)),
            self.connection.server,
        )

    def exchange_messages(
        self,
        method: grpc.StreamStreamMultiCallable[Q, R],
        requests: Iterable[Q],
        *,
        timeout_s: float = STREAM_TIMEOUT_S,
    ) -> Stream[R]:
        """Begin a call that streams both ways; gRPC draws `requests` in a thread of its own."""
        return Stream(
            cast(
                "_RunningCall[R]",
                method(iter(requests), timeout=timeout_s, metadata=self._metadata),
            ),
            self.connection.server,
        )

    def list_items(
        self,
        method: grpc.UnaryUnaryMultiCallable[Q, R],
        request: Q,
        field: str,
        *,
        limit: int = 0,
        most: int = 1000,
        first_answer: Callable[[R], object] | None = None,
    ) -> Iterator[Any]:
        """Items of a paged list, from the field of the answers that holds them.

        `limit` 0: all; `most`: items of a page; `first_answer` is shown the first page. Changes the
        request.
        """
        paged: Any = request
        paged.page_size = min(limit or most, most)
        given = 0
        while True:
            answer: Any = self.call_method(method, request)
            if first_answer is not None and not paged.page_token:
                first_answer(answer)
            for item in getattr(answer, field):
                yield item
                given += 1
                if limit and given >= limit:
                    return
            paged.page_token = answer.next_page_token
            if not paged.page_token:
                return

    if not TYPE_CHECKING:  # else a name that nothing has would pass as one of any type

        def __getattr__(self, name: str) -> Any:
            if name not in _SERVICES:
                raise AttributeError(f"{type(self).__name__} has no {name}")
            area, service = _SERVICES[name]
            module = import_module(f"drey.{area}.v1.{area}_service_pb2_grpc")
            stub = getattr(module, f"{service}Stub")(self._channel)
            setattr(self, name, stub)
            return stub


_SERVICES = {
    "catalog": ("catalog", "CatalogService"),
    "snapshots": ("snapshot", "SnapshotService"),
    "comparisons": ("compare", "CompareService"),
    "policies": ("policy", "PolicyService"),
    "restores": ("restore", "RestoreService"),
    "monitor": ("monitor", "MonitorService"),
    "jobs": ("job", "JobService"),
    "events": ("event", "EventService"),
    "access": ("access", "AccessService"),
    "audit": ("audit", "AuditService"),
    "system": ("system", "SystemService"),
}
"""Attributes of a client, each a stub that is made when it is first used."""


class _RunningCall(Protocol[R_co]):
    """What gRPC gives for a running stream."""

    def __next__(self) -> R_co: ...
    def cancel(self) -> bool: ...


class Stream(Iterator[R]):
    """Messages of a running call. Leaving it by `with` or `close` cancels the call."""

    def __init__(self, call: _RunningCall[R], server: str) -> None:
        self._call = call
        self._server = server

    def __enter__(self) -> Stream[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_call()

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise from_rpc_error(error, server=self._server) from error

    def close_call(self) -> None:
        """Cancel the call if it still runs; may be called from another thread."""
        self._call.cancel()


def _open_channel(connection: Connection) -> grpc.Channel:
    if not connection.tls:
        return grpc.insecure_channel(connection.server, options=_OPTIONS)
    roots = None
    if connection.ca is not None:
        try:
            roots = connection.ca.read_bytes()
        except OSError as error:
            raise usage_error(
                f"cannot read {connection.ca}: {error}",
                field="--ca",
                remedy="name a file of certificates, PEM",
            ) from error
    credentials = grpc.ssl_channel_credentials(root_certificates=roots)
    return grpc.secure_channel(connection.server, credentials, options=_OPTIONS)
