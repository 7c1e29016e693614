"""A snapshot made ready to be stored: everything hashed, what may be new compressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from drey_core.pages import PageHash, Pages
from drey_core.values import I8
from drey_snapshot.snapshots.domain.codec import (
    split_times,
    split_values,
    store_times,
    store_values,
    times_hashes,
    value_hashes,
)
from drey_snapshot.snapshots.domain.records import Skew, StateCounts
from drey_snapshot.snapshots.domain.stats import measure
from drey_snapshot.snapshots.domain.tree import digest_of

_CHUNK = 16
"""Pages compressed at a time. Blocks of memory beyond 128 KiB are got from the system and given
back each time, and touching fresh memory takes longer than the compression itself."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is found in pages beside the hashes of their values."""

    times_hashes: list[PageHash]
    counts: StateCounts
    skew: Skew


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

    def stored(self) -> dict[PageHash, bytes]:
        """The stored form of the pages that may be new: most of the work, and safe in a thread."""
        stored: dict[PageHash, bytes] = {}
        for rows in _chunks(self.new_values):
            blobs = store_values(split_values(_rows(self.pages, rows)))
            stored |= zip((self.value_hashes[i] for i in rows.tolist()), blobs, strict=True)
        for rows in _chunks(self.new_times):
            blobs = store_times(split_times(_rows(self.pages, rows)))
            stored |= zip((self.times_hashes[i] for i in rows.tolist()), blobs, strict=True)
        return stored


def with_something(pages: Pages) -> Pages:
    """The pages that are not wholly absent."""
    used = pages.values["state"].any(axis=1)
    return pages if used.all() else _rows(pages, np.flatnonzero(used))


def measure_times(pages: Pages, now_ns: int) -> Measured:
    """The part of the preparation that needs no hash of values. Pure."""
    return Measured(times_hashes(pages), *measure(pages, now_ns))


def put_together(
    pages: Pages,
    hashes: list[PageHash],
    measured: Measured,
    known: Callable[[PageHash], bool],
) -> Prepared:
    """From pages that have something, and what `value_hashes` and `measure_times` say of them.

    Pages `known` need not be stored again. Pure, as far as `known` is.
    """
    return Prepared(
        pages,
        hashes,
        measured.times_hashes,
        _unknown(hashes, known),
        _unknown(measured.times_hashes, known),
        digest_of(list(zip(pages.numbers.tolist(), hashes, strict=True))),
        measured.counts,
        measured.skew,
    )


def prepare(pages: Pages, now_ns: int, known: Callable[[PageHash], bool]) -> Prepared:
    """All steps, one after the other."""
    pages = with_something(pages)
    return put_together(pages, value_hashes(pages), measure_times(pages, now_ns), known)


def _unknown(hashes: list[PageHash], known: Callable[[PageHash], bool]) -> I8:
    """Indices of hashes not known, each hash once."""
    first = {h: i for i, h in reversed(list(enumerate(hashes))) if not known(h)}
    return np.array(sorted(first.values()), np.int64)


def _chunks(rows: I8) -> Iterator[I8]:
    return (rows[at : at + _CHUNK] for at in range(0, len(rows), _CHUNK))


def _rows(pages: Pages, rows: I8) -> Pages:
    return Pages(
        pages.numbers[rows],
        pages.values[rows],
        pages.times[rows],
        [pages.heaps[i] for i in rows.tolist()],
    )
