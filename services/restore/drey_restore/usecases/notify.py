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
    def listen_to_restore(self, restore_id: str) -> Iterator[asyncio.Event]:
        """An event that is set upon every change."""
        event = asyncio.Event()
        self._events[restore_id].add(event)
        try:
            yield event
        finally:
            self._events[restore_id].discard(event)
            if not self._events[restore_id]:
                del self._events[restore_id]

    def wake_listeners(self, restore_id: str) -> None:
        """Tell the followers."""
        for event in list(self._events.get(restore_id, ())):
            event.set()


class Wishes:
    """What somebody wants of one restore that runs here."""

    def __init__(self) -> None:
        self.abort = asyncio.Event()
        self.pause = False
        self.changed = asyncio.Event()
        """Set with each change of the others."""


class RunningRestores:
    """Restores that run in this process, and what is wanted of them.

    Those who tell another process are heard of by the row of the restore.
    """

    def __init__(self) -> None:
        self._wishes: dict[str, Wishes] = {}

    @contextmanager
    def running_restore(self, restore_id: str) -> Iterator[Wishes]:
        """While it runs."""
        self._wishes[restore_id] = Wishes()
        try:
            yield self._wishes[restore_id]
        finally:
            del self._wishes[restore_id]

    def abort(self, restore_id: str) -> None:
        """Stop it, if it runs here."""
        wishes = self._wishes.get(restore_id)
        if wishes is not None:
            wishes.abort.set()
            wishes.changed.set()

    def hold_restore(self, restore_id: str, *, pause: bool) -> None:
        """Pause it or let it go on, if it runs here."""
        wishes = self._wishes.get(restore_id)
        if wishes is not None:
            wishes.pause = pause
            wishes.changed.set()
