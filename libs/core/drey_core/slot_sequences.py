"""When each slot of some pages last changed: the number of the batch, under one epoch.

A page in the image is stamped as a whole. With the age of each slot beside the stamp a reader knows
what changed after a batch, and not merely that something of 256 channels did.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS, find_pages
from drey_core.values import I8

Ages = NDArray[np.uint16]
MAX_AGE = 65_535
"""An age that is as great or greater: readers may take the slot for newer than it is, never for
older."""


class SlotSequences:
    """Of the pages of one shard."""

    def __init__(self) -> None:
        self._numbers = np.zeros(0, np.int64)
        self._changed = np.zeros((0, PAGE_SLOTS), np.int64)

    def grow_pages(self, numbers: I8) -> None:
        """Make room for further pages, nothing of which has changed."""
        merged = np.union1d(self._numbers, numbers)
        changed = np.zeros((len(merged), PAGE_SLOTS), np.int64)
        changed[np.searchsorted(merged, self._numbers)] = self._changed
        self._numbers, self._changed = merged, changed

    def note_changed(self, channels: I8, sequence: int) -> None:
        """Channels change with batch `sequence`; those of pages not here are ignored."""
        if len(self._numbers) == 0:
            return
        places, known_pages = find_pages(self._numbers, channels >> PAGE_SHIFT)
        slots = channels & PAGE_MASK
        self._changed[places[known_pages], slots[known_pages]] = sequence

    def begin_epoch(self) -> None:
        """Sequences begin anew, and nothing has changed yet."""
        self._changed[:] = 0

    def ages_since(self, numbers: I8, sequence: int) -> Ages:
        """How many batches ago each slot of some of the pages changed, as of batch `sequence`;
        shape (n, 256)."""
        changed = self._changed[np.searchsorted(self._numbers, numbers)]
        return np.clip(sequence - changed, 0, MAX_AGE).astype(np.uint16)
