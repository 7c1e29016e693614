"""A snapshot made ready to be stored: everything hashed, what may be new compressed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

from drey_core.page_storage import (
    split_times,
    split_values,
    store_times,
    store_values,
    times_hashes,
    value_hashes,
)
from drey_core.pages import PageHash, Pages
from drey_core.values import I8
from drey_snapshot.snapshots.domain.records import Skew, StateCounts
from drey_snapshot.snapshots.domain.stats import measure_pages
from drey_snapshot.snapshots.domain.tree import digest_of

_CHUNK = 16
"""Pages compressed at a time. Blocks of memory beyond 128 KiB are got from the system and given
back each time, and touching fresh memory takes longer than the compression itself."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Pages with their hashes in order; those of them that may be new, by index."""

    pages: Pages
    value_hashes: list[PageHash]
    times_hashes: list[PageHash]
    new_values: I8
    new_times: I8
    digest: PageHash
    counts: StateCounts
    skew: Skew

    def stored_pages(self) -> dict[PageHash, bytes]:
        """The stored form of the pages that may be new: most of the work, and safe in a thread."""
        return self._store_forms(self.new_values, self.new_times)

    def stored_of(self, hashes: Collection[PageHash]) -> dict[PageHash, bytes]:
        """The stored form of those of its pages that are called so."""

        def is_absent(h: PageHash) -> bool:
            return h not in hashes

        return self._store_forms(
            _unknown_rows(self.value_hashes, is_absent), _unknown_rows(self.times_hashes, is_absent)
        )

    def _store_forms(self, values: I8, times: I8) -> dict[PageHash, bytes]:
        stored: dict[PageHash, bytes] = {}
        for rows in _row_chunks(values):
            blobs = store_values(split_values(_take_rows(self.pages, rows)))
            stored |= zip((self.value_hashes[i] for i in rows.tolist()), blobs, strict=True)
        for rows in _row_chunks(times):
            blobs = store_times(split_times(_take_rows(self.pages, rows)))
            stored |= zip((self.times_hashes[i] for i in rows.tolist()), blobs, strict=True)
        return stored


def _with_something(pages: Pages) -> Pages:
    """The pages that are not wholly absent."""
    used = pages.values["state"].any(axis=1)
    return pages if used.all() else _take_rows(pages, np.flatnonzero(used))


def prepare_pages(pages: Pages, now_ns: int, is_known: Callable[[PageHash], bool]) -> Prepared:
    """Hash and measure. Pages `is_known` need not be stored again. Pure, as far as `known` is."""
    pages = _with_something(pages)
    values, times = value_hashes(pages), times_hashes(pages)
    counts, skew = measure_pages(pages, now_ns)
    return Prepared(
        pages,
        values,
        times,
        _unknown_rows(values, is_known),
        _unknown_rows(times, is_known),
        digest_of(list(zip(pages.numbers.tolist(), values, strict=True))),
        counts,
        skew,
    )


def _unknown_rows(hashes: list[PageHash], is_known: Callable[[PageHash], bool]) -> I8:
    """Indices of hashes not known, each hash once."""
    first = {h: i for i, h in reversed(list(enumerate(hashes))) if not is_known(h)}
    return np.array(sorted(first.values()), np.int64)


def _row_chunks(rows: I8) -> Iterator[I8]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def _take_rows(pages: Pages, rows: I8) -> Pages:
    return Pages(
        pages.numbers[rows],
        pages.values[rows],
        pages.times[rows],
        [pages.heaps[i] for i in rows.tolist()],
    )
