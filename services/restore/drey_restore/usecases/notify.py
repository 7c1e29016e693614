"""Wakes whoever follows a restore in this process."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Notifier:
    """Events by restore. Followers in other processes look by themselves."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def listen(self, restore_id: str) -> Iterator[asyncio.Event]:
        """An event that is set upon every change."""
        event = asyncio.Event()
        self._events[restore_id].add(event)
        try:
            yield event
        finally:
            self._events[restore_id].discard(event)
            if not self._events[restore_id]:
                del self._events[restore_id]

    def wake(self, restore_id: str) -> None:
        """Tell the followers."""
        for event in list(self._events.get(restore_id, ())):
            event.set()


class Aborts:
    """Wishes to stop, for restores that run in this process."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    @contextmanager
    def running(self, restore_id: str) -> Iterator[asyncio.Event]:
        """While it runs: an event that is set when somebody wants it to stop."""
        self._events[restore_id] = asyncio.Event()
        try:
            yield self._events[restore_id]
        finally:
            del self._events[restore_id]

    def request(self, restore_id: str) -> None:
        """Stop it, if it runs here."""
        event = self._events.get(restore_id)
        if event is not None:
            event.set()
