"""Values with the directory by which they are read: of a snapshot, or of the live machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import Directory, MetadataIndex
from drey_core.pages import PageHash, Pages
from drey_core.selector import SelectorIndex
from drey_core.values import I8, KIND_NONE, Columns, State
from drey_core.wire import RowEncoder

Mask = NDArray[np.bool_]


class Names:
    """A directory with what is derived from its names alone, made on first use."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    @cached_property
    def row_encoder(self) -> RowEncoder:
        """Encodes rows of this directory; for the event loop only."""
        return RowEncoder(self.directory.names, self.directory.pv_number)


@dataclass(frozen=True, slots=True)
class DirectoryView:
    """Which channel was what, and what was known of it, at one time.

    `metadata_hashes` by page number; a page whose hash is equal in two views is equal there.
    """

    names: Names
    metadata: MetadataIndex
    metadata_hashes: dict[int, PageHash]

    @property
    def directory(self) -> Directory:
        """All PVs of the pages; more than the snapshot has, where that has a part of a page."""
        return self.names.directory


@dataclass(frozen=True)
class ValuesView:
    """The values of a snapshot, or of the machine now, by row of the directory. Immutable.

    `hashes` are the value hashes of the pages in their order, empty where they are not known
    (`live`). `stale_pages` are numbers of pages whose monitor cannot be believed now.
    """

    where: DirectoryView
    pages: Pages
    time_ns: int
    hashes: tuple[PageHash, ...] = ()
    stale_shards: int = 0
    stale_pages: I8 | None = None
    live: bool = False

    @cached_property
    def setpoint(self) -> Columns:
        """Setpoints by row, keyed by channel; absent where the PV has none or is not in here."""
        return self.pages.columns_of_channels(self.where.directory.setpoint_channel)

    @cached_property
    def readback(self) -> Columns:
        """Readbacks by row, as `setpoint`."""
        return self.pages.columns_of_channels(self.where.directory.readback_channel)

    @cached_property
    def present_mask(self) -> Mask:
        """Which rows of the directory have a channel in here."""
        mask: Mask = (self.setpoint.state != State.ABSENT) | (self.readback.state != State.ABSENT)
        return mask

    @cached_property
    def missing_mask(self) -> Mask:
        """Which rows have a channel in here that has no value or was not connected."""
        return _missing_values(self.setpoint) | _missing_values(self.readback)

    @cached_property
    def rows(self) -> I8:
        """Rows of the directory that are in here, ascending: the rows of `index`."""
        return np.flatnonzero(self.present_mask)

    @cached_property
    def pv_numbers(self) -> I8:
        """Numbers of the PVs that are in here, ascending."""
        return self.where.directory.pv_number[self.rows]

    @cached_property
    def selector_index(self) -> SelectorIndex:
        """The PVs that are in here, for selectors."""
        directory = self.where.directory
        if len(self.rows) == len(directory):
            return _build_index(directory)
        listed = self.rows.tolist()
        return SelectorIndex(
            numbers=directory.pv_number[self.rows],
            names=[directory.names[i] for i in listed],
            setpoint_addresses=[directory.setpoint_address[i] for i in listed],
            readback_addresses=[directory.readback_address[i] for i in listed],
            devices=[directory.devices[i] for i in listed],
        )

    @property
    def weight(self) -> int:
        """About how many bytes this takes, columns included."""
        heaps = 3 * sum(map(len, self.pages.heaps))
        return 3 * (self.pages.values.nbytes + self.pages.times.nbytes) + heaps


def _build_index(directory: Directory) -> SelectorIndex:
    return SelectorIndex(
        numbers=directory.pv_number,
        names=directory.names,
        setpoint_addresses=directory.setpoint_address,
        readback_addresses=directory.readback_address,
        devices=directory.devices,
    )


def _missing_values(columns: Columns) -> Mask:
    mask: Mask = (columns.state != State.ABSENT) & (
        (columns.state != State.CONNECTED) | (columns.kind == KIND_NONE)
    )
    return mask
