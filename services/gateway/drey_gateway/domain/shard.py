"""The stream of one shard: which batches are applied, and when the image has to be read instead.

A batch of an older epoch is dropped; of the epochs heard on the bus and of the one in force in the
image (its fence) the greatest counts. A new epoch, a sequence that is not the last plus one, a
missing part and a page too large for the bus all mean the same: what is kept here may lack
something, so the pages are read from the image, and the batches that come meanwhile wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drey_core.election import epoch_believable
from drey_core.values import Columns
from drey_gateway.domain.resume import Point

MAX_WAITING = 512
"""Batches that wait for the image. When there are more the oldest goes: that is one more gap, and
the image is read again."""


@dataclass(frozen=True, slots=True)
class BusBatch:
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
        self.dropped = 0
        self.gaps = 0
        self._complete: Point = (0, 0)
        self._seen: Point = (0, 0)
        self._needed: Point | None = None
        self._told: Point = (0, 0)
        self._promised = 0
        self._parts: list[BusBatch] = []
        self._waiting: deque[BusBatch] = deque(maxlen=MAX_WAITING)
        self._doubted: frozenset[int] = frozenset()

    @property
    def known_position(self) -> Point:
        """Up to which everything is applied; (0, 0) while there are pages that were never read."""
        return self._complete if self._needed is None else (0, 0)

    @property
    def newest_point(self) -> Point:
        """After which nothing is applied; beyond `position` where pages were read ahead."""
        return self._seen

    def lose_sync(self) -> None:
        """Say from outside that something may be missing."""
        if self.in_sync:
            self.in_sync = False
            self.gaps += 1
        self._waiting.extend(self._parts)
        self._parts = []

    def lack_pages(self) -> None:
        """There are pages more, of which nothing was read, nor folded so far."""
        self.lose_sync()
        self._needed = self._complete

    def offer_batch(self, batch: BusBatch) -> list[Step]:
        """Take a batch; what is to be folded now, in order."""
        if batch.epoch < self.epoch or not epoch_believable(batch.epoch, self.epoch):
            self.dropped += 1
            return []
        if batch.epoch > self.epoch:
            self._begin_epoch(batch.epoch)
        if not self.in_sync:
            self._waiting.append(batch)
            return []
        if batch.sequence <= self.sequence:
            return []
        if not self._follows_last(batch) or len(batch.large_pages):
            self.lose_sync()
            self._waiting.append(batch)
            return []
        self._parts.append(batch)
        if batch.more:
            return []
        parts, self._parts = self._parts, []
        self.sequence = batch.sequence
        self._complete = (batch.epoch, batch.sequence)
        self._seen = max(self._seen, self._complete)
        return [
            Step(batch.epoch, batch.sequence, Columns.concat_columns([p.columns for p in parts]))
        ]

    def _follows_last(self, batch: BusBatch) -> bool:
        return batch.sequence == self.sequence + 1 and batch.part == len(self._parts)

    def _begin_epoch(self, epoch: int) -> None:
        self.lose_sync()
        self.epoch, self.sequence, self._promised = epoch, 0, 0
        self._waiting = deque((b for b in self._waiting if b.epoch == epoch), MAX_WAITING)

    def note_heartbeat(self, epoch: int, sequence: int) -> bool:
        """Take a sign of life, which says how far the owner has got; False: it is not the owner's.

        Batches travel on another subject, so what it says has to be here at the next one. What
        waits beyond it at two of them is nobody's: a batch with an absurd number would otherwise
        keep the stream out of step for ever.
        """
        if epoch < self.epoch or not epoch_believable(epoch, self.epoch):
            self.dropped += 1
            return False
        if epoch > self.epoch:
            self._begin_epoch(epoch)
        last, self._told = self._told, (epoch, sequence)
        if last[0] == epoch:
            self._promised = last[1]
            if self._promised > self.sequence:
                self.lose_sync()
        beyond = frozenset(b.sequence for b in self._waiting if b.sequence > sequence)
        lies, self._doubted = beyond & self._doubted, beyond
        if lies:
            kept = [b for b in self._waiting if b.sequence not in lies]
            self.dropped += len(self._waiting) - len(kept)
            self._waiting = deque(kept, MAX_WAITING)
        return True

    def finish_resync(self, newest: Point, *, fence: int, whole: bool) -> list[Step]:
        """The image was read and folded. What to fold after it.

        `newest` is the stamp of its newest page, `fence` the epoch that was in force in it: an
        owner sets it before it publishes, so what is older is a deposed owner's. `whole`: every
        page was there.

        `in_sync` stays false when something is missing, or what waits does not join on: read the
        image again, soon.
        """
        self._seen = max(self._seen, newest)
        in_force = max(fence, newest[0])
        if in_force > self.epoch and epoch_believable(in_force, self.epoch):
            self._begin_epoch(in_force)
        if not whole or (self._needed is not None and newest < self._needed):
            return []
        self._needed = None
        self._complete = max(self._complete, newest)
        if newest[0] == self.epoch:
            self.sequence = max(self.sequence, newest[1])
        waiting = [b for b in self._waiting if b.epoch == self.epoch]
        self._waiting.clear()
        self.in_sync = True
        steps: list[Step] = []
        for batch in waiting:
            steps += self.offer_batch(batch)
        if self.sequence < self._promised:
            self.lose_sync()
        return steps
