"""Asks `DirectoryService` of the snapshot service about ids, tags and scopes."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np

from drey.common.v1 import selector_pb2
from drey.internal.directory.v1 import directory_service_pb2 as pb
from drey.internal.directory.v1 import directory_service_pb2_grpc as pb_grpc
from drey_core import errors
from drey_core.values import I8
from drey_runtime.status import reason_of

_DEADLINE_S = 5.0

_ERRORS: dict[grpc.StatusCode, type[errors.DreyError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.INTERNAL: errors.Internal,
}


class CatalogResolver:
    """A `Resolver` over a channel to the snapshot service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = pb_grpc.DirectoryServiceStub(channel)

    async def resolve(
        self, selector: selector_pb2.Selector, allow_unknown: bool
    ) -> tuple[I8, list[str]]:
        """As `Resolver`; `Unavailable` when the service does not answer within 5 s."""
        numbers: list[I8] = []
        not_found: list[str] = []
        request = pb.ResolveChannelsRequest(selector=selector, allow_unknown=allow_unknown)
        call = self._stub.ResolveChannels(request, timeout=_DEADLINE_S)
        try:
            async for part in call:
                numbers.append(np.array(part.pv_numbers, np.int64))
                not_found += part.not_found
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error
        joined = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
        return joined, not_found


def _translated(error: grpc.aio.AioRpcError) -> errors.DreyError:
    name, metadata = reason_of(error)
    cls = _ERRORS.get(error.code())
    if cls is None or name not in errors.Reason.__members__:
        return errors.Unavailable(
            f"the snapshot service, which knows ids, tags and scopes, is away: {error.details()}",
            metadata={"service": "snapshot"},
        )
    field = metadata.get("field", "")
    return cls(error.details() or "", reason=errors.Reason[name], field=field, metadata=metadata)
