"""Says whether the service serves: it does once it has a catalog to answer from."""

from __future__ import annotations

import asyncio

from drey_runtime.database import Database
from drey_runtime.server import Health
from drey_snapshot.catalog.live_catalog import LiveCatalog

_EVERY_S = 0.2


class HealthLoop:
    """Keeps `grpc.health.v1` true to the facts.

    Not serving until Postgres answered and the catalog was loaded. After that a Postgres that is
    away does not make it unready: reads of the catalog go on, and what needs Postgres says so.
    """

    def __init__(self, db: Database, catalog: LiveCatalog, health: Health) -> None:
        self._db, self._catalog, self._health = db, catalog, health

    async def run(self) -> None:
        """Until cancelled."""
        reported_state: bool | None = None
        while True:
            serving = self._catalog.loaded
            if serving != reported_state:
                await self._health.set(serving)
                reported_state = serving
            await asyncio.sleep(_EVERY_S)
