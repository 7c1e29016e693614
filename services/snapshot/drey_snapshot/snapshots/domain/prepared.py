"""A snapshot made ready to be stored: everything hashed, what may be new compressed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drey_core.pages import PageHash, Pages, hash_bytes
from drey_snapshot.snapshots.domain.codec import (
    hash_values,
    split_times,
    split_values,
    store_times,
    store_values,
)
from drey_snapshot.snapshots.domain.records import Skew, StateCounts
from drey_snapshot.snapshots.domain.stats import measure
from drey_snapshot.snapshots.domain.tree import digest_of


@dataclass(frozen=True, slots=True)
class Prepared:
    """Pages with their hashes in order, and the stored form of those that may be new."""

    pages: Pages
    value_hashes: list[PageHash]
    times_hashes: list[PageHash]
    stored: dict[PageHash, bytes]
    digest: PageHash
    counts: StateCounts
    skew: Skew


def prepare(pages: Pages, now_ns: int, known: Callable[[PageHash], bool]) -> Prepared:
    """Hash the pages that are not wholly absent, and compress those not `known` to be stored.

    Pure, and safe in a thread as long as `known` is.
    """
    pages = _with_something(pages)
    values, times = split_values(pages), split_times(pages)
    value_hashes = [hash_values(page) for page in values]
    times_hashes = [hash_bytes(page) for page in times]
    new_values = {h: p for h, p in zip(value_hashes, values, strict=True) if not known(h)}
    new_times = {h: p for h, p in zip(times_hashes, times, strict=True) if not known(h)}
    stored = dict(zip(new_values, store_values(list(new_values.values())), strict=True))
    stored |= zip(new_times, store_times(list(new_times.values())), strict=True)
    counts, skew = measure(pages, now_ns)
    digest = digest_of(list(zip(pages.numbers.tolist(), value_hashes, strict=True)))
    return Prepared(pages, value_hashes, times_hashes, stored, digest, counts, skew)


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
