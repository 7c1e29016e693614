"""Turns at what only a few may do at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

current_holder: ContextVar[str] = ContextVar("holder", default="")
"""The key whose share is taken in this context; empty: nobody's, as of loops and parts of Drey."""


class Turns:
    """So many at a time; a holder has no more than a share, and waits for its own turns first."""

    def __init__(self, turns: int, share: float) -> None:
        self._most = max(1, int(turns * share))
        self._all = asyncio.Semaphore(turns)
        self._of: dict[str, tuple[asyncio.Semaphore, list[None]]] = {}

    @asynccontextmanager
    async def take_turn(self, holder: str, longest_s: float | None = None) -> AsyncIterator[None]:
        """Wait for a turn and hold it; after `longest_s` the next one has it, whatever is done."""
        mine, users = self._of.setdefault(holder, (asyncio.Semaphore(self._most), []))
        users.append(None)
        held = list[asyncio.Semaphore]()
        timer: asyncio.TimerHandle | None = None

        def give_back() -> None:
            while held:
                held.pop().release()

        try:
            for semaphore in (mine, self._all):
                await semaphore.acquire()
                held.append(semaphore)
            if longest_s is not None:
                timer = asyncio.get_running_loop().call_later(longest_s, give_back)
            yield
        finally:
            if timer is not None:
                timer.cancel()
            give_back()
            users.pop()
            if not users:
                self._of.pop(holder, None)
