"""A snapshot made ready to be stored: everything hashed, what may be new compressed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drey_core.pages import PageHash, Pages, hash_bytes
from drey_snapshot.snapshots.domain.codec import (
    ValuePage,
    hash_values,
    split_times,
    split_values,
    store_times,
    store_values,
)
from drey_snapshot.snapshots.domain.records import Skew, StateCounts
from drey_snapshot.snapshots.domain.stats import measure
from drey_snapshot.snapshots.domain.tree import digest_of


@dataclass(frozen=True)
class Prepared:
    """Pages with their hashes in order, and those of them that may be new."""

    pages: Pages
    value_hashes: list[PageHash]
    times_hashes: list[PageHash]
    new_values: dict[PageHash, ValuePage]
    new_times: dict[PageHash, bytes]
    digest: PageHash
    counts: StateCounts
    skew: Skew

    @cached_property
    def stored(self) -> dict[PageHash, bytes]:
        """The stored form of the pages that may be new: most of the work, and safe in a thread."""
        values = store_values(list(self.new_values.values()))
        stored = dict(zip(self.new_values, values, strict=True))
        stored |= zip(self.new_times, store_times(list(self.new_times.values())), strict=True)
        return stored


def prepare(pages: Pages, now_ns: int, known: Callable[[PageHash], bool]) -> Prepared:
    """Hash the pages that are not wholly absent, and keep those not `known` to be stored.

    Pure, and safe in a thread as long as `known` is.
    """
    pages = _with_something(pages)
    values, times = split_values(pages), split_times(pages)
    value_hashes = [hash_values(page) for page in values]
    times_hashes = [hash_bytes(page) for page in times]
    new_values = {h: p for h, p in zip(value_hashes, values, strict=True) if not known(h)}
    new_times = {h: p for h, p in zip(times_hashes, times, strict=True) if not known(h)}
    counts, skew = measure(pages, now_ns)
    digest = digest_of(list(zip(pages.numbers.tolist(), value_hashes, strict=True)))
    return Prepared(pages, value_hashes, times_hashes, new_values, new_times, digest, counts, skew)


def _with_something(pages: Pages) -> Pages:
    used = pages.values["state"].any(axis=1)
    if used.all():
        return pages
    rows = np.flatnonzero(used)
    return Pages(
        pages.numbers[rows],
        pages.values[rows],
        pages.times[rows],
        [pages.heaps[i] for i in rows.tolist()],
    )
