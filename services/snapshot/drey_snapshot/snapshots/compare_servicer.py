"""CompareService: validate, map, call, map."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from drey.compare.v1 import compare_service_pb2 as pb
from drey_snapshot.snapshots import compare_mapping as mapping
from drey_snapshot.snapshots.usecases.compare import Comparer

Context = grpc.aio.ServicerContext[Any, Any]


class CompareServicer:
    """The one method; rows are given as encoded bytes."""

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer

    async def Compare(
        self, request: pb.CompareRequest, context: Context
    ) -> AsyncIterator[pb.CompareResponse | bytes]:
        """As the contract says."""
        compared = await self._comparer.compare(mapping.compare_order(request))
        for response in mapping.compare_responses(compared, request.spec):
            yield response
