"""Telling everybody in the process who waits that something has changed."""

from __future__ import annotations

import asyncio


class ChangeSignal:
    """Wakes everybody who waits, once for each `notify`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify_change(self) -> None:
        """Something changed."""
        self._event.set()
        self._event = asyncio.Event()

    def listen_for_change(self) -> asyncio.Event:
        """The event of the next `notify`; get it before looking, so that nothing is missed."""
        return self._event
