"""MonitorService."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np

from drey.monitor.v1 import monitor_service_pb2 as pb
from drey_core import errors
from drey_core.wire_values import wrap_payload
from drey_gateway import mapping
from drey_gateway.context import WatchContext
from drey_gateway.domain.instances import InstanceBook
from drey_gateway.domain.terms import SelectorTerm
from drey_gateway.domain.watch import BOTH, Fields
from drey_gateway.domain.wire import InstantValues, TakenRows
from drey_gateway.drift_book import DriftBook
from drey_gateway.drifting import DriftWatch
from drey_gateway.loops.feed import Feed
from drey_gateway.mapping_asked import read_wanted
from drey_gateway.mapping_drift import read_drift
from drey_gateway.mapping_told import batch_items, pace_messages
from drey_gateway.selecting import resolve_terms
from drey_gateway.session_relay import SessionRelay
from drey_gateway.sessions import SessionBook
from drey_gateway.watching import Watch
from drey_runtime.mapping.common import in_columns
from drey_runtime.mapping.selector import selector_from_proto

Context = grpc.aio.ServicerContext[Any, Any]
_METADATA = 2
"""Field of `GetValuesResponse`."""


class MonitorServicer:
    """Values, watches and status, from memory."""

    def __init__(
        self,
        context: WatchContext,
        feed: Feed,
        sessions: SessionBook,
        relay: SessionRelay,
        drifts: DriftBook,
    ) -> None:
        self._context, self._feed = context, feed
        self._sessions, self._relay, self._drifts = sessions, relay, drifts

    def _require_loaded(self) -> None:
        if not self._feed.loaded.is_set():
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
        live = self._context.live
        selector = selector_from_proto(request.selector)
        selector.validate_selector()
        terms = (SelectorTerm(True, selector),)
        rows, not_found, named = await resolve_terms(self._context, terms, True)
        directory = live.directory
        links = mapping.name_links(named, directory)
        with self._context.limiter.take_watcher():
            # all at once, before anything waits: the truth of one instant
            cache, every = live.row_cache(Fields.BOTH), np.full(len(rows), BOTH)
            stale = frozenset(self._context.stale())
            taken: InstantValues = (
                cache.taken_columns(rows, every, stale)
                if as_columns
                else TakenRows(cache.rows(rows, every, stale))
            )
            for missing in batch_items(not_found):
                yield pb.GetValuesResponse(not_found=missing)
            for part in batch_items(links):
                yield pb.GetValuesResponse(links=part)
            if request.with_metadata:
                encoder, both = self._context.metadata, Fields.BOTH
                for found in encoder.encode_rows(rows, directory, live.metadata, both):
                    yield b"".join(wrap_payload(_METADATA, row) for row in found)
            for message in pace_messages(taken.iterate_chunks(), taken):
                yield message

    async def WatchPvs(self, request: pb.WatchPvsRequest, context: Context) -> AsyncIterator[bytes]:
        """See the contract."""
        wanted = read_wanted(request.spec, request.token)
        del request  # lives as long as the watch otherwise, with all names
        self._require_loaded()
        with self._context.limiter.take_watcher():
            async with aclosing(Watch(self._context, wanted).run()) as messages:
                async for message in messages:
                    yield message

    async def OpenWatch(
        self, request: pb.OpenWatchRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """See the contract."""
        wanted = {}
        for index, subscription in enumerate(request.subscriptions):
            path = f"subscriptions[{index}]"
            if subscription.name in wanted:
                raise errors.InvalidArgument(
                    f"{path}.name: {subscription.name!r} is there twice; give each its own name",
                    field=f"{path}.name",
                )
            wanted[subscription.name] = read_wanted(
                subscription.spec, subscription.token, f"{path}.spec"
            )
            del subscription
        del request
        self._require_loaded()
        async with aclosing(self._sessions.open_session(wanted)) as messages:
            async for message in messages:
                yield message

    async def ModifyWatch(
        self, request: pb.ModifyWatchRequest, context: Context
    ) -> pb.ModifyWatchResponse:
        """See the contract."""
        await self._relay.relay_change(request)
        return pb.ModifyWatchResponse()

    async def WatchDrift(
        self, request: pb.WatchDriftRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """See the contract."""
        wanted = read_drift(request)
        del request
        self._require_loaded()
        with self._context.limiter.take_watcher():
            async with aclosing(DriftWatch(self._context, self._drifts, wanted).run()) as messages:
                async for message in messages:
                    yield message

    async def GetMonitorStatus(
        self, request: pb.GetMonitorStatusRequest, context: Context
    ) -> pb.GetMonitorStatusResponse:
        """See the contract."""
        self._require_loaded()
        return pb.GetMonitorStatusResponse(
            shards=shard_statuses(self._context, self._feed.instances)
        )


def shard_statuses(context: WatchContext, instances: InstanceBook) -> list[pb.ShardStatus]:
    """All shards by number."""
    now, stale = time.monotonic_ns(), context.stale()
    standbys = instances.standbys(now)
    return [
        mapping.shard_status(n, shard, n not in stale, now, standbys.get(n, ()))
        for n, shard in enumerate(context.live.shards)
    ]
