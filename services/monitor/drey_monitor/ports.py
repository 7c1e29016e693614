"""What the monitor needs from outside. The port of the lease is in `drey_runtime.lease`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CatalogUpdate:
    """Pages of the catalog, encoded, by number. `whole`: pages not in it do not exist."""

    version: int
    pages: Mapping[int, bytes]
    whole: bool


class CatalogSource(Protocol):
    """Where the catalog comes from."""

    async def fetch(self, since: int) -> CatalogUpdate:
        """What changed since a version; 0 asks for all. `Unavailable` within ten seconds."""
        ...
