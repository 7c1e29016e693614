"""Follows the catalog: by event, and by looking in case an event was lost."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from drey_core.directory import CatalogPage
from drey_core.errors import Unavailable
from drey_core.pages import shard_of_page
from drey_monitor.owned import Shards
from drey_monitor.ports import CatalogSource
from drey_runtime.directory_codec import encode_catalog
from drey_runtime.nats_client import Msg
from drey_runtime.upstream import CatalogUpdate

log = logging.getLogger(__name__)

_ANSWER_S = 0.5
"""A service that says nothing for so long counts as away at the start: no shard waits for it."""


class CatalogFollower:
    """The whole catalog in memory, encoded; tells watched shards when their pages change.

    Until the directory service has answered for the first time, what the last owners left in the
    image serves instead: a monitor starts without the other services, and without waiting for one
    that takes calls and does not answer.
    """

    def __init__(
        self,
        source: CatalogSource,
        fallback: CatalogSource,
        shards: Shards,
        count: int,
        poll: float,
    ) -> None:
        self._source, self._fallback = source, fallback
        self._shards, self._count, self._poll = shards, count, poll
        self._event = asyncio.Event()
        self._answered = False
        self._away = False
        self.known = asyncio.Event()
        self.version = 0
        self.raw: dict[int, bytes] = {}
        """Encoded pages by number. A page that did not change stays the same object."""

    async def on_event(self, message: Msg) -> None:
        """A `CatalogChanged` came: look at once."""
        self._event.set()

    async def run(self) -> None:
        """Look for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wait_no_longer())
            await self._look_for_ever()

    async def _wait_no_longer(self) -> None:
        """While nothing is known: the service is given time for its answer, not for a deadline."""
        while not self.known.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_S):
                    await self.known.wait()
                return
            await self._use_fallback()

    async def _look_for_ever(self) -> None:
        while True:
            self._event.clear()
            try:
                await self._check_version()
            except Unavailable as error:
                if not self._away:
                    log.warning("the catalog cannot be followed: %s", error.message)
                self._away = True
                await self._use_fallback()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll if self._answered else self._poll / 4):
                    await self._event.wait()

    async def _check_version(self) -> None:
        update = await self._source.fetch_changes(self.version if self._answered else 0)
        if self._away:
            log.info("the catalog can be followed again")
        self._answered, self._away = True, False
        self.apply_update(update)

    async def _use_fallback(self) -> None:
        if self.known.is_set():
            return
        with suppress(Unavailable):
            update = await self._fallback.fetch_changes(0)
            if update.pages and not self.known.is_set():
                log.warning("using the catalog of version %d from the image", update.version)
                self.apply_update(update)

    def apply_update(self, update: CatalogUpdate[bytes]) -> None:
        """Make the update what is known, and wake the shards concerned."""
        pages = dict(update.pages)
        if update.whole:
            gone = self.raw.keys() - pages.keys()
            pages.update((n, encode_catalog(CatalogPage.empty_page(n))) for n in gone)
        changed = {n: raw for n, raw in pages.items() if self.raw.get(n) != raw}
        moved = update.version != self.version
        self.version = update.version
        self.raw.update(changed)
        self.known.set()
        touched = {shard_of_page(n, self._count) for n in changed}
        for owned in self._shards:
            if moved or owned.shard in touched:
                owned.catalog_wake.set()
        for shard, warm in self._shards.warm_shards():
            if shard in touched:
                warm.catalog_wake.set()
