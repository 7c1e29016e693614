"""What the monitor needs from outside. The port of the lease is in `drey_runtime.lease`."""

from __future__ import annotations

from typing import Protocol

from drey_runtime.upstream import CatalogUpdate


class CatalogSource(Protocol):
    """Where the catalog comes from, in encoded pages."""

    async def fetch_changes(self, since: int) -> CatalogUpdate[bytes]:
        """What changed since a version; 0 asks for all. `Unavailable` within ten seconds."""
        ...
