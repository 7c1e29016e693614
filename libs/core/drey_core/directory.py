"""The directory: which channel is what. Assembled from pages, in columns.

A `Directory` is immutable; a change of the catalog makes a new one. Every array that speaks of
PVs has shape (n_pvs,) and is ordered by PV number; channel 0 means "has none".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.distinct import distinct_values
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS, hash_bytes

ROLE_SETPOINT = 1
ROLE_READBACK = 2

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CatalogPage:
    """What the catalog says of the 256 channels of one page; arrays of shape (256,)."""

    number: int
    pv_number: I8
    role: NDArray[np.uint8]
    protocol: NDArray[np.uint8]
    read_only: NDArray[np.uint8]
    absolute: F8
    relative: F8
    names: list[str]
    addresses: list[str]
    devices: list[str]

    @classmethod
    def empty_page(cls, number: int) -> CatalogPage:
        """A page without a living channel."""
        n = PAGE_SLOTS
        return cls(
            number,
            np.zeros(n, np.int64),
            np.zeros(n, np.uint8),
            np.zeros(n, np.uint8),
            np.zeros(n, np.uint8),
            np.zeros(n),
            np.zeros(n),
            [""] * n,
            [""] * n,
            [""] * n,
        )


@dataclass(frozen=True, slots=True)
class MetadataPage:
    """What a monitor knows of the 256 channels of one page; arrays of shape (256,).

    `limits` has shape (8, 256): display low and high, warning low and high, alarm low and high,
    control low and high; NaN where there is none. `labels` by entry, for enumerations only.
    """

    number: int
    kind: NDArray[np.uint8]
    count: I8
    readable: NDArray[np.uint8]
    writable: NDArray[np.uint8]
    precision: NDArray[np.int16]
    limits: F8
    units: list[bytes]
    hosts: list[str]
    labels: dict[int, tuple[bytes, ...]] = field(default_factory=dict)

    @classmethod
    def empty_page(cls, number: int) -> MetadataPage:
        """A page of channels that never connected."""
        n = PAGE_SLOTS
        return cls(
            number,
            np.zeros(n, np.uint8),
            np.zeros(n, np.int64),
            np.zeros(n, np.uint8),
            np.zeros(n, np.uint8),
            np.full(n, -1, np.int16),
            np.full((8, n), np.nan),
            [b""] * n,
            [""] * n,
            {},
        )


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of one channel; for the edge only. NaN limits mean none."""

    kind: int
    count: int
    readable: bool
    writable: bool
    precision: int
    limits: tuple[float, ...]
    units: bytes
    host: str
    labels: tuple[bytes, ...]


class MetadataIndex:
    """Metadata of channels by number, over pages that may be replaced one by one."""

    def __init__(self, pages: Iterable[MetadataPage] = ()) -> None:
        self.pages: dict[int, MetadataPage] = {p.number: p for p in pages}

    def replace_page(self, page: MetadataPage) -> None:
        """Put a newer page in place."""
        self.pages[page.number] = page

    def labels(self, channel: int) -> tuple[bytes, ...]:
        """Labels of an enumeration; empty where they are not known."""
        page = self.pages.get(channel >> PAGE_SHIFT)
        return page.labels.get(channel & PAGE_MASK, ()) if page else ()

    def column(self, name: str, channels: I8) -> NDArray[Any]:
        """The named column (`kind`, `count`, `readable`, `writable`) of channels; 0 if unknown."""
        out = np.zeros(len(channels), getattr(MetadataPage.empty_page(0), name).dtype)
        number = channels >> PAGE_SHIFT
        for page_number in distinct_values(number).tolist():
            page = self.pages.get(page_number)
            if page is not None:
                rows = number == page_number
                out[rows] = getattr(page, name)[channels[rows] & PAGE_MASK]
        return out

    def control_limits(self, channels: I8) -> tuple[F8, F8]:
        """Control (drive) limits of channels, low and high; NaN where there are none."""
        low, high = np.full(len(channels), np.nan), np.full(len(channels), np.nan)
        number = channels >> PAGE_SHIFT
        for page_number in distinct_values(number).tolist():
            page = self.pages.get(page_number)
            if page is not None:
                rows = number == page_number
                low[rows] = page.limits[6, channels[rows] & PAGE_MASK]
                high[rows] = page.limits[7, channels[rows] & PAGE_MASK]
        return low, high

    def metadata_of(self, channel: int) -> Metadata | None:
        """What is known of one channel; None if it never connected."""
        page = self.pages.get(channel >> PAGE_SHIFT)
        slot = channel & PAGE_MASK
        if page is None or page.kind[slot] == 0:
            return None
        return Metadata(
            int(page.kind[slot]),
            int(page.count[slot]),
            bool(page.readable[slot]),
            bool(page.writable[slot]),
            int(page.precision[slot]),
            tuple(page.limits[:, slot].tolist()),
            page.units[slot],
            page.hosts[slot],
            page.labels.get(slot, ()),
        )


