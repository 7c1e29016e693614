"""What the use cases need of the outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from drey_ca.interface import ChannelTable, Slots
from drey_core.directory import Directory
from drey_core.values import I8
from drey_restore.adapters.live import LiveMetadata, LivePages
from drey_restore.adapters.snapshots import StoredName, StoredValues

Selector: TypeAlias = Any
"""A selector as it came; only passed on to who resolves it."""

Clock: TypeAlias = Callable[[], int]
"""Nanoseconds since 1970 UTC."""


class Snapshots(Protocol):
    """Stored values."""

    async def values(self, snapshot_id: str, selector: Selector | None) -> StoredValues:
        """The values of a snapshot, or of what a selector chooses of it. NotFound."""
        ...

    async def names(self, snapshot_id: str, numbers: I8) -> dict[int, StoredName]:
        """Names and enum labels as of the snapshot, by PV number."""
        ...


class Catalog(Protocol):
    """Today's catalogue."""

    @property
    def known(self) -> Directory:
        """As it was when last asked for; may be out of date, and is empty at first."""
        ...

    async def current(self) -> Directory:
        """As of now."""
        ...

    async def resolve(self, selector: Selector) -> I8:
        """Numbers of the PVs that a selector chooses today."""
        ...


class Live(Protocol):
    """The machine as the monitors see it."""

    async def read(self, channels: I8, now_ns: int) -> LivePages:
        """All pages in which the channels lie."""
        ...

    async def metadata(self, numbers: I8) -> LiveMetadata:
        """What is known of the channels of some pages."""
        ...


class Channels(Protocol):
    """Channels kept open between restores."""

    @property
    def table(self) -> ChannelTable:
        """The table in which they are."""
        ...

    async def slots(self, addresses: Sequence[str]) -> Slots:
        """The slot of each address; new ones begin to connect."""
        ...
