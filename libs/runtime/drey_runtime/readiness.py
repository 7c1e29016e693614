"""Readiness by what a process can do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from drey_runtime.server import Health

_EVERY_S = 0.2


class Readiness:
    """Says of each service whether what it needs is there, looked at five times a second."""

    def __init__(self, health: Health, needs: Mapping[str, Callable[[], bool]]) -> None:
        self._health, self._needs = health, needs

    async def run(self) -> None:
        """Look for ever."""
        while True:
            for service, is_ready in self._needs.items():
                await self._health.set(is_ready(), service)
            await asyncio.sleep(_EVERY_S)
