"""Events: what changed, in the order of the transactions, for whoever follows the changes.

`record_events` writes them in the transaction of the change, `read_events` reads those after a
position. An event that has been read is never followed by one that comes to stand before it.
"""

from drey_runtime.event_log.model import (
    EventKind,
    LoggedEvent,
    Position,
    Resource,
    ResourceChange,
)
from drey_runtime.event_log.store import (
    CHANNEL,
    EventPage,
    forget_events,
    read_events,
    record_events,
)

__all__ = [
    "CHANNEL",
    "EventKind",
    "EventPage",
    "LoggedEvent",
    "Position",
    "Resource",
    "ResourceChange",
    "forget_events",
    "read_events",
    "record_events",
]
