"""What the use cases need of the catalog and of the control system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from drey_core.directory import Directory
from drey_core.pages import PageHash
from drey_core.selector import Selector
from drey_core.values import I8, Columns


class CatalogVersion(Protocol):
    """One version of the catalog."""

    @property
    def version(self) -> int:
        """Grows with every change."""
        ...

    @property
    def directory(self) -> Directory:
        """All living PVs."""
        ...

    @property
    def page_bytes(self) -> Mapping[int, bytes]:
        """Encoded catalog pages by number."""
        ...

    @property
    def page_hashes(self) -> Mapping[int, PageHash]:
        """Their hashes."""
        ...

    def select(self, selector: Selector, allow_unknown: bool = False) -> tuple[I8, list[str]]:
        """(rows of `directory` chosen, ascending; what nothing has)."""
        ...


class CatalogReader(Protocol):
    """The catalog as it is now."""

    async def current(self) -> CatalogVersion:
        """The version in Postgres, or the last one seen while it is away."""
        ...


class ChannelReader(Protocol):
    """Reads channels from the control system itself."""

    async def read(self, channels: I8, addresses: list[str], living: I8, timeout: float) -> Columns:
        """Values keyed by channel, a row for each in the order asked; one deadline for all.

        A row without a value has kind NONE and the state that says why. `living` are all
        channels of the catalog: connections to others are given up.
        """
        ...
