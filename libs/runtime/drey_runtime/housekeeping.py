"""What has to be swept from time to time."""

from __future__ import annotations

import asyncio
import logging

from drey_core.errors import Unavailable
from drey_runtime import idempotency
from drey_runtime.clock import now_ns
from drey_runtime.database import Database
from drey_runtime.event_log import forget_events

log = logging.getLogger(__name__)

_PERIOD_S = 3600.0


class Housekeeping:
    """Forgets answers of repeated requests, and events, after a week. Several may run at once."""

    def __init__(self, database: Database, period_s: float = _PERIOD_S) -> None:
        self._database, self._period_s = database, period_s

    async def run(self) -> None:
        """Sweep now and every `period_s` seconds, until cancelled; a sweep missed is made up."""
        while True:
            try:
                async with self._database.begin_transaction() as conn:
                    answers = await idempotency.forget_old_answers(conn, now_ns=now_ns())
                    events = await forget_events(conn, now_ns=now_ns())
                if answers or events:
                    log.info("forgot the answers of %d requests, %d events", answers, events)
            except Unavailable as error:
                log.warning("sweeping waits: %s", error.message)
            await asyncio.sleep(self._period_s)
