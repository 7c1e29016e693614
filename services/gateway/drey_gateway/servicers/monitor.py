"""MonitorService."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np

from drey.monitor.v1 import monitor_service_pb2 as pb
from drey_core import errors
from drey_gateway import mapping
from drey_gateway.domain.resume import decode_token
from drey_gateway.domain.watch import BOTH, Fields
from drey_gateway.domain.wire import Taken, TakenRows
from drey_gateway.watching import Seats, Wanted, Watch, World, batched, paced, resolve
from drey_runtime.mapping.form import in_columns
from drey_runtime.mapping.selector import selector_from_proto

Context = grpc.aio.ServicerContext[Any, Any]
_METADATA_ROWS = 500
_MAX_INTERVAL_S = 3600.0


class MonitorServicer:
    """Values, watches and status, from memory."""

    def __init__(
        self,
        world: World,
        loaded: Callable[[], bool],
        seats: Seats,
    ) -> None:
        self._world, self._loaded, self._seats = world, loaded, seats

    def _require_loaded(self) -> None:
        if not self._loaded():
            raise errors.Unavailable(
                "the gateway has not been able to read the image yet; try again in a moment",
                reason=errors.Reason.IMAGE_UNAVAILABLE,
            )

    async def GetValues(
        self, request: pb.GetValuesRequest, context: Context
    ) -> AsyncIterator[pb.GetValuesResponse | bytes]:
        """See the contract."""
        as_columns = in_columns(request.form)
        self._require_loaded()
        live = self._world.live
        selector = selector_from_proto(request.selector)
        selector.validate()
        rows, not_found, named = await resolve(self._world, selector, request.selector, True)
        directory = live.directory
        links = mapping.name_links(named, directory)
        with self._seats.taken():
            # all at once, before anything waits: the truth of one instant
            cache, every = live.cache(Fields.BOTH), np.full(len(rows), BOTH)
            stale = frozenset(self._world.stale())
            taken: Taken = (
                cache.columns(rows, every, stale)
                if as_columns
                else TakenRows(cache.rows(rows, every, stale))
            )
            for missing in batched(not_found):
                yield pb.GetValuesResponse(not_found=missing)
            for part in batched(links):
                yield pb.GetValuesResponse(links=part)
            if request.with_metadata:
                for start in range(0, len(rows), _METADATA_ROWS):
                    chosen = rows[start : start + _METADATA_ROWS]
                    found_metadata = mapping.metadata_rows(
                        chosen, directory, live.metadata, Fields.BOTH
                    )
                    yield pb.GetValuesResponse(metadata=found_metadata)
            for message in paced(taken.chunks(), taken):
                yield message

    async def WatchPvs(self, request: pb.WatchPvsRequest, context: Context) -> AsyncIterator[bytes]:
        """See the contract."""
        wanted = _watch_wanted(request)
        self._require_loaded()
        with self._seats.taken():
            async with aclosing(Watch(self._world, wanted).run()) as messages:
                async for message in messages:
                    yield message

    def OpenWatch(
        self, request: pb.OpenWatchRequest, context: Context
    ) -> AsyncIterator[pb.OpenWatchResponse]:
        """See the contract."""
        return _not_built(
            "OpenWatch is not built in this version; open a WatchPvs for each set of PVs"
        )

    async def ModifyWatch(
        self, request: pb.ModifyWatchRequest, context: Context
    ) -> pb.ModifyWatchResponse:
        """See the contract."""
        raise errors.Unimplemented(
            "ModifyWatch is not built in this version; open a WatchPvs for each set of PVs"
        )

    def WatchDrift(
        self, request: pb.WatchDriftRequest, context: Context
    ) -> AsyncIterator[pb.WatchDriftResponse]:
        """See the contract."""
        return _not_built(
            "WatchDrift is not built in this version; compare with the live machine instead"
        )

    async def GetMonitorStatus(
        self, request: pb.GetMonitorStatusRequest, context: Context
    ) -> pb.GetMonitorStatusResponse:
        """See the contract."""
        self._require_loaded()
        return pb.GetMonitorStatusResponse(shards=shard_statuses(self._world))


def shard_statuses(world: World) -> list[pb.ShardStatus]:
    """All shards by number."""
    now, stale = time.monotonic_ns(), world.stale()
    return [
        mapping.shard_status(n, shard, n not in stale, now)
        for n, shard in enumerate(world.live.shards)
    ]


async def _not_built(message: str) -> AsyncIterator[Any]:
    for text in (message,):
        raise errors.Unimplemented(text)
    yield


def _watch_wanted(request: pb.WatchPvsRequest) -> Wanted:
    spec = request.spec
    for field, instead in (
        ("deadband", "set min_interval to get fewer messages"),
        ("array_limits", "leave large arrays out of the selector"),
    ):
        if spec.HasField(field):  # type: ignore[arg-type]
            raise errors.Unimplemented(
                f"spec.{field} is not built in this version; leave it out, and {instead}",
                field=f"spec.{field}",
            )
    interval = spec.min_interval.ToNanoseconds() / 1e9
    if not 0 <= interval <= _MAX_INTERVAL_S:
        raise errors.InvalidArgument(
            f"spec.min_interval: {interval} s is not between 0 and an hour",
            field="spec.min_interval",
        )
    selector = selector_from_proto(spec.selector, "spec.selector")
    selector.validate("spec.selector")
    return Wanted(
        selector=selector,
        message=spec.selector,
        fields=mapping.fields(spec.fields),
        in_columns=in_columns(spec.form, "spec.form"),
        min_interval_s=interval,
        with_metadata=spec.with_metadata,
        allow_unknown=spec.allow_unknown,
        token=decode_token(request.token) if request.token else None,
    )
