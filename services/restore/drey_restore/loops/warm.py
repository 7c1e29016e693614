"""Keeps the catalog and the metadata of its channels at hand, so that no plan waits for them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from drey_core.errors import DreyError
from drey_restore.adapters.catalog import CatalogClient
from drey_restore.adapters.live import LiveMachine, pages_of
from drey_runtime.nats_client import Msg

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 10.0
"""In case an event was lost."""
_RETRY_S = 0.5
_SETTLE_S = 1.0
"""After an event: several changes in a row are read once."""


class WarmLoop:
    """Reads what changed upon `CatalogChanged` and `DirectoryVersion`, and now and then.

    A plan asks for what changed itself: nothing depends on this loop but the time that takes.
    """

    def __init__(self, catalog: CatalogClient, live: LiveMachine) -> None:
        self._catalog, self._live = catalog, live
        self._event = asyncio.Event()
        self._away = False

    async def on_event(self, message: Msg) -> None:
        """The catalog, or what monitors know of channels, has changed."""
        self._event.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._event.clear()
            wait = _LOOK_EVERY_S
            try:
                directory = await self._catalog.current_directory()
                await self._live.metadata(pages_of(directory.setpoint_channel))
                self._away = False
            except DreyError as error:
                if not self._away:
                    log.warning("the catalog cannot be followed: %s", error.message)
                self._away, wait = True, _RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._event.wait()
            await asyncio.sleep(_SETTLE_S)
