"""`drey.internal.control.v1.ControlService`."""

from __future__ import annotations

from typing import Any

import grpc

from drey.internal.control.v1.control_service_pb2 import (
    GetOwnedShardsRequest,
    GetOwnedShardsResponse,
    ReleaseShardsRequest,
    ReleaseShardsResponse,
)
from drey_monitor import mapping
from drey_monitor.owned import Shards

SERVICE = "drey.internal.control.v1.ControlService"


class ControlServicer:
    """Control of this process."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def GetOwnedShards(
        self, request: GetOwnedShardsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetOwnedShardsResponse:
        """See the contract."""
        return mapping.owned_shards(sorted(self._shards, key=lambda o: o.shard))

    async def ReleaseShards(
        self, request: ReleaseShardsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ReleaseShardsResponse:
        """See the contract."""
        return ReleaseShardsResponse(released=self._shards.release_all())
