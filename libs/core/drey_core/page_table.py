"""Pages under construction and update, as monitors keep them and consumers follow them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drey_core.distinct import distinct_values
from drey_core.pages import (
    PAGE_MASK,
    PAGE_SHIFT,
    TIMES_NAMES,
    VALUES_NAMES,
    FlatIndex,
    Pages,
    find_pages,
)
from drey_core.values import Columns, heap_mask, pack_heap, unpack_heap


class PageTable:
    """Pages under construction and update: what a monitor keeps and a consumer folds into.

    Applying columns is vectorised; heap values (strings and arrays) are kept as bytes by channel
    and laid out when a page is taken. Not thread-safe.
    """

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self.pages = Pages.empty_pages(np.sort(np.asarray(numbers, np.int64)))
        self._heap_values: list[dict[int, bytes]] = [{} for _ in range(len(self.pages))]
        self._stale_heap: set[int] = set()

    @property
    def page_numbers(self) -> NDArray[np.int64]:
        """Page numbers, ascending."""
        return self.pages.numbers

    def add_pages(self, numbers: NDArray[np.int64]) -> None:
        """Make room for pages not there yet, every slot absent."""
        new = distinct_values(np.asarray(numbers, np.int64))
        new = new[~np.isin(new, self.page_numbers)]
        if len(new) == 0:
            return
        old, old_heaps = self.take_pages(np.arange(len(self.pages))), self._heap_values
        merged = np.sort(np.concatenate([old.numbers, new]))
        self.pages = Pages.empty_pages(merged)
        self._heap_values = [{} for _ in range(len(merged))]
        places = np.searchsorted(merged, old.numbers)
        self.pages.values[places], self.pages.times[places] = old.values, old.times
        for i, index in enumerate(places.tolist()):
            self.pages.heaps[index], self._heap_values[index] = old.heaps[i], old_heaps[i]
        self._stale_heap = set()

    def apply_batch(self, columns: Columns) -> NDArray[np.int64]:
        """Fold columns keyed by channel number; indices of the pages touched, ascending.

        Each channel at most once in `columns`. Channels of pages not here are ignored.
        """
        number = columns.key >> PAGE_SHIFT
        if len(self.page_numbers) == 0 or len(number) == 0:
            return np.zeros(0, np.int64)
        places, known_pages = find_pages(self.page_numbers, number)
        if not known_pages.all():
            columns, places = columns.take_rows(known_pages), places[known_pages]
        slot = columns.key & PAGE_MASK
        has_heap = heap_mask(columns.kind)
        had_heap = self._scatter_rows(columns, places, slot)
        if has_heap.any() or had_heap.any():
            self._apply_heap(columns, places, slot, had_heap, has_heap)
        touched = np.zeros(len(self.page_numbers), bool)
        touched[places] = True
        return np.flatnonzero(touched)

    def _scatter_rows(
        self, columns: Columns, page_index: NDArray[np.int64], slot: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Write the fixed columns of rows; which of them had their value in the heap before."""
        had_heap = np.zeros(0, bool)
        flat = FlatIndex(page_index, slot)
        for array, names in ((self.pages.values, VALUES_NAMES), (self.pages.times, TIMES_NAMES)):
            for name in names:
                cells, where = flat.cells(array, name)
                if name == "kind":
                    had_heap = heap_mask(cells[where])
                cells[where] = getattr(columns, name)
        return had_heap

    def _apply_heap(
        self,
        columns: Columns,
        page_index: NDArray[np.int64],
        slot: NDArray[np.int64],
        had_heap: NDArray[np.bool_],
        has_heap: NDArray[np.bool_],
    ) -> None:
        for row in np.flatnonzero(had_heap | has_heap).tolist():
            index = int(page_index[row])
            self._stale_heap.add(index)
            if has_heap[row]:
                self._heap_values[index][int(slot[row])] = columns.heap_bytes(row)
            else:
                self._heap_values[index].pop(int(slot[row]), None)

    def clear_channels(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Make channels absent; indices of pages touched, ascending."""
        blank = Columns.empty_columns(len(channels)).with_key(channels)
        return self.apply_batch(blank)

    def replace_pages(self, indices: NDArray[np.int64], pages: Pages) -> None:
        """Put the first pages of `pages` in the places `indices`, each at most once."""
        n = len(indices)
        values = pages.values[:n]
        self.pages.values[indices], self.pages.times[indices] = values, pages.times[:n]
        in_heap = heap_mask(values["kind"])
        for row, index in enumerate(indices.tolist()):
            heap = self.pages.heaps[index] = pages.heaps[row]
            self._stale_heap.discard(index)
            self._heap_values[index] = {}
            if not in_heap[row].any():
                continue
            slots = np.flatnonzero(in_heap[row])
            raws = unpack_heap(values["data"][row, slots], heap)
            self._heap_values[index] = dict(zip(slots.tolist(), raws, strict=True))

    def take_pages(self, indices: NDArray[np.int64]) -> Pages:
        """A copy of some pages by index, heaps laid out canonically."""
        for index in self._stale_heap.intersection(indices.tolist()):
            self._lay_out(index)
            self._stale_heap.discard(index)
        return Pages(
            self.page_numbers[indices].copy(),
            self.pages.values[indices],
            self.pages.times[indices],
            [self.pages.heaps[i] for i in indices.tolist()],
        )

    def heap_value(self, channel: int) -> bytes:
        """The bytes of a channel of a page here that is a string or an array; nothing is copied."""
        index = int(np.searchsorted(self.page_numbers, channel >> PAGE_SHIFT))
        return self._heap_values[index][channel & PAGE_MASK]

    def columns_of_channels(
        self, channels: NDArray[np.int64], *, with_heap: bool = True
    ) -> Columns:
        """As `Pages.columns_of_channels`. Without the heap strings and arrays refer to nothing."""
        if not with_heap:
            return self.pages.columns_of_channels(channels, with_heap=False)
        for index in list(self._stale_heap):
            self._lay_out(index)
        self._stale_heap.clear()
        return self.pages.columns_of_channels(channels)

    def _lay_out(self, index: int) -> None:
        """Write the heap of one page in slot order without gaps."""
        slots, raws = [], []
        for slot, raw in sorted(self._heap_values[index].items()):
            slots.append(slot)
            raws.append(raw)
        self.pages.values["data"][index][slots], self.pages.heaps[index] = pack_heap(raws)
