"""Hears by LISTEN what is said on one channel, by a connection of its own.

A notice comes with the commit of whoever sent it. What is said while there is no connection is
lost: `on_connected` is called after each new connection, for a look at what may have been missed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from drey_core.errors import Unavailable
from drey_runtime.database import connect_once, guard_connection
from drey_runtime.retrying import backoff_delay

_log = logging.getLogger(__name__)
_PING_S = 1.0
_SILENCE_S = 2.0
_LIVED_S = 10.0


class NoticeListener:
    """Calls `on_notice` with (process number of the sender's session, payload); must not block."""

    def __init__(
        self,
        url: str,
        channel: str,
        *,
        name: str,
        on_notice: Callable[[int, str], None],
        on_connected: Callable[[], None],
    ) -> None:
        self._url, self._channel, self._name = url, channel, name
        self._on_notice, self._on_connected = on_notice, on_connected

    async def run(self) -> None:
        """Listen until cancelled, by a new connection where the last one died."""
        failures = 0
        while True:
            begin = time.monotonic()
            try:
                await self._listen_once()
            except Unavailable as error:
                _log.warning(
                    "changes are not heard at once",
                    extra={"channel": self._channel, "error": error.message},
                )
            failures = 0 if time.monotonic() - begin > _LIVED_S else failures + 1
            await asyncio.sleep(backoff_delay(failures, first_s=0.1, cap_s=2.0))

    async def _listen_once(self) -> None:
        """Until the connection is lost, or silent for too long: `Unavailable`."""
        lost = asyncio.Event()
        with guard_connection():
            connection = await connect_once(
                self._url, name=self._name, timeout=_SILENCE_S, command_timeout=_SILENCE_S
            )
        try:
            with guard_connection(connection):
                connection.add_termination_listener(lambda _: lost.set())
                await connection.add_listener(self._channel, self._hear_notice)
                self._on_connected()
                while True:
                    await wait_for_event(lost, _PING_S)
                    await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    def _hear_notice(self, connection: Any, session: int, channel: str, payload: object) -> None:
        self._on_notice(session, str(payload))


async def wait_for_event(event: asyncio.Event, timeout: float) -> None:
    """Return once it is set, or after `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return