@dataclass(frozen=True)
class Directory:
    """All PVs of a set of catalog pages, ordered by PV number."""

    version: int
    pv_number: I8
    names: list[str]
    devices: list[str]
    read_only: NDArray[np.bool_]
    setpoint_channel: I8
    readback_channel: I8
    setpoint_address: list[str]
    readback_address: list[str]
    setpoint_tolerance: tuple[F8, F8]
    readback_tolerance: tuple[F8, F8]
    protocol: NDArray[np.uint8]
    pages: Mapping[int, CatalogPage]

    def __len__(self) -> int:
        return len(self.pv_number)

    @classmethod
    def from_pages(cls, version: int, pages: Sequence[CatalogPage]) -> Directory:
        """Assemble PVs from pages; entries whose PV number is 0 are skipped."""
        pages = sorted(pages, key=lambda p: p.number)
        channel = _flatten_parts([_page_channels(p.number) for p in pages], np.int64)
        pv = _flatten_parts([p.pv_number for p in pages], np.int64)
        live = pv != 0
        flat = np.flatnonzero(live)
        channel, pv = channel[live], pv[live]
        role = _flatten_parts([p.role for p in pages], np.uint8)[live]
        numbers, first, index = np.unique(pv, return_index=True, return_inverse=True)
        n = len(numbers)

        def joined_column(name: str) -> list[str]:
            return [text for p in pages for text in getattr(p, name)]

        names, devices, addresses = (
            joined_column("names"),
            joined_column("devices"),
            joined_column("addresses"),
        )
        rows = flat[first].tolist()
        by_role: dict[int, tuple[I8, list[str], F8, F8]] = {}
        absolute = _flatten_parts([p.absolute for p in pages], np.float64)[live]
        relative = _flatten_parts([p.relative for p in pages], np.float64)[live]
        for code in (ROLE_SETPOINT, ROLE_READBACK):
            chosen = role == code
            channels, low, high = np.zeros(n, np.int64), np.zeros(n), np.zeros(n)
            channels[index[chosen]] = channel[chosen]
            low[index[chosen]], high[index[chosen]] = absolute[chosen], relative[chosen]
            texts = [""] * n
            for pv_row, source in zip(index[chosen].tolist(), flat[chosen].tolist(), strict=True):
                texts[pv_row] = addresses[source]
            by_role[code] = (channels, texts, low, high)
        setpoint, readback = by_role[ROLE_SETPOINT], by_role[ROLE_READBACK]
        return cls(
            version=version,
            pv_number=numbers,
            names=[names[i] for i in rows],
            devices=[devices[i] for i in rows],
            read_only=_flatten_parts([p.read_only for p in pages], np.uint8)[live][first].astype(
                bool
            ),
            setpoint_channel=setpoint[0],
            readback_channel=readback[0],
            setpoint_address=setpoint[1],
            readback_address=readback[1],
            setpoint_tolerance=setpoint[2:],
            readback_tolerance=readback[2:],
            protocol=_flatten_parts([p.protocol for p in pages], np.uint8)[live][first],
            pages={p.number: p for p in pages},
        )

    @cached_property
    def channels(self) -> I8:
        """All channel numbers, ascending."""
        both = np.concatenate([self.setpoint_channel, self.readback_channel])
        return distinct_values(both[both != 0])

    def rows_of(self, pv_numbers: I8) -> I8:
        """Row of each PV number; -1 where it is not here."""
        places = np.searchsorted(self.pv_number, pv_numbers)
        safe = np.minimum(places, max(len(self) - 1, 0))
        if len(self) == 0:
            return np.full(len(pv_numbers), -1, np.int64)
        return np.where(self.pv_number[safe] == pv_numbers, safe, -1)

    def names_hash(self, rows: I8) -> bytes:
        """32 bytes for the names of some PVs in their order, the same in every process."""
        if len(rows) == len(self):
            return self._all_names_hash
        return _hash_names([self.names[row] for row in rows.tolist()])

    @cached_property
    def _all_names_hash(self) -> bytes:
        return _hash_names(self.names)

    @cached_property
    def _channel_rows(self) -> tuple[I8, I8, NDArray[np.uint8]]:
        n = len(self)
        channel = np.concatenate([self.setpoint_channel, self.readback_channel])
        row = np.concatenate([np.arange(n), np.arange(n)])
        role = np.repeat(np.array([ROLE_SETPOINT, ROLE_READBACK], np.uint8), n)
        keep = channel != 0
        order = np.argsort(channel[keep], kind="stable")
        return channel[keep][order], row[keep][order], role[keep][order]

    def pv_rows_of_channels(self, channels: I8) -> I8:
        """Row of the PV of each channel; -1 where no PV here has it."""
        known_channels, rows, _ = self._channel_rows
        if len(known_channels) == 0:
            return np.full(len(channels), -1, np.int64)
        places = np.minimum(np.searchsorted(known_channels, channels), len(known_channels) - 1)
        return np.where(known_channels[places] == channels, rows[places], -1)


def _hash_names(names: Sequence[str]) -> bytes:
    return hash_bytes("\0".join(names).encode(errors="replace"))


def _page_channels(page: int) -> I8:
    return np.arange(page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT, dtype=np.int64)


def _flatten_parts(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


LabelSource = Callable[[int], tuple[bytes, ...]]
"""Labels of an enumeration by channel number; `MetadataIndex.labels` is one."""
