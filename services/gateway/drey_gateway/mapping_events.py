"""Events and their tokens to messages and back."""

from __future__ import annotations

from typing import NamedTuple

from drey.event.v1 import event_pb2
from drey_core.errors import InvalidArgument, Reason
from drey_core.token import decode_page_token, encode_page_token, query_hash
from drey_runtime.event_log import EventKind, LoggedEvent, Position, Resource
from drey_runtime.mapping.common import actor, timestamp_message

_TOKEN = "events"
_ANY_QUERY = query_hash()
_MAX_COUNT = 2**31 - 1
_KINDS = {
    kind: event_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}")
    for kind in EventKind
    if kind is not EventKind.UNKNOWN
}
_RESOURCES = {
    resource: event_pb2.EventResource.Value(f"EVENT_RESOURCE_{resource.name}")
    for resource in Resource
    if resource is not Resource.UNKNOWN
}


class Place(NamedTuple):
    """Where a reader stands in the log of events, told so that every gateway understands it."""

    timeline: str
    position: Position


def encode_place(place: Place) -> str:
    """Opaque text."""
    return encode_page_token(_TOKEN, _ANY_QUERY, [place.timeline, *place.position])


def decode_place(token: str) -> Place:
    """Inverse. Raises `InvalidArgument` (TOKEN_UNKNOWN) for anything else."""
    try:
        parts = decode_page_token(_TOKEN, _ANY_QUERY, token, (str, int, int))
    except InvalidArgument as error:
        raise _unknown_token() from error
    match parts:
        case [str(timeline), int(transaction), int(number)]:
            return Place(timeline, Position(transaction, number))
    raise _unknown_token()


def _unknown_token() -> InvalidArgument:
    return InvalidArgument(
        "the token was altered, or is not one of WatchEvents; begin without a token",
        reason=Reason.TOKEN_UNKNOWN,
        field="token",
    )


def kind_of(code: int) -> EventKind:
    """The kind of a number of `EventKind`; UNKNOWN for one that is none."""
    return next((kind for kind, number in _KINDS.items() if number == code), EventKind.UNKNOWN)


def resource_of(code: int) -> Resource:
    """The resource of a number of `EventResource`; UNKNOWN for one that is none."""
    return next(
        (resource for resource, number in _RESOURCES.items() if number == code), Resource.UNKNOWN
    )


def event_to_proto(timeline: str, event: LoggedEvent) -> event_pb2.Event:
    """An event of the log of a timeline."""
    change = event.change
    out = event_pb2.Event(
        token=encode_place(Place(timeline, event.position)),
        time=timestamp_message(event.time_ns),
        kind=event_pb2.EventKind.Value(
            f"EVENT_KIND_{change.kind.name}".replace("UNKNOWN", "UNSPECIFIED")
        ),
        resource=event_pb2.EventResource.Value(
            f"EVENT_RESOURCE_{change.resource.name}".replace("UNKNOWN", "UNSPECIFIED")
        ),
        id=change.id,
        name=change.name,
        state=change.state,
        etag=change.etag,
        actor=actor(event.principal, event.role),
    )
    if not change.id:
        out.bulk.SetInParent()
        for count in ("created", "updated", "deleted", "undeleted"):
            setattr(out.bulk, count, min(getattr(change, count), _MAX_COUNT))
    return out
