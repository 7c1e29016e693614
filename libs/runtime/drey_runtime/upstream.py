"""Calls to another service: its errors as ours, and the catalog that it serves to our own parts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from drey.internal.directory.v1.directory_service_pb2 import GetCatalogPagesRequest
from drey.internal.directory.v1.directory_service_pb2_grpc import DirectoryServiceStub
from drey_core import errors
from drey_core.errors import DreyError, Malformed, Reason, Unavailable
from drey_runtime import status
from drey_runtime.edge import note_error

_CLASSES: dict[grpc.StatusCode, type[DreyError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.ABORTED: errors.Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
}
_NO_ANSWER = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
"""What gRPC itself makes of a service that dies in mid-call, where no reason comes with it."""
_READS = 3


@asynccontextmanager
async def translate_errors(service: str) -> AsyncIterator[None]:
    """Errors of calls in the body as `DreyError`, with the reason that the other service gave.

    `Unavailable` where it did not answer, or does not accept our tokens: clocks of two hosts that
    differ, or keys that changed, are mended by people while we run.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise translate_error(service, error) from error


@asynccontextmanager
async def read_stream(call: Any) -> AsyncIterator[AsyncGenerator[Any, None]]:
    """The messages of a call whose answer is a stream. The call has ended when the body is left.

    However it is left: gRPC's own iterator, left half read, and its call hold each other, and the
    last message, until a full garbage collection.
    """
    try:
        async with aclosing(call.__aiter__()) as messages:
            yield messages
    finally:
        call.cancel()


def translate_error(service: str, error: grpc.aio.AioRpcError) -> DreyError:
    """An error of a call to `service` as ours; see `translated`."""
    code = error.code()
    name, details = status.reason_of(error)
    error_class = _CLASSES.get(code, errors.Internal)
    text = error.details() or code.name
    if code is grpc.StatusCode.UNAUTHENTICATED:
        # never about the caller, whom the gateway has let in: nobody else looks at keys
        return Unavailable(
            f"the {service} service does not accept the tokens of this one: {text}",
            metadata=details | {"service": service},
        )
    if name in Reason.__members__:
        field = details.get("field", "")
        return error_class(text, reason=Reason[name], field=field, metadata=details)
    if error_class is errors.Unavailable or code in _NO_ANSWER:
        return Unavailable(f"the {service} service is away: {text}", metadata={"service": service})
    return error_class(f"the {service} service: {text}")


Page = TypeVar("Page")


@dataclass(frozen=True, slots=True)
class CatalogUpdate(Generic[Page]):
    """Pages of the catalog of one version, by number. `whole`: pages not in it do not exist."""

    version: int
    pages: Mapping[int, Page]
    whole: bool


class CatalogPagesClient(Generic[Page]):
    """Reads the catalog's pages from `DirectoryService`, all of them of one version."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        decode: Callable[[bytes], tuple[int, Page]],
        timeout_s: float = 10.0,
    ) -> None:
        """`decode` gives number and page of an encoded page, and raises `Malformed`."""
        self._stub = DirectoryServiceStub(channel)
        self._decode, self._timeout_s = decode, timeout_s

    async def fetch_changes(self, since: int) -> CatalogUpdate[Page]:
        """What changed since a version; 0 asks for all.

        All again where the service has an older version: another catalog, restored from a backup.
        `Unavailable` where it is away, or sends what is no catalog: nothing of it is used then.
        """
        for _ in range(_READS):
            update = await self._read_pages(since)
            if update is None:
                continue
            if update.version >= since:
                return update
            since = 0
        raise Unavailable(f"the catalog changed under {_READS} reads of it")

    async def _read_pages(self, since: int) -> CatalogUpdate[Page] | None:
        """One read; None where its parts are of several versions."""
        pages: dict[int, Page] = {}
        versions: set[int] = set()
        request = GetCatalogPagesRequest(since_version=since)
        async with (
            translate_errors("snapshot"),
            read_stream(self._stub.GetCatalogPages(request, timeout=self._timeout_s)) as parts,
        ):
            async for part in parts:
                versions.add(part.version)
                try:
                    pages.update(map(self._decode, part.pages))
                except Malformed as error:
                    note_error(error, "the catalog service")
                    raise Unavailable(
                        f"the catalog cannot be read: {error.message}",
                        metadata={"service": "snapshot"},
                    ) from error
        if len(versions) > 1:
            return None
        return CatalogUpdate(versions.pop() if versions else since, pages, whole=since == 0)
