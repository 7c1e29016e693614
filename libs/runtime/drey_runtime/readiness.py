"""Readiness by what a process can do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from drey_runtime.server import Health

_EVERY_S = 0.2


class Readiness:
    """Says of each service whether what it needs is there, looked at five times a second."""

    def __init__(self, health: Health, needs: Mapping[str, Callable[[], bool]]) -> None:
        """Raises `ValueError` unless `needs` names every service of `health`, and no other.

        One that nobody looks at would be not ready for ever, and its process with it.
        """
        if odd := health.service_names ^ needs.keys():
            raise ValueError(
                f"whether {', '.join(sorted(odd))} can serve is not said, or not asked"
            )
        self._health, self._needs = health, needs

    async def run(self) -> None:
        """Look for ever."""
        while True:
            for service, is_ready in self._needs.items():
                await self._health.set(is_ready(), service)
            await asyncio.sleep(_EVERY_S)
