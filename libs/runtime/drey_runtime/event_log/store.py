"""The table of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drey_core.errors import Internal
from drey_runtime.database import Connection, Record
from drey_runtime.event_log.model import (
    EventKind,
    LoggedEvent,
    Position,
    Resource,
    ResourceChange,
)

CHANNEL = "drey_events"
KEEP_NS = 7 * 24 * 3600 * 10**9

_INSERT = """
INSERT INTO event_log.event (at_ns, principal, role, kind, resource, id, name, state, etag,
    created, updated, deleted, undeleted)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""
# One statement has one snapshot of the database: whatever is below its oldest running transaction
# is decided, and seen by it if it was committed.
_READ = """
SELECT log.timeline, log.settled, log.forgotten, log.unsettled, event.*
FROM (
    SELECT here.timeline, here.settled,
        (SELECT transaction FROM event_log.forgotten WHERE timeline = here.timeline) AS forgotten,
        EXISTS (SELECT FROM event_log.event
            WHERE timeline = here.timeline AND transaction >= here.settled) AS unsettled
    FROM (SELECT event_log.timeline() AS timeline,
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS settled) AS here
) AS log
LEFT JOIN LATERAL (
    SELECT transaction, no, at_ns, principal, role, kind, resource, id, name, state, etag,
        created, updated, deleted, undeleted
    FROM event_log.event
    WHERE timeline = log.timeline AND (transaction, no) > ($1, $2) AND transaction < log.settled
    ORDER BY transaction, no LIMIT $3
) AS event ON true
ORDER BY event.transaction, event.no
"""


async def record_events(
    conn: Connection,
    changes: Sequence[ResourceChange],
    *,
    principal: str,
    role: str,
    time_ns: int,
) -> None:
    """Tell of changes in the transaction that makes them; its commit tells whoever follows.

    Events of one resource come in the order of its changes where each transaction locks its row
    before it writes anything else.
    """
    if not conn.is_in_transaction():
        raise Internal("record_events() needs a transaction")
    await conn.executemany(
        _INSERT,
        [
            (
                time_ns,
                principal,
                role,
                str(change.kind),
                str(change.resource),
                change.id,
                change.name,
                change.state,
                change.etag,
                change.created,
                change.updated,
                change.deleted,
                change.undeleted,
            )
            for change in changes
        ],
    )


@dataclass(frozen=True, slots=True)
class EventPage:
    """What a look at the log gave.

    `position` is where the look got: nothing will come to stand before it. It lies before the one
    that was asked for only where that is not of this log. `forgotten` is the
    last transaction whose events are gone. `unsettled`: there are events that cannot be read yet,
    because an older transaction still runs; look again in a moment, nobody will tell.
    """

    timeline: str
    events: list[LoggedEvent]
    position: Position
    forgotten: int
    unsettled: bool


async def read_events(conn: Connection, after: Position | None, limit: int) -> EventPage:
    """Up to `limit` events after a position; None reads none and gives the position of now."""
    begin = after or Position(0, 0)
    rows = await conn.fetch(_READ, *begin, 0 if after is None else limit)
    first = rows[0]
    events = [_event_of_row(row) for row in rows if row["transaction"] is not None]
    full = after is not None and len(events) == limit
    position = events[-1].position if full else Position(first["settled"], 0)
    return EventPage(
        first["timeline"], events, position, first["forgotten"] or 0, first["unsettled"]
    )


async def forget_events(conn: Connection, *, now_ns: int, keep_ns: int = KEEP_NS) -> int:
    """Delete events older than `keep_ns` (a week; an hour at least); returns how many."""
    gone: int = await conn.fetchval("SELECT event_log.forget($1)", now_ns - keep_ns)
    return gone


def _event_of_row(row: Record) -> LoggedEvent:
    return LoggedEvent(
        Position(row["transaction"], row["no"]),
        row["at_ns"],
        row["principal"],
        row["role"],
        ResourceChange(
            Resource(row["resource"]),
            EventKind(row["kind"]),
            row["id"],
            row["name"],
            row["state"],
            row["etag"],
            row["created"],
            row["updated"],
            row["deleted"],
            row["undeleted"],
        ),
    )
