"""The catalog in memory: loaded once, then renewed by version."""

from __future__ import annotations

import asyncio
import logging

from drey_core.errors import Malformed, Unavailable
from drey_runtime.bus import Bus
from drey_runtime.database import Connection, Database, is_unavailable
from drey_runtime.edge import decode_catalog_changed, encode_catalog_changed, note_error
from drey_runtime.nats_client import Msg
from drey_snapshot.catalog.adapters.reading import (
    CatalogVersions,
    read_changed,
    read_last_page,
    read_policies,
    read_tags,
    read_version,
)
from drey_snapshot.catalog.domain.default_policies import PolicyBook
from drey_snapshot.catalog.domain.table import PvTable
from drey_snapshot.catalog.domain.tags import TagBook
from drey_snapshot.catalog.view import CatalogView

log = logging.getLogger(__name__)

_INLINE_ROWS = 2000
"""More changed PVs than that are put in place by a thread, so that the loop goes on."""
_CHECK_S = 2.0


class LiveCatalog:
    """Gives the current view. Run it in the task group: it follows the changes of others too.

    A view never changes; who needs one state throughout keeps the view it began with.
    """

    def __init__(self, db: Database, bus: Bus, poll_s: float = 1.0) -> None:
        self._db, self._bus, self._poll_s = db, bus, poll_s
        self._view = CatalogView.empty_view()
        self._lock = asyncio.Lock()
        self._woken = asyncio.Event()
        self._written: tuple[int, int, PvTable] | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the catalog was read at least once."""
        return self._view.version > 0

    @property
    def cached_view(self) -> CatalogView:
        """The view as last seen, without asking Postgres; version 0 before the first load."""
        return self._view

    async def current_view(self) -> CatalogView:
        """The view of the version in Postgres now, so that everybody reads what was written.

        While Postgres is away the view last seen is given, at once where that is known and within
        two seconds where it is found out; `Unavailable` where there is none yet. One round trip
        where nothing changed.
        """
        if not self._db.ready and self.is_loaded:
            return self._view
        try:
            async with asyncio.timeout(_CHECK_S), self._db.acquire_connection() as conn:
                version = (await read_version(conn)).version
            return await self._view_until(version)
        except (Unavailable, TimeoutError) as error:
            if self.is_loaded and (isinstance(error, TimeoutError) or is_unavailable(error)):
                return self._view
            raise

    async def _view_until(self, version: int) -> CatalogView:
        """The view, renewed where it is not of `version`; callers wait for one renewal."""
        if self._view.version == version:
            return self._view
        # the lock before the connection: those who wait for a renewal hold no connection
        async with self._lock:
            if self._view.version == version:
                return self._view
            # one state of the database for the version and for what belongs to it
            async with (
                self._db.acquire_connection(for_all=True) as conn,
                conn.transaction(isolation="repeatable_read", readonly=True),
            ):
                return await self._renew_view(conn, await read_version(conn))

    async def locked_view(self, conn: Connection) -> CatalogView:
        """The view as it is in the transaction of `conn`; no other changes it until its end.

        At most one caller at a time, or all connections may end up waiting for each other.
        """
        versions = await read_version(conn, lock=True)
        if versions.version == self._view.version:
            return self._view
        async with self._lock:
            return await self._renew_view(conn, versions)

    async def _renew_view(self, conn: Connection, versions: CatalogVersions) -> CatalogView:
        """Read what changed since the view and put it in place. The caller holds the lock."""
        old, version = self._view, versions.version
        if old.version == version:
            return old
        if old.version > version:
            # The version was read after the view: the database came back older than it was.
            log.warning(
                "the catalog went back from version %d to %d: it is read anew",
                old.version,
                version,
            )
            old = CatalogView.empty_view()
        changed = await self._read_changed(conn, old.version, version)
        tags = old.tags
        if tags.version != versions.tags:
            tags = await read_tags(conn, versions.tags)
        policies = old.policies
        if policies.version != versions.policies:
            policies = await read_policies(conn, versions.policies, policies)
        pages = range(0)
        if old.version == 0:
            pages = range(1, await read_last_page(conn) + 1)
        if len(changed) > _INLINE_ROWS:
            view = await asyncio.to_thread(
                _advance_view, old, version, changed, tags, pages, policies
            )
        else:
            view = old.advance_view(version, changed, tags, pages, policies)
        self._view = view
        return view

    def note_written(self, since: int, version: int, changed: PvTable) -> None:
        """This process committed `changed`, all that differs between two versions.

        They need not be read back then. The view is renewed soon, or by whoever asks before.
        """
        if self._view.version == since:
            self._written = (since, version, changed)
            self._woken.set()

    async def _read_changed(self, conn: Connection, since: int, version: int) -> PvTable:
        written, self._written = self._written, None
        if written is not None and written[:2] == (since, version):
            return written[2]
        return await read_changed(conn, since, version)

    async def announce_version(self, version: int) -> None:
        """Tell everybody of a version; lost news is made good by everybody's own polling."""
        try:
            await self._bus.publish(
                self._bus.full_subject("catalog"), encode_catalog_changed(version)
            )
        except Unavailable as error:
            log.info("a change of the catalog was not announced: %s", error.message)

    async def run(self) -> None:
        """Follow the catalog until cancelled, by event and by polling."""
        await self._bus.subscribe_handler(self._bus.full_subject("catalog"), self._on_changed)
        while True:
            if self._db.ready:
                try:
                    await self.current_view()
                except (Unavailable, TimeoutError) as error:
                    log.warning("the catalog cannot be read: %s", error)
            self._woken.clear()
            await self._wait_version()

    async def _wait_version(self) -> None:
        try:
            async with asyncio.timeout(self._poll_s if self.is_loaded else 0.1):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _on_changed(self, message: Msg) -> None:
        try:
            version = decode_catalog_changed(message.data)
        except Malformed as error:
            note_error(error, "catalog events")
            return
        if version > self._view.version:
            self._woken.set()


def _advance_view(
    old: CatalogView,
    version: int,
    changed: PvTable,
    tags: TagBook,
    pages: range,
    policies: PolicyBook,
) -> CatalogView:
    view = old.advance_view(version, changed, tags, pages, policies)
    # built here, in the thread, rather than by the first caller in the loop
    _ = view.selector_index, view.row_by_name, view.row_by_id
    return view
