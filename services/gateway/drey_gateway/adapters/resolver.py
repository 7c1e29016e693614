"""Asks `DirectoryService` of the snapshot service about ids, tags and scopes."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np

from drey.common.v1 import selector_pb2
from drey.internal.directory.v1 import directory_service_pb2 as pb
from drey.internal.directory.v1 import directory_service_pb2_grpc as pb_grpc
from drey_core.values import I8
from drey_runtime.upstream import read_stream, translate_errors

_DEADLINE_S = 5.0


class CatalogResolver:
    """A `Resolver` over a channel to the snapshot service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = pb_grpc.DirectoryServiceStub(channel)

    async def resolve_selector(
        self, selector: selector_pb2.Selector, allow_unknown: bool
    ) -> tuple[I8, list[str]]:
        """As `Resolver`; `Unavailable` when the service does not answer within 5 s."""
        numbers: list[I8] = []
        not_found: list[str] = []
        request = pb.ResolveChannelsRequest(selector=selector, allow_unknown=allow_unknown)
        async with (
            translate_errors("snapshot"),
            read_stream(self._stub.ResolveChannels(request, timeout=_DEADLINE_S)) as parts,
        ):
            async for part in parts:
                numbers.append(np.array(part.pv_numbers, np.int64))
                not_found += part.not_found
        joined = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
        return joined, not_found
