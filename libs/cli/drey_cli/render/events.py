"""Events as lines."""

from __future__ import annotations

from drey_cli.contracts import event_pb2
from drey_cli.render.enums import short_name
from drey_cli.render.times import format_time


def event_line(event: event_pb2.Event, *, utc: bool) -> str:
    """One event as it is followed."""
    resource = short_name(event_pb2.EventResource, event.resource)
    parts = [
        format_time(event.time.ToNanoseconds(), utc=utc),
        event.actor.principal,
        resource,
        f"is {event.state}" if event.state else short_name(event_pb2.EventKind, event.kind),
    ]
    if event.HasField("bulk"):
        bulk = event.bulk
        counts = {
            "new": bulk.created,
            "changed": bulk.updated,
            "deleted": bulk.deleted,
            "back": bulk.undeleted,
        }
        parts.append(", ".join(f"{count} {what}" for what, count in counts.items() if count))
    else:
        parts += [event.name, event.id]
    return "  ".join(part for part in parts if part)
