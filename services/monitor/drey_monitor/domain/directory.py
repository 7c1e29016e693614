"""The directory of one shard: pages of the catalog and of metadata, and their versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_ca.interface import InfoColumns
from drey_core.directory import MetadataPage
from drey_monitor.domain.metadata import MetadataTable

I8 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DirectoryCut:
    """What has to be written: changed pages, and the versions of all of them."""

    version: int
    catalog_version: int
    catalog: dict[int, bytes]
    metadata: dict[int, MetadataPage]
    page_versions: dict[int, int]
    relabeled: frozenset[int] = frozenset()
    """Channels whose labels changed."""

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
        self._metadata = MetadataTable()
        self._versions: dict[int, int] = {}
        self._new_catalog: set[int] = set()
        self._new_metadata: set[int] = set()
        self._unversioned: set[int] = set()
        self._relabeled: set[int] = set()
        self._cut_labels: frozenset[int] = frozenset()
        self._changed = False
        self.written_version = 0
        """That which the image has had last under this epoch; 0: none."""

    @property
    def pages(self) -> list[int]:
        """Numbers of all pages, ascending."""
        return sorted(self._catalog)

    @property
    def has_new_catalog(self) -> bool:
        """Whether the next cut has pages of the catalog."""
        return bool(self._new_catalog)

    @property
    def unwritten_labels(self) -> I8:
        """Channels whose labels the image does not have: nobody can read their numbers."""
        return np.array([*(self._relabeled | self._cut_labels)], np.int64)

    def set_catalog(self, version: int, pages: Mapping[int, bytes]) -> None:
        """Follow the catalog to `version`; `pages` are those that changed, encoded."""
        if version == self.catalog_version and not pages:
            return
        self.catalog_version = version
        self._catalog.update(pages)
        self._metadata.add_pages(pages)
        self._new_catalog.update(pages)
        self._new_metadata.update(n for n in pages if n not in self._versions)
        self._grow_pages(pages)

    def inherit_pages(
        self, pages: list[MetadataPage], same: Mapping[int, NDArray[np.bool_]]
    ) -> None:
        """Take over what the last owner knew of the channels in `same`, shape (256,) by page."""
        self._metadata.add_pages(p.number for p in pages)
        for page in pages:
            self._metadata.take_over(page, same[page.number])
        self._unversioned.update(p.number for p in pages)

    def update_channels(self, channels: I8, info: InfoColumns) -> None:
        """Note metadata of channels (row i of `info` is `channels[i]`) for the next cut.

        Each channel at most once. Those of pages not here are ignored.
        """
        touched, relabeled = self._metadata.update_channels(channels, info)
        self._unversioned.update(touched)
        self._relabeled.update(relabeled.tolist())

    def forget_channels(self, channels: I8) -> None:
        """Nothing is known of these any more."""
        self._unversioned.update(self._metadata.forget_channels(channels))
        self._relabeled.difference_update(channels.tolist())

    def cut_changes(self) -> DirectoryCut | None:
        """What changed since the last cut, or None."""
        if self._unversioned:
            self._grow_pages(self._unversioned)
            self._new_metadata |= self._unversioned
            self._unversioned = set()
        if not self._changed:
            return None
        cut = DirectoryCut(
            self.version,
            self.catalog_version,
            {n: self._catalog[n] for n in self._new_catalog},
            self._metadata.pages(self._new_metadata),
            dict(self._versions),
            frozenset(self._relabeled),
        )
        self._new_catalog, self._new_metadata, self._changed = set(), set(), False
        self._relabeled, self._cut_labels = set(), cut.relabeled
        return cut

    def note_written(self, cut: DirectoryCut, *, is_current: bool) -> None:
        """The image has the last cut; `is_current`: under the present epoch."""
        self._cut_labels = frozenset()
        if is_current:
            self.written_version = cut.version

    def put_back(self, cut: DirectoryCut) -> None:
        """The cut was not written: its pages are in the next one again."""
        self._new_catalog |= cut.catalog.keys()
        self._new_metadata |= cut.metadata.keys()
        self._relabeled |= cut.relabeled
        self._cut_labels = frozenset()
        self._changed = True

    def mark_all(self) -> None:
        """The image has lost everything: all pages are in the next cut."""
        self._new_catalog |= self._catalog.keys()
        self._new_metadata.update(self._metadata.numbers.tolist())
        self.written_version = 0
        self._grow_pages(())

    def _grow_pages(self, pages: Iterable[int]) -> None:
        self.version += 1
        self._changed = True
        for page in pages:
            self._versions[page] = self.version
