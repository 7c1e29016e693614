"""The values of one shard: folding what came, cutting batches, and which pages are unwritten.

A new owner takes over the last values that the image has (`inherit`). Until the control system
has answered for such a channel its row stands as the last owner left it, unpublished and not
counted as connected; `settle` then says DISCONNECTED of those that never answered. So a fail-over
shows nobody a machine that vanished for a moment.

Nor does it go back: an IOC serves each of its clients by itself, and this one may be later than the
last owner was. An answer that is older by the IOC's own clock waits for one that is not, and
`settle` takes it where none comes: then the clock was set back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drey_core.page_table import PageTable
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS, Pages, shard_of_page
from drey_core.slot_sequences import Ages, SlotSequences
from drey_core.values import KIND_NONE, Columns, Kind, State

I8 = NDArray[np.int64]
_PENDING_PARTS = 64


@dataclass(frozen=True, slots=True)
class Cut:
    """One batch: its number and the rows that changed, each channel once."""

    sequence: int
    columns: Columns


@dataclass(frozen=True, slots=True)
class Counts:
    """Channels of a shard by state. `valued`: connected, and a value has come."""

    channels: int
    connected: int
    disconnected: int
    never_connected: int
    unsupported: int
    in_alarm: int
    valued: int


class ShardState:
    """Pages of one shard under one epoch. Not thread-safe; nothing here blocks."""

    def __init__(self, shard: int, epoch: int) -> None:
        self.shard = shard
        self.epoch = epoch
        self.sequence = 0
        self.updates = 0
        self.merged = 0
        self._table = PageTable(np.zeros(0, np.int64))
        self._pending: list[Columns] = []
        self._looked = [0, 0]
        self._dirty = np.zeros(0, bool)
        self._inherited = np.zeros((0, PAGE_SLOTS), bool)
        self._heard = np.zeros((0, PAGE_SLOTS), np.uint8)
        self._behind = Columns.empty_columns(0)
        """Of inherited channels: the last answers, where these are older than what stands."""
        self._changed = SlotSequences()

    # --- which pages and channels there are ---

    @property
    def page_numbers(self) -> I8:
        """Page numbers, ascending."""
        return self._table.page_numbers

    def grow_pages(self, numbers: I8) -> None:
        """Make room for further pages, every channel absent. New pages count as unwritten."""
        old = self.page_numbers
        self._table.add_pages(np.asarray(numbers, np.int64))
        places = np.searchsorted(self.page_numbers, old)
        n = len(self.page_numbers)
        dirty, inherited = np.ones(n, bool), np.zeros((n, PAGE_SLOTS), bool)
        heard = np.zeros((n, PAGE_SLOTS), np.uint8)
        dirty[places], inherited[places], heard[places] = self._dirty, self._inherited, self._heard
        self._dirty, self._inherited, self._heard = dirty, inherited, heard
        self._changed.grow_pages(self.page_numbers)

    def inherit_pages(self, pages: Pages, same: NDArray[np.bool_]) -> I8:
        """Take over pages of the last owner; the channels whose value stays for now.

        `same`, shape (n, 256): channels that live at the address they had. Only those that once
        had a value are kept; of the others of these pages nothing remains.
        """
        self.grow_pages(pages.numbers)
        state = pages.values["state"]
        keep = same & ((state == State.CONNECTED) | (state == State.DISCONNECTED))
        places = np.searchsorted(self.page_numbers, pages.numbers)
        self._table.replace_pages(places, pages)
        self._inherited[places] = keep
        channels = (pages.numbers[:, None] << PAGE_SHIFT) + np.arange(PAGE_SLOTS)
        gone = channels[~keep & (state != State.ABSENT)]
        if len(gone):
            self._put_columns(_state_rows(gone, State.ABSENT))
        kept: I8 = channels[keep]
        return kept

    def add_channels(self, channels: I8, state: State = State.NEVER_CONNECTED) -> None:
        """Channels of known pages begin to live, without a value."""
        if len(channels):
            self._forget_inherited(channels)
            self._put_columns(_state_rows(channels, state))

    def remove_channels(self, channels: I8) -> None:
        """Channels end: ABSENT."""
        if len(channels):
            self._forget_inherited(channels)
            self._put_columns(_state_rows(channels, State.ABSENT))

    # --- values ---

    def fold_columns(self, columns: Columns) -> None:
        """Take in drained rows, keyed by channel, each channel of this shard at most once."""
        if not len(columns):
            return
        merged = int(columns.merged.sum())
        self.updates += len(columns) + merged
        self.merged += merged
        rows = self._take_answers(columns)
        if len(rows):
            self._put_columns(rows.compact_heap())

    def tell_again(self, channels: I8) -> None:
        """Put enumerations into the next batch as they are, for their labels are others now.

        Those that have not answered yet, and those that are in it already, are left out.
        """
        channels = np.sort(channels[np.isin(channels >> PAGE_SHIFT, self.page_numbers)])
        rows = self._table.columns_of_channels(channels)
        again = (rows.kind == Kind.ENUM) & ~self._inherited[self._find_places(channels)]
        for columns in self._pending:
            again &= ~np.isin(channels, columns.key)
        if again.any():
            self._put_columns(rows.take_rows(again).compact_heap())

    def settle_unconnected(self) -> None:
        """The search is over: inherited channels that have not answered are DISCONNECTED."""
        behind, self._behind = self._behind, Columns.empty_columns(0)
        if len(behind):
            self._forget_inherited(behind.key)
            self._put_columns(behind)
        page_index, slot = np.nonzero(self._inherited)
        if not len(page_index):
            return
        heard = self._heard[page_index, slot]
        self._inherited[:] = False
        rows = self._table.columns_of_channels((self.page_numbers[page_index] << PAGE_SHIFT) + slot)
        rows.state[:] = np.where(heard == State.CONNECTED, State.CONNECTED, State.DISCONNECTED)
        # connected, but no value ever came: the old one is nobody's word any more
        hollow = heard == State.CONNECTED
        for column in (rows.kind, rows.data, rows.severity, rows.status, rows.origin):
            column[hollow] = 0
        rows.source_time[hollow] = 0
        rows.receive_time[hollow] = 0
        self._put_columns(rows.compact_heap())

    @property
    def has_pending(self) -> bool:
        """Whether `cut` would give a batch."""
        return bool(self._pending)

    def cut_batch(self) -> Cut | None:
        """The next batch with everything that changed since the last; None where nothing did."""
        if not self._pending:
            return None
        columns = latest_columns(self._pending)
        self._pending = []
        self.sequence += 1
        return Cut(self.sequence, columns)

    def begin_epoch(self, epoch: int) -> None:
        """Go on under a greater epoch: sequences begin anew, every page is unwritten."""
        if epoch <= self.epoch:
            raise ValueError(f"epoch {epoch} is not greater than {self.epoch}")
        self.epoch, self.sequence = epoch, 0
        self._changed.begin_epoch()
        self.mark_all_unwritten()

    # --- the image ---

    @property
    def unwritten_pages(self) -> int:
        """Number of pages that the image lacks."""
        return int(self._dirty.sum())

    def take_unwritten(self) -> Pages:
        """A copy of the pages that the image lacks; they count as written from here on."""
        indices = np.flatnonzero(self._dirty)
        self._dirty[indices] = False
        return self._table.take_pages(indices)

    def slot_ages(self, numbers: I8) -> Ages:
        """How many batches ago each slot of some pages changed, shape (n, 256)."""
        return self._changed.ages_since(numbers, self.sequence)

    def mark_unwritten(self, numbers: I8) -> None:
        """These pages did not get into the image after all."""
        self._dirty[np.searchsorted(self.page_numbers, numbers)] = True

    def next_pages(self, most: int, *, torn: bool = False) -> I8:
        """Numbers of the next pages to be looked at, all of them in turn; `torn`: a round apart."""
        n = len(self.page_numbers)
        if n == 0:
            return self.page_numbers
        places = (self._looked[torn] + np.arange(min(most, n))) % n
        self._looked[torn] = int(places[-1]) + 1
        return self.page_numbers[np.sort(places)]

    def mark_all_unwritten(self) -> None:
        """The image has lost everything."""
        self._dirty[:] = True

    def counts(self) -> Counts:
        """Channels by state, now. What is only inherited counts as disconnected."""
        values = self._table.pages.values
        state = values["state"]
        connected = (state == State.CONNECTED) & ~self._inherited
        channels = int(np.count_nonzero(state))
        up = int(np.count_nonzero(connected))
        never = int(np.count_nonzero(state == State.NEVER_CONNECTED))
        unsupported = int(np.count_nonzero(state == State.UNSUPPORTED))
        return Counts(
            channels=channels,
            connected=up,
            disconnected=channels - up - never - unsupported,
            never_connected=never,
            unsupported=unsupported,
            in_alarm=int(np.count_nonzero(connected & (values["severity"] != 0))),
            valued=int(np.count_nonzero(connected & (values["kind"] != KIND_NONE))),
        )

    # --- inside ---

    def _put_columns(self, columns: Columns) -> None:
        self._dirty[self._table.apply_batch(columns)] = True
        self._changed.note_changed(columns.key, self.sequence + 1)
        self._pending.append(columns)
        if len(self._pending) > _PENDING_PARTS:
            # nobody cuts: the shard may not be published now
            self._pending = [latest_columns(self._pending)]

    def _forget_inherited(self, channels: I8) -> None:
        self._inherited[self._find_places(channels)] = False
        self._keep_behind(channels, Columns.empty_columns(0))

    def _take_answers(self, columns: Columns) -> Columns:
        """Rows without those of inherited channels that say nothing yet, or less than stands."""
        if not self._inherited.any():
            return columns
        places = self._find_places(columns.key)
        inherited, values = self._inherited[places], self._table.pages.values
        hollow = inherited & (columns.kind == KIND_NONE)
        behind = (
            inherited
            & (columns.state == State.CONNECTED)
            & (values["state"][places] == State.CONNECTED)
            & (columns.source_time < values["source_time"][places])
            & ~hollow
        )
        page_index, slot = places
        self._heard[page_index[hollow], slot[hollow]] = columns.state[hollow]
        self._keep_behind(columns.key, columns.take_rows(behind))
        waiting = hollow | behind
        self._inherited[page_index[~waiting], slot[~waiting]] = False
        return columns.take_rows(~waiting) if waiting.any() else columns

    def _keep_behind(self, channels: I8, rows: Columns) -> None:
        """`rows` instead of what was kept of `channels`."""
        if len(self._behind) or len(rows):
            others = self._behind.take_rows(~np.isin(self._behind.key, channels))
            self._behind = Columns.concat_columns([others, rows]).compact_heap()

    def _find_places(self, channels: I8) -> tuple[I8, I8]:
        return np.searchsorted(self.page_numbers, channels >> PAGE_SHIFT), channels & PAGE_MASK


def _state_rows(channels: I8, state: State) -> Columns:
    rows = Columns.empty_columns(len(channels)).with_key(np.asarray(channels, np.int64))
    rows.state[:] = state
    return rows


def latest_columns(parts: Sequence[Columns]) -> Columns:
    """The last row of each channel over `parts` in order, ascending by channel.

    The updates that such a row replaced, and the rows that it replaced here, add up in `merged`.
    Each channel is at most once in a part.
    """
    joined = Columns.concat_columns(parts)
    if len(parts) == 1:
        return joined
    order = np.argsort(joined.key, kind="stable")
    key = joined.key[order]
    last = np.flatnonzero(np.append(key[1:] != key[:-1], True)) if len(key) else order
    first = np.append(0, last[:-1] + 1).astype(np.int64) if len(last) else last
    chosen = joined.take_rows(order[last])
    if len(chosen) == len(joined):
        return chosen
    total = np.add.reduceat(joined.merged[order].astype(np.int64), first) + (last - first)
    merged = np.minimum(total, 0xFFFF_FFFF).astype(np.uint32)
    return replace(chosen, merged=merged).compact_heap()


def pages_of_shard(pages: Iterable[int], shard: int, shards: int) -> list[int]:
    """Those of `pages` that belong to `shard`, ascending."""
    return sorted(p for p in pages if shard_of_page(p, shards) == shard)


def next_epoch(granted: int, *seen: int) -> int:
    """The epoch under which a shard is taken.

    At least the one that the lease `granted`, and greater than every one `seen` elsewhere: epochs
    only grow, also where the lease's memory or the image was wiped.
    """
    return max(granted, 1, *(s + 1 for s in seen))


def has_room(owned: int, most: int) -> bool:
    """Whether a process that owns `owned` shards may take one more; `most` 0 is no limit."""
    return most == 0 or owned < most
