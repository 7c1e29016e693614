"""The stream of one shard: which batches are applied, and when the image has to be read instead.

A batch of an older epoch is dropped. A new epoch, a sequence that is not the last plus one, a
missing part and a page too large for the bus all mean the same: what is kept here may lack
something, so the pages are read from the image, and the batches that come meanwhile wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drey_core.values import Columns

MAX_WAITING = 512
"""Batches that wait for the image. When there are more the oldest goes: that is one more gap, and
the image is read again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One message of the bus: `part` of (epoch, sequence), the last when not `more`."""

    epoch: int
    sequence: int
    part: int
    more: bool
    columns: Columns
    large_pages: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Step:
    """All parts of one sequence, to be folded at once."""

    epoch: int
    sequence: int
    columns: Columns


class ShardStream:
    """State of one shard's stream. `in_sync` false: read the image, then call `resynced`."""

    def __init__(self) -> None:
        self.epoch = 0
        self.sequence = 0
        self.in_sync = False
        self._complete = (0, 0)
        self.dropped = 0
        self.gaps = 0
        self._parts: list[Batch] = []
        self._waiting: deque[Batch] = deque(maxlen=MAX_WAITING)

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, sequence) up to which everything is applied; what tokens say."""
        return self._complete

    def lose(self) -> None:
        """Say from outside that something may be missing."""
        if self.in_sync:
            self.in_sync = False
            self.gaps += 1
        self._waiting.extend(self._parts)
        self._parts = []

    def offer(self, batch: Batch) -> list[Step]:
        """Take a batch; what is to be folded now, in order."""
        if batch.epoch < self.epoch:
            self.dropped += 1
            return []
        if batch.epoch > self.epoch:
            self._begin_epoch(batch.epoch)
        if not self.in_sync:
            self._waiting.append(batch)
            return []
        if batch.sequence <= self.sequence:
            return []
        if not self._follows(batch) or len(batch.large_pages):
            self.lose()
            self._waiting.append(batch)
            return []
        self._parts.append(batch)
        if batch.more:
            return []
        parts, self._parts = self._parts, []
        self.sequence = batch.sequence
        self._complete = (batch.epoch, batch.sequence)
        return [Step(batch.epoch, batch.sequence, Columns.concat([p.columns for p in parts]))]

    def _follows(self, batch: Batch) -> bool:
        return batch.sequence == self.sequence + 1 and batch.part == len(self._parts)

    def _begin_epoch(self, epoch: int) -> None:
        self.lose()
        self.epoch, self.sequence = epoch, 0
        self._waiting.clear()

    def heard(self, epoch: int, sequence: int) -> None:
        """Learn from a sign of life that the owner has got so far.

        Call it only when batches up to that one would have arrived.
        """
        if epoch > self.epoch:
            self._begin_epoch(epoch)
        elif epoch == self.epoch and sequence > self.sequence:
            self.lose()

    def resynced(self, epoch: int, sequence: int) -> list[Step]:
        """The image was read and folded; its newest page has this stamp. What to fold after it.

        `in_sync` stays false when what waits does not join on: read the image again, soon.
        """
        self._complete = max(self._complete, (epoch, sequence))
        if epoch > self.epoch:
            self.epoch, self.sequence = epoch, sequence
        elif epoch == self.epoch:
            self.sequence = max(self.sequence, sequence)
        waiting = [b for b in self._waiting if b.epoch == self.epoch]
        self._waiting.clear()
        self.in_sync = True
        steps: list[Step] = []
        for batch in waiting:
            steps += self.offer(batch)
        return steps
