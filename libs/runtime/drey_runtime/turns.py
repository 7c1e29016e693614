"""Turns at what only a few may do at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """So many at a time; a holder has no more than a share, and waits for its own turns first."""

    def __init__(self, turns: int, share: float) -> None:
        self._most = max(1, int(turns * share))
        self._all = asyncio.Semaphore(turns)
        self._of: dict[str, tuple[asyncio.Semaphore, list[None]]] = {}

    @asynccontextmanager
    async def turn(self, holder: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it."""
        mine, users = self._of.setdefault(holder, (asyncio.Semaphore(self._most), []))
        users.append(None)
        try:
            async with mine, self._all:
                yield
        finally:
            users.pop()
            if not users:
                self._of.pop(holder, None)
