"""The directory of one shard: pages of the catalogue and of metadata, and their versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_ca.interface import InfoColumns
from drey_core.directory import MetadataPage
from drey_core.pages import PAGE_MASK, PAGE_SHIFT

I8 = NDArray[np.int64]
_LIMITS = (
    "display_low",
    "display_high",
    "warning_low",
    "warning_high",
    "alarm_low",
    "alarm_high",
    "control_low",
    "control_high",
)


@dataclass(frozen=True, slots=True)
class DirectoryCut:
    """What has to be written: changed pages, and the versions of all of them."""

    version: int
    catalog_version: int
    catalog: dict[int, bytes]
    metadata: dict[int, MetadataPage]
    page_versions: dict[int, int]

    @property
    def changed(self) -> list[int]:
        """Numbers of the pages in this cut, ascending."""
        return sorted(self.catalog.keys() | self.metadata.keys())


class DirectoryState:
    """Pages and versions; the version grows with every change within an epoch."""

    def __init__(self) -> None:
        self.version = 0
        self.catalog_version = 0
        self._catalog: dict[int, bytes] = {}
        self._metadata: dict[int, MetadataPage] = {}
        self._versions: dict[int, int] = {}
        self._new_catalog: set[int] = set()
        self._new_metadata: set[int] = set()
        self._unversioned: set[int] = set()
        self._changed = False

    @property
    def pages(self) -> list[int]:
        """Numbers of all pages, ascending."""
        return sorted(self._catalog)

    def set_catalog(self, version: int, pages: Mapping[int, bytes]) -> None:
        """Follow the catalogue to `version`; `pages` are those that changed, encoded.

        The directory's version grows at once, so that batches cut from here on ask for it.
        """
        if version == self.catalog_version and not pages:
            return
        self.catalog_version = version
        self._catalog.update(pages)
        for number in pages:
            self._metadata.setdefault(number, MetadataPage.empty(number))
        self._new_catalog.update(pages)
        self._new_metadata.update(n for n in pages if n not in self._versions)
        self._grow(pages)

    def inherit(self, page: MetadataPage, same: NDArray[np.bool_]) -> None:
        """Take over what the last owner knew of the channels in `same`, shape (256,)."""
        self._metadata[page.number] = _blanked(page, ~same)
        self._unversioned.add(page.number)

    def update(self, channels: I8, info: InfoColumns) -> None:
        """Note metadata of channels (row i of `info` is `channels[i]`) for the next cut."""
        number = channels >> PAGE_SHIFT
        for page in np.unique(number).tolist():
            if page in self._metadata:
                rows = np.flatnonzero(number == page)
                slots = channels[rows] & PAGE_MASK
                self._metadata[page] = _updated(self._metadata[page], slots, info, rows)
                self._unversioned.add(page)

    def forget(self, channels: I8) -> None:
        """Nothing is known of these any more."""
        number = channels >> PAGE_SHIFT
        for page in np.unique(number).tolist():
            if page in self._metadata:
                gone = np.zeros(256, bool)
                gone[channels[number == page] & PAGE_MASK] = True
                self._metadata[page] = _blanked(self._metadata[page], gone)
                self._unversioned.add(page)

    def cut(self) -> DirectoryCut | None:
        """What changed since the last cut, or None."""
        if self._unversioned:
            self._grow(self._unversioned)
            self._new_metadata |= self._unversioned
            self._unversioned = set()
        if not self._changed:
            return None
        cut = DirectoryCut(
            self.version,
            self.catalog_version,
            {n: self._catalog[n] for n in self._new_catalog},
            {n: self._metadata[n] for n in self._new_metadata},
            dict(self._versions),
        )
        self._new_catalog, self._new_metadata, self._changed = set(), set(), False
        return cut

    def put_back(self, cut: DirectoryCut) -> None:
        """The cut was not written: its pages are in the next one again."""
        self._new_catalog |= cut.catalog.keys()
        self._new_metadata |= cut.metadata.keys()
        self._changed = True

    def mark_all(self) -> None:
        """The image has lost everything: all pages are in the next cut."""
        self._new_catalog |= self._catalog.keys()
        self._new_metadata |= self._metadata.keys()
        self._grow(())

    def _grow(self, pages: Iterable[int]) -> None:
        self.version += 1
        self._changed = True
        for page in pages:
            self._versions[page] = self.version


def _updated(page: MetadataPage, slots: I8, info: InfoColumns, rows: I8) -> MetadataPage:
    limits = page.limits.copy()
    for i, name in enumerate(_LIMITS):
        limits[i, slots] = getattr(info, name)[rows]
    units, hosts, labels = list(page.units), list(page.hosts), dict(page.labels)
    for slot, row in zip(slots.tolist(), rows.tolist(), strict=True):
        units[slot], hosts[slot] = info.units[row], info.host[row]
        if info.labels[row]:
            labels[slot] = info.labels[row]
        else:
            labels.pop(slot, None)
    return replace(
        page,
        kind=_with(page.kind, slots, info.kind[rows]),
        count=_with(page.count, slots, info.count[rows]),
        readable=_with(page.readable, slots, info.readable[rows]),
        writable=_with(page.writable, slots, info.writable[rows]),
        precision=_with(page.precision, slots, info.precision[rows]),
        limits=limits,
        units=units,
        hosts=hosts,
        labels=labels,
    )


def _with(column: NDArray[Any], slots: I8, values: NDArray[Any]) -> NDArray[Any]:
    out = column.copy()
    out[slots] = values
    return out


def _blanked(page: MetadataPage, gone: NDArray[np.bool_]) -> MetadataPage:
    if not gone.any():
        return page
    blank = MetadataPage.empty(page.number)
    limits = page.limits.copy()
    limits[:, gone] = np.nan
    listed = gone.tolist()
    return MetadataPage(
        page.number,
        np.where(gone, blank.kind, page.kind),
        np.where(gone, blank.count, page.count),
        np.where(gone, blank.readable, page.readable),
        np.where(gone, blank.writable, page.writable),
        np.where(gone, blank.precision, page.precision),
        limits,
        [b"" if g else u for g, u in zip(listed, page.units, strict=True)],
        ["" if g else h for g, h in zip(listed, page.hosts, strict=True)],
        {slot: labels for slot, labels in page.labels.items() if not listed[slot]},
    )
