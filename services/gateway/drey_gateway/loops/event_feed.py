"""The latest events in memory, for all who follow them at this gateway."""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right

from drey_core.errors import Unavailable
from drey_runtime.database import Connection, Database
from drey_runtime.event_log import CHANNEL, EventPage, LoggedEvent, Position, read_events
from drey_runtime.listening import NoticeListener, wait_for_event
from drey_runtime.retrying import backoff_delay
from drey_runtime.waiting import ChangeSignal

log = logging.getLogger(__name__)

PAGE_EVENTS = 500
_KEPT_EVENTS = 10_000
_POLL_S = 1.0
_UNSETTLED_S = 0.02
_LONG_UNSETTLED_S = 10.0


class EventFeed:
    """Reads each event once, whoever follows; who is further behind than it keeps reads a page.

    `changed` is notified after anything that a follower may want: new events, new acts in the
    audit trail, the database going away or coming back.
    """

    def __init__(self, database: Database, kept_events: int = _KEPT_EVENTS) -> None:
        self._database, self._kept_events = database, kept_events
        self.changed = ChangeSignal()
        self.stalled = True
        """The database is away, or has not been read yet."""
        self.timeline = ""
        self._events: list[LoggedEvent] = []
        self._begin = self.end = Position(0, 0)
        self._wake = asyncio.Event()
        self._unsettled_since: float | None = None

    async def run(self) -> None:
        """Until cancelled. Postgres being away is waited out."""
        listener = NoticeListener(
            self._database.url,
            CHANNEL,
            name="drey-events",
            on_notice=lambda session, payload: self._wake.set(),
            on_connected=self._wake.set,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(listener.run())
            group.create_task(self._keep_reading())

    async def read_after(self, position: Position | None) -> EventPage:
        """A page from the database. Raises `Unavailable`."""

        async def read_page(conn: Connection) -> EventPage:
            return await read_events(conn, position, PAGE_EVENTS)

        return await self._database.run_reading(read_page)

    def events_after(self, position: Position) -> list[LoggedEvent] | None:
        """Up to a page of those in memory; None where it does not reach back that far."""
        if position < self._begin:
            return None
        first = bisect_right(self._events, position, key=lambda event: event.position)
        return self._events[first : first + PAGE_EVENTS]

    async def _keep_reading(self) -> None:
        failures = looks = 0
        while True:
            self._wake.clear()
            try:
                unsettled = await self._read_new()
            except Unavailable as error:
                if not self.stalled:
                    log.warning("events cannot be read: %s", error.message)
                self.stalled = True
                self.changed.notify_change()
                await asyncio.sleep(backoff_delay(failures))
                failures += 1
                continue
            failures = 0
            self.stalled = False
            self.changed.notify_change()
            looks = looks + 1 if unsettled else 0
            self._warn_unsettled(unsettled)
            # nobody tells when the transaction that they wait for has ended
            wait = (
                backoff_delay(looks, first_s=_UNSETTLED_S, cap_s=_POLL_S) if unsettled else _POLL_S
            )
            await wait_for_event(self._wake, wait)

    async def _read_new(self) -> bool:
        """Read all that can be read; whether there is more that can not be yet."""
        while True:
            page = await self.read_after(self.end if self.timeline else None)
            if page.timeline != self.timeline or page.position < self.end:
                if self.timeline:
                    log.warning("the database is another, or went back: events begin anew")
                    page = await self.read_after(None)
                self.timeline, self._events, self._begin = page.timeline, [], page.position
            self._events += page.events
            self.end = page.position
            spare = len(self._events) - self._kept_events
            if spare > self._kept_events // 10:
                self._begin = self._events[spare - 1].position
                del self._events[:spare]
            if len(page.events) < PAGE_EVENTS:
                return page.unsettled

    def _warn_unsettled(self, unsettled: bool) -> None:
        now = time.monotonic()
        if not unsettled:
            self._unsettled_since = None
        elif self._unsettled_since is None:
            self._unsettled_since = now
        elif now - self._unsettled_since > _LONG_UNSETTLED_S:
            log.warning(
                "events wait for a transaction that has been open for more than"
                f" {_LONG_UNSETTLED_S:g} s: pg_stat_activity shows it by its xact_start"
            )
            self._unsettled_since = now
