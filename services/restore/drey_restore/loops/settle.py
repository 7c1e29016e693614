"""Ends restores whose job has ended without them."""

from __future__ import annotations

import asyncio
import logging

from drey_core.errors import Unavailable
from drey_restore.usecases.restores import Restores

log = logging.getLogger(__name__)


class SettleLoop:
    """Looks every second; a restore that runs is left alone. Runs until cancelled."""

    def __init__(self, restores: Restores, period_s: float = 1.0) -> None:
        self._restores, self._period_s = restores, period_s

    async def run(self) -> None:
        """See the class."""
        while True:
            try:
                for restore_id in await self._restores.open_ids():
                    await self._restores.settle(restore_id)
            except Unavailable as error:
                log.debug("open restores could not be looked at: %s", error.message)
            await asyncio.sleep(self._period_s)
