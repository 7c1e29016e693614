"""What the use cases need of the outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from drey_ca.interface import ChannelTable, Slots
from drey_core.directory import Directory
from drey_core.pv_table import Policy
from drey_core.values import I8
from drey_restore.adapters.live import LiveMetadata, LivePages
from drey_restore.adapters.snapshots import StoredName, StoredValues

Selector: TypeAlias = Any
"""A selector as it came; only passed on to who resolves it."""

Clock: TypeAlias = Callable[[], int]
"""Nanoseconds since 1970 UTC."""


@dataclass(frozen=True)
class Limits:
    """Times in seconds, and writes sent at a time."""

    connect_s: float
    read_s: float
    chunk: int


class Snapshots(Protocol):
    """Stored values."""

    async def values(self, snapshot_id: str, selector: Selector | None) -> StoredValues:
        """The values of a snapshot, or of what a selector chooses of it. NotFound."""
        ...

    async def names(self, snapshot_id: str, numbers: I8) -> dict[int, StoredName]:
        """Names and enum labels as of the snapshot, by PV number."""
        ...


class Catalog(Protocol):
    """Today's catalog."""

    @property
    def known(self) -> Directory:
        """As it was when last asked for; may be out of date, and is empty at first."""
        ...

    async def current(self) -> Directory:
        """As of now."""
        ...

    async def policies(self) -> Mapping[int, Policy]:
        """What PVs themselves say of how they are restored, by PV number."""
        ...

    async def resolve(self, selector: Selector) -> I8:
        """Numbers of the PVs that a selector chooses today."""
        ...


class Live(Protocol):
    """The machine as the monitors see it."""

    async def read(self, channels: I8) -> LivePages:
        """All pages in which the channels lie."""
        ...

    async def metadata(self, numbers: I8) -> LiveMetadata:
        """What is known of the channels of some pages."""
        ...


class Channels(Protocol):
    """Channels kept open between restores; see `adapters.channels.ChannelPool`."""

    @property
    def table(self) -> ChannelTable:
        """The table in which they are."""
        ...

    def use(self, addresses: Sequence[str]) -> AbstractAsyncContextManager[None]:
        """Keep channels open during the body; new ones begin to connect."""
        ...

    def slots(self, addresses: Sequence[str]) -> Slots:
        """The slot of each address that the caller uses."""
        ...

    async def renew(self, addresses: Sequence[str]) -> None:
        """Close and open again, so that what waits on a channel is dropped."""
        ...
