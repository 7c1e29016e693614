"""Numbers of channels, and catalog pages from the columns of PVs.

Readbacks move all the time and setpoints rarely, so they lie on pages of their own, and a snapshot
stores the pages of the setpoints once. Pages come in pairs: 2j+1 has setpoints and 2j+2 readbacks,
and a shard owns whole pairs (`drey_core.pages.shard_of_page`). Page 0 is never used: channel 0
means "none".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT, CatalogPage, Directory
from drey_core.pages import PAGE_MASK, PAGE_SHIFT
from drey_snapshot.catalog.domain.table import I8, PvTable


def pages_of(table: PvTable) -> I8:
    """Numbers of the pages on which the PVs have channels, ascending."""
    both = np.concatenate([table.setpoint_channel, table.readback_channel])
    pages: I8 = np.unique(both[both != 0] >> PAGE_SHIFT)
    return pages


def build_pages(table: PvTable, numbers: Iterable[int]) -> dict[int, CatalogPage]:
    """The pages of the given numbers, by the living PVs of `table`. Empty ones come too."""
    wanted = list(numbers)
    n = len(table)
    channel = np.concatenate([table.setpoint_channel, table.readback_channel])
    row = np.concatenate([np.arange(n), np.arange(n)])
    have = channel != 0
    order = np.argsort(channel[have], kind="stable")
    channel, row = channel[have][order], row[have][order]
    setpoint = table.setpoint_channel[row] == channel
    first = np.searchsorted(channel, np.array(wanted, np.int64) << PAGE_SHIFT)
    last = np.searchsorted(channel, (np.array(wanted, np.int64) + 1) << PAGE_SHIFT)
    return {
        number: _build_page(table, number, channel[a:b], row[a:b], setpoint[a:b])
        for number, a, b in zip(wanted, first.tolist(), last.tolist(), strict=True)
    }


def _build_page(
    table: PvTable,
    number: int,
    channel: I8,
    row: I8,
    setpoint: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> CatalogPage:
    page = CatalogPage.empty_page(number)
    slot = channel - (number << PAGE_SHIFT)
    page.pv_number[slot] = table.number[row]
    page.role[slot] = np.where(setpoint, ROLE_SETPOINT, ROLE_READBACK)
    page.protocol[slot] = table.protocol[row]
    page.read_only[slot] = table.read_only[row]
    page.absolute[slot] = np.where(
        setpoint, table.setpoint_absolute[row], table.readback_absolute[row]
    )
    page.relative[slot] = np.where(
        setpoint, table.setpoint_relative[row], table.readback_relative[row]
    )
    names, addresses, devices = page.names, page.addresses, page.devices
    for index, source, is_setpoint in zip(
        slot.tolist(), row.tolist(), setpoint.tolist(), strict=True
    ):
        names[index] = table.name[source]
        devices[index] = table.device[source]
        addresses[index] = (
            table.setpoint_address[source] if is_setpoint else table.readback_address[source]
        )
    return page


def directory_of(version: int, table: PvTable, pages: Mapping[int, CatalogPage]) -> Directory:
    """The directory of the living PVs of `table`; shares its columns."""
    return Directory(
        version=version,
        pv_number=table.number,
        names=table.name,
        devices=table.device,
        read_only=table.read_only,
        setpoint_channel=table.setpoint_channel,
        readback_channel=table.readback_channel,
        setpoint_address=table.setpoint_address,
        readback_address=table.readback_address,
        setpoint_tolerance=(table.setpoint_absolute, table.setpoint_relative),
        readback_tolerance=(table.readback_absolute, table.readback_relative),
        protocol=table.protocol,
        pages=pages,
    )


def channel_numbers(role: int, ordinals: I8) -> I8:
    """Numbers of the channels of a role by ordinal, from 0; ascending where the ordinals are."""
    first = 1 if role == ROLE_SETPOINT else 2
    page = 2 * (ordinals >> PAGE_SHIFT) + first
    numbers: I8 = (page << PAGE_SHIFT) | (ordinals & PAGE_MASK)
    return numbers


def last_page(setpoints: int, readbacks: int) -> int:
    """Last page that may hold a channel, when so many of each were given out; 0 where none was."""
    given = max(setpoints, readbacks)
    return 2 * ((given - 1) >> PAGE_SHIFT) + 2 if given else 0
