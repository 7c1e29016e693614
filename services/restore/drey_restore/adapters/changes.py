"""What the IOCs post of the channels of a table, for everybody who listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drey_ca.interface import ChannelTable
from drey_core.values import Columns

_BURST_S = 0.01

Listener = Callable[[Columns], None]
"""Takes changed slots with their latest values; `key` holds slots, ascending, each once."""


class ChangeFeed:
    """The one who drains a table. Run it."""

    def __init__(self, table: ChannelTable) -> None:
        self._table = table
        self._listeners: list[Listener] = []

    @contextmanager
    def listen_to_changes(self, listener: Listener) -> Iterator[None]:
        """Let `listener` have what changes during the body."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def take_changes(self) -> None:
        """Hand on what has come by now."""
        self._table.drain_info()
        while len(changes := self._table.drain_updates()):
            for listener in list(self._listeners):
                listener(changes)

    async def run(self) -> None:
        """Until cancelled. In bursts, for what one row costs is little beside what a look costs."""
        while True:
            await self._table.wait_dirty()
            self.take_changes()
            await asyncio.sleep(_BURST_S)
