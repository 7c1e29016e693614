"""The live image: the latest value of every channel, with what says when it changed.

Beside the pages it keeps, by slot (one channel each):

- `version`: the local change counter as of the slot's last change. A watcher remembers the counter
  of its last message, and what is greater is what it lacks; so a slow reader holds one number.
- `updates`: how many updates there were in all, those merged away included.
- `stamp_epoch`, `stamp_sequence`: the last batch that can have changed it; an upper bound where
  the slot was read from a page that says of long ago only that it is long ago. By them a watcher
  that comes from another gateway is told what it lacks.

For each channel never an older value after a newer: a page read from the image is folded slot by
slot, and a slot whose own stamp is greater stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drey_core.page_table import PageTable
from drey_core.pages import (
    PAGE_MASK,
    PAGE_SHIFT,
    PAGE_SLOTS,
    VALUES_DTYPE,
    VALUES_NAMES,
    FlatIndex,
    Pages,
    find_pages,
)
from drey_core.slot_sequences import Ages
from drey_core.values import I4, I8, Columns, heap_mask

U8 = NDArray[np.uint64]
Mask = NDArray[np.bool_]

FIXED_DTYPE = np.dtype([(name, VALUES_DTYPE[name].base) for name in VALUES_NAMES])
"""One slot without times and heap."""
_FIXED = ("kind", "state", "severity", "status", "source_time", "data")


class LiveImage:
    """Values of all channels of some pages. Slot 0 is nobody's: what absent channels map to."""

    def __init__(self) -> None:
        self.table = PageTable(np.zeros(0, np.int64))
        self.counter = 0
        self.version = np.zeros(1, np.int64)
        self.updates = np.zeros(1, np.int64)
        self.stamp_epoch = np.zeros(1, np.uint64)
        self.stamp_sequence = np.zeros(1, np.uint64)
        self._bases = np.zeros(0, np.int64)

    def add_pages(self, numbers: I8) -> None:
        """Make room for pages; slots given out before stay what they are."""
        new = np.setdiff1d(np.asarray(numbers, np.int64), self.table.page_numbers)
        if len(new) == 0:
            return
        self.table.add_pages(new)
        base = len(self.version)
        if int(new[-1]) >= len(self._bases):
            grown = np.zeros(int(new[-1]) + 1, np.int64)
            grown[: len(self._bases)] = self._bases
            self._bases = grown
        self._bases[new] = base + np.arange(len(new)) * PAGE_SLOTS
        more = len(new) * PAGE_SLOTS
        self.version = np.concatenate([self.version, np.zeros(more, np.int64)])
        self.updates = np.concatenate([self.updates, np.zeros(more, np.int64)])
        self.stamp_epoch = np.concatenate([self.stamp_epoch, np.zeros(more, np.uint64)])
        self.stamp_sequence = np.concatenate([self.stamp_sequence, np.zeros(more, np.uint64)])

    def slots_of_channels(self, channels: I8) -> I8:
        """Slot of each channel; 0 for channel 0 and those of pages not here."""
        number = channels >> PAGE_SHIFT
        if len(self._bases) == 0:
            return np.zeros(len(channels), np.int64)
        base = self._bases[np.minimum(number, len(self._bases) - 1)]
        known_slots = (number < len(self._bases)) & (base > 0) & (channels > 0)
        return np.where(known_slots, base + (channels & PAGE_MASK), 0)

    def columns_of_channels(self, channels: I8) -> Columns:
        """Values of channels, in their order."""
        return self.table.columns_of_channels(channels)

    def fixed_values(self, channels: I8) -> NDArray[np.void]:
        """Values of channels without times and heap, of `FIXED_DTYPE`; any shape."""
        out = np.zeros(channels.shape, FIXED_DTYPE)
        if len(self.table.page_numbers) == 0:
            return out
        places, known_pages = find_pages(self.table.page_numbers, channels >> PAGE_SHIFT)
        index = FlatIndex(places, channels & PAGE_MASK)
        for name in VALUES_NAMES:
            cells, where = index.cells(self.table.pages.values, name)
            out[name] = cells[where]
        out[~known_pages] = np.zeros((), FIXED_DTYPE)
        return out

    def apply_batch(self, columns: Columns, epoch: int, sequence: int) -> I8:
        """Apply one step of a shard's stream; the slots that changed."""
        slots = self.slots_of_channels(columns.key)
        # a page read from the image may be ahead of the stream
        known_slots = (slots > 0) & self._older_than(slots, np.uint64(epoch), np.uint64(sequence))
        if not known_slots.all():
            columns, slots = columns.take_rows(known_slots), slots[known_slots]
        self.table.apply_batch(columns)
        self._touch_slots(slots)
        self.updates[slots] += 1 + columns.merged.astype(np.int64)
        self.stamp_epoch[slots] = epoch
        self.stamp_sequence[slots] = sequence
        return slots

    def touch_slots(self, slots: I8) -> None:
        """Count slots as changed although their values are not: what belongs to them is."""
        self._touch_slots(slots[slots > 0])

    def _touch_slots(self, slots: I8) -> None:
        self.counter += 1
        self.version[slots] = self.counter

    def apply_pages(self, pages: Pages, epoch: U8, sequence: U8, ages: Ages) -> I8:
        """Fold pages read from the image; `epoch` and `sequence` their stamps, shape (n,), and
        `ages` those of their slots, shape (n, 256).

        Returns the slots that changed. Pages that are not in the image (epoch 0) change nothing.
        """
        there = np.flatnonzero(epoch > 0)
        if len(there) == 0:
            return np.zeros(0, np.int64)
        self.add_pages(pages.numbers[there])
        channels = _page_channels(pages.numbers[there])
        slots = self.slots_of_channels(channels)
        page_epoch = np.repeat(epoch[there], PAGE_SLOTS)
        whole = sequence[there, None]
        page_sequence = (whole - np.minimum(ages[there], whole)).reshape(-1)
        # channel 0 is nobody's and has no slot
        newer = self._older_than(slots, page_epoch, page_sequence) & (slots > 0)
        channels, slots = channels[newer], slots[newer]
        self.stamp_epoch[slots] = page_epoch[newer]
        self.stamp_sequence[slots] = page_sequence[newer]
        columns = pages.columns_of_channels(channels)
        rows = np.flatnonzero(self._differing_rows(columns, channels))
        changed = slots[rows]
        if len(rows):
            self.table.apply_batch(columns.take_rows(rows))
            self._touch_slots(changed)
            self.updates[changed] += 1
        return changed

    def _older_than(self, slots: I8, epoch: U8 | np.uint64, sequence: U8 | np.uint64) -> Mask:
        """Which slots have a stamp below the one given."""
        mine, same = self.stamp_epoch[slots], self.stamp_epoch[slots] == epoch
        older: Mask = (mine < epoch) | (same & (self.stamp_sequence[slots] < sequence))
        return older

    def _differing_rows(self, columns: Columns, channels: I8) -> Mask:
        mine = self.table.columns_of_channels(channels)
        different: Mask = columns.receive_time != mine.receive_time
        different |= columns.origin != mine.origin
        for name in _FIXED[:-1]:
            different |= getattr(columns, name) != getattr(mine, name)
        in_heap = heap_mask(columns.kind)
        different |= ~in_heap & (columns.data != mine.data)
        for row in np.flatnonzero(in_heap & ~different).tolist():
            different[row] = columns.heap_bytes(row) != mine.heap_bytes(row)
        return different

    def changed_since(self, slots: I4 | I8, counter: int) -> Mask:
        """Which slots changed after the local counter was at `counter`; any shape."""
        mask: Mask = self.version[slots] > counter
        return mask

    def stamped_after(self, slots: I4 | I8, epoch: U8, sequence: U8) -> Mask:
        """Which slots may have changed after (epoch, sequence), given for each; any shape."""
        mine = self.stamp_epoch[slots]
        after: Mask = (mine > epoch) | ((mine == epoch) & (self.stamp_sequence[slots] > sequence))
        return after & (slots > 0)


def _page_channels(numbers: I8) -> I8:
    return ((numbers[:, None] << PAGE_SHIFT) + np.arange(PAGE_SLOTS)).reshape(-1)
