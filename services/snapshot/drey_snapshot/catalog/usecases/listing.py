"""Lists of PVs: filtered and ordered in memory, paged by key."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from drey_core.search import SearchIndex
from drey_core.selector import Selector
from drey_snapshot.catalog.domain.draft import Draft, draft_of, drafts_of
from drey_snapshot.catalog.domain.table import Bools, PvTable
from drey_snapshot.catalog.view import CatalogView, index_of

Key = tuple[str, int]
"""Name and number of a PV: what a list is ordered by."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some PVs in order, one more than was asked for where there are more, and how many match."""

    drafts: list[Draft]
    total: int


def list_living(
    view: CatalogView, selector: Selector | None, search: str, after: Key | None, size: int
) -> Page:
    """A page of the living PVs. Errors as `SelectorIndex.select_rows`."""
    order = view.name_order
    if selector is not None or search.strip():
        mask = _search_mask(view, selector, search)
        order = order[mask[order]]
    names, numbers = view.table.name, view.table.number
    first = 0
    if after is not None:
        first = bisect_right(
            range(len(order)), after, key=lambda i: (names[order[i]], int(numbers[order[i]]))
        )
    rows = order[first : first + size + 1].tolist()
    return Page(list(drafts_of(view.table, rows)), len(order))


def list_all(
    view: CatalogView,
    tombstones: PvTable,
    selector: Selector | None,
    search: str,
    after: Key | None,
    size: int,
) -> Page:
    """A page of the living and the dead."""
    matches: list[tuple[str, int, PvTable, int]] = []
    index = index_of(tombstones, view.tags)
    dead = np.ones(len(tombstones), bool)
    unknown: list[str] = []
    if selector is not None:
        selection = index.select_rows(selector, allow_unknown=True)
        dead, unknown = selection.mask, selection.not_found
    if search.strip():
        dead = dead & index.search_mask(search)
    # a name that only a tombstone has is not unknown
    living = _search_mask(view, selector, search, allow_unknown=True)
    if selector is not None and unknown:
        _, missing = view.select_numbers(selector, allow_unknown=True)
        if set(missing) & set(unknown):
            view.select_numbers(selector)
    for table, mask in ((view.table, living), (tombstones, dead)):
        for row in np.flatnonzero(mask).tolist():
            matches.append((table.name[row], int(table.number[row]), table, row))
    matches.sort(key=lambda item: item[:2])
    first = 0 if after is None else bisect_right(matches, after, key=lambda item: item[:2])
    chosen = matches[first : first + size + 1]
    return Page([draft_of(table, row) for _, _, table, row in chosen], len(matches))


def _search_mask(
    view: CatalogView, selector: Selector | None, search: str, allow_unknown: bool = False
) -> Bools:
    mask: Bools = np.ones(len(view.table), bool)
    if selector is not None:
        mask = view.selector_index.select_rows(selector, allow_unknown=allow_unknown).mask
    if search.strip():
        mask = mask & view.selector_index.search_mask(search)
    return mask


def search_devices(counts: Mapping[str, int], search: str) -> list[str]:
    """Names of devices in which all words of a search occur, in order."""
    names = sorted(counts)
    if not search.strip():
        return names
    return [
        names[index] for index in np.flatnonzero(SearchIndex(names).matching_mask(search)).tolist()
    ]


def key_of(draft: Draft) -> Key:
    """What a PV is found by again in a list."""
    return draft.name, draft.number
