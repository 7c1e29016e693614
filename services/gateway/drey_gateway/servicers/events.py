"""EventService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc

from drey.event.v1 import event_service_pb2 as pb
from drey_core.errors import Reason, Unavailable
from drey_gateway.context import WatcherLimit
from drey_gateway.following import follow_log
from drey_gateway.loops.event_feed import EventFeed
from drey_gateway.mapping_events import (
    Place,
    decode_place,
    encode_place,
    event_to_proto,
    kind_of,
    resource_of,
)
from drey_runtime.auth import Principal, current_principal
from drey_runtime.clock import now_ns
from drey_runtime.event_log import EventKind, EventPage, Position, Resource, ResourceChange
from drey_runtime.mapping.common import timestamp_message

Context = grpc.aio.ServicerContext[Any, Any]
_KEYS = "access.keys.list"


class EventServicer:
    """Tells of changes."""

    def __init__(
        self, feed: EventFeed, limiter: WatcherLimit, renew: Callable[[Principal], Principal]
    ) -> None:
        self._feed, self._limiter, self._renew = feed, limiter, renew

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """See the contract."""
        wanted = _wanted_events(request)
        place = decode_place(request.token) if request.token else None
        principal = current_principal.get()

        def may_see_keys() -> bool:
            now = self._renew(principal)
            if Resource.KEY in wanted.resources:
                now.require_permission(_KEYS, "following changes of keys")
            return now.has_permission(_KEYS)

        may_see_keys()
        with self._limiter.take_watcher():
            events = FollowedEvents(self._feed, wanted, may_see_keys)
            for message in await events.begin_at(place):
                yield message
            async with aclosing(follow_log(events, self._feed.changed)) as messages:
                async for message in messages:
                    yield message


@dataclass(frozen=True, slots=True)
class WantedEvents:
    """Which events a client is shown; what is empty lets everything pass."""

    resources: frozenset[Resource]
    kinds: frozenset[EventKind]
    ids: frozenset[str]

    def includes_change(self, change: ResourceChange) -> bool:
        """Whether it is among them."""
        return (
            (not self.resources or change.resource in self.resources)
            and (not self.kinds or change.kind in self.kinds)
            and (not self.ids or not change.id or change.id in self.ids)
        )


def _wanted_events(request: pb.WatchEventsRequest) -> WantedEvents:
    return WantedEvents(
        frozenset(resource_of(code) for code in request.resources),
        frozenset(kind_of(code) for code in request.kinds),
        frozenset(request.ids),
    )


class FollowedEvents:
    """One client's way through the log of events.

    `may_see_keys` is asked again for everything that is sent, for what its caller may do can change
    while they follow; it raises where they may not follow at all any more.
    """

    def __init__(
        self, feed: EventFeed, wanted: WantedEvents, may_see_keys: Callable[[], bool]
    ) -> None:
        self._feed, self._wanted, self._may_see_keys = feed, wanted, may_see_keys
        self._place = Place("", Position(0, 0))

    async def begin_at(self, place: Place | None) -> Sequence[pb.WatchEventsResponse]:
        """The first messages. `Unavailable` while the database is away."""
        if place is None:
            if self._feed.stalled:
                raise Unavailable(
                    "events cannot be read now, for the database is away: try again in a moment",
                    reason=Reason.DATABASE_UNAVAILABLE,
                )
            return [self._begin_at(Place(self._feed.timeline, self._feed.end))]
        # what is in memory here says nothing of a place that may be of another log, or ahead
        page = await self._feed.read_after(place.position)
        if why := _why_missed(place, page):
            return self._begin_anew(why, await self._feed.read_after(None))
        return [self._begin_at(place, resumed=True)]

    async def next_messages(self) -> Sequence[pb.WatchEventsResponse]:
        """As `FollowedLog`."""
        feed, place = self._feed, self._place
        events = feed.events_after(place.position) if feed.timeline == place.timeline else None
        if events is not None:
            end = feed.end
        else:
            page = await feed.read_after(place.position)
            if why := _why_missed(place, page):
                return self._begin_anew(why, await feed.read_after(None))
            events, end = page.events, page.position
        if not events:
            self._place = Place(place.timeline, max(place.position, end))
            if feed.stalled:
                raise Unavailable("events cannot be read now")
            return ()
        self._place = Place(place.timeline, events[-1].position)
        keys_too = self._may_see_keys()
        shown = [
            event_to_proto(place.timeline, event)
            for event in events
            if self._wanted.includes_change(event.change)
            and (keys_too or event.change.resource is not Resource.KEY)
        ]
        if not shown:
            return [self.make_checkpoint(stalled=feed.stalled)]
        return [pb.WatchEventsResponse(events=pb.EventBatch(events=shown))]

    def make_checkpoint(self, *, stalled: bool) -> pb.WatchEventsResponse:
        """As `FollowedLog`."""
        return pb.WatchEventsResponse(
            checkpoint=pb.EventsCheckpoint(
                token=encode_place(self._place), time=timestamp_message(now_ns()), stalled=stalled
            )
        )

    def _begin_at(self, place: Place, *, resumed: bool = False) -> pb.WatchEventsResponse:
        self._place = place
        return pb.WatchEventsResponse(
            begin=pb.EventsBegin(token=encode_place(place), resumed=resumed)
        )

    def _begin_anew(self, why: str, page: EventPage) -> list[pb.WatchEventsResponse]:
        return [
            pb.WatchEventsResponse(resync_required=pb.EventsResyncRequired(reason=why)),
            self._begin_at(Place(page.timeline, page.position)),
        ]


def _why_missed(place: Place, page: EventPage) -> str:
    """Why a reader cannot go on at a place; empty where it can."""
    if place.timeline != page.timeline:
        return "the database is another than the one that the token is of, or was restored"
    if page.position < place.position:
        return "the token is of a place that the database has not got to"
    # a place before the first event of a transaction has that transaction's number too
    if page.forgotten >= place.position.transaction:
        return "events are kept for a week, and the token is older"
    return ""
