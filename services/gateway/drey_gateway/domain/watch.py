"""One watch: what a client holds, and what it lacks. Pure.

A client's state is its selection as of one directory, the local counter up to which it has been
sent everything, and the staleness it was told. Memory for a watcher is its selection, whatever
it misses: merging is a by-product of sending the latest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import Directory
from drey_core.pages import PAGE_SHIFT, shard_of_page
from drey_core.values import I4, I8
from drey_gateway.domain.array_limits import ArrayPacer
from drey_gateway.domain.deadband import DeadbandFilter
from drey_gateway.domain.image import LiveImage, Mask
from drey_gateway.domain.resume import Token, selection_hash


class Fields(IntEnum):
    """Which channels of a PV are watched; numbers of `drey.monitor.v1.WatchFields`."""

    BOTH = 1
    SETPOINT = 2
    READBACK = 3

    @property
    def setpoint(self) -> bool:
        """Whether setpoints are."""
        return self is not Fields.READBACK

    @property
    def readback(self) -> bool:
        """Whether readbacks are."""
        return self is not Fields.SETPOINT


@dataclass(frozen=True)
class WatchedPvs:
    """All PVs that may be watched, shared by many selections. Arrays of shape (n,); None: channels
    that are not watched."""

    numbers: I8
    setpoints: I8 | None
    readbacks: I8 | None


@dataclass(frozen=True)
class WatchSelection:
    """The PVs of a watch under one directory. Arrays of shape (n,), ordered by PV number.

    `rows` index `pvs`; channels that are not watched are 0, and so is their slot; `slots` has shape
    (2, n). A watcher keeps these alone, 16 bytes a PV; what else is rarely asked for is looked up.
    `names` stands for their names, which are told with their rows.
    """

    rows: I8
    pvs: WatchedPvs
    slots: I4
    shards: frozenset[int]
    manner: bytes = b""
    names: bytes = b""

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def select_watched(
        cls,
        rows: I8,
        directory: Directory,
        image: LiveImage,
        fields: Fields,
        shard_count: int,
        manner: bytes = b"",
    ) -> WatchSelection:
        """The PVs in `rows` (ascending) of the directory."""
        setpoints = directory.setpoint_channel if fields.setpoint else None
        readbacks = directory.readback_channel if fields.readback else None
        pvs = WatchedPvs(directory.pv_number, setpoints, readbacks)
        names = directory.names_hash(rows)
        return cls.of_channels(rows, pvs, image, shard_count, manner, names)

    @classmethod
    def of_channels(
        cls,
        rows: I8,
        pvs: WatchedPvs,
        image: LiveImage,
        shard_count: int,
        manner: bytes = b"",
        names: bytes = b"",
    ) -> WatchSelection:
        """The PVs in `rows` (ascending) of `pvs`."""
        channels = np.concatenate([_chosen(pvs.setpoints, rows), _chosen(pvs.readbacks, rows)])
        slots = image.slots_of_channels(channels).astype(np.int32).reshape(2, len(rows))
        shards = np.unique(shard_of_page(channels[channels > 0] >> PAGE_SHIFT, shard_count))
        return cls(rows, pvs, slots, frozenset(shards.tolist()), manner, names)

    @property
    def numbers(self) -> I8:
        """Numbers of the PVs."""
        return _chosen(self.pvs.numbers, self.rows)

    @property
    def setpoints(self) -> I8:
        """Channels of the setpoints."""
        return _chosen(self.pvs.setpoints, self.rows)

    @property
    def readbacks(self) -> I8:
        """Channels of the readbacks."""
        return _chosen(self.pvs.readbacks, self.rows)

    @cached_property
    def digest(self) -> bytes:
        """Stands for what is watched, in tokens."""
        manner = self.manner + self.names
        return selection_hash(self.numbers, self.setpoints, self.readbacks, manner)


def _chosen(column: I8 | None, rows: I8) -> I8:
    return np.zeros(len(rows), np.int64) if column is None else column[rows]


SETPOINT, READBACK = 1, 2
BOTH = SETPOINT | READBACK
"""Which channels of a PV, as bits."""


@dataclass(frozen=True, slots=True)
class WatchDiff:
    """What a client lacks: positions within the selection, `BOTH` or one of the two for each,
    and updates it will never see."""

    at: I8
    channels: I8
    merged: int = 0

    @classmethod
    def baseline_diff(cls, index: I8) -> WatchDiff:
        """PVs with all their channels."""
        return cls(index, np.full(len(index), BOTH))

    @classmethod
    def diff_of_masks(cls, lacking: NDArray[np.bool_], merged: int) -> WatchDiff:
        """By what lacks, shape (2, n): setpoints and readbacks."""
        channels = lacking[0] * SETPOINT + lacking[1] * READBACK
        index = np.flatnonzero(channels)
        return cls(index, channels[index], merged)


class WatchState:
    """What one client holds."""

    def __init__(
        self,
        selection: WatchSelection,
        sieve: DeadbandFilter | None = None,
        pacer: ArrayPacer | None = None,
    ) -> None:
        self.selection = selection
        self._sieve, self._pacer = sieve, pacer
        self._counter = 0
        self._seen_updates = 0
        self._slot_updates = np.zeros(0, np.int64)
        """As `_seen_updates`, by slot; where there is a sieve or a pacer."""
        self.stale: frozenset[int] = frozenset()

    @property
    def _holds_back(self) -> bool:
        return self._sieve is not None or self._pacer is not None

    def baseline_diff(self, image: LiveImage, now: float = 0.0) -> WatchDiff:
        """Take all PVs as sent now: a baseline. `now` is of a monotonic clock, as below."""
        self._advance_clock(image)
        change = WatchDiff.baseline_diff(np.arange(len(self.selection)))
        self._note_sent(change.at, image, now)
        return change

    def since_token(
        self, image: LiveImage, token: Token, shard_count: int, now: float = 0.0
    ) -> WatchDiff:
        """Take what the token lacks as sent now. The token must be `honourable`."""
        selection = self.selection
        channels = np.stack([selection.setpoints, selection.readbacks])
        shard = shard_of_page(channels >> PAGE_SHIFT, shard_count)
        epochs, sequences = np.zeros(shard_count, np.uint64), np.zeros(shard_count, np.uint64)
        for number, (epoch, sequence) in token.positions.items():
            epochs[number], sequences[number] = epoch, sequence
        lacking = image.stamped_after(selection.slots, epochs[shard], sequences[shard])
        self._advance_clock(image)
        if self._sieve is not None:
            # of the others it is not known what the client holds: their next change is sent
            lacking = self._sieve.passing_mask(lacking, image)
        if self._pacer is not None:
            self._pacer.note_sent(lacking, image, now)
        return WatchDiff.diff_of_masks(lacking, 0)

    def next_diff(self, image: LiveImage, now: float = 0.0) -> WatchDiff:
        """Take what changed since the last call as sent now."""
        lacking = image.changed_since(self.selection.slots, self._counter)
        if self._holds_back:
            return self._diff_held_back(lacking, image, now)
        sent = int(np.count_nonzero(lacking))
        if sent == 0:
            self._counter = image.counter
            return WatchDiff.diff_of_masks(lacking, 0)
        before = self._seen_updates
        self._advance_clock(image)
        merged = max(self._seen_updates - before - sent, 0)
        return WatchDiff.diff_of_masks(lacking, merged)

    def _diff_held_back(self, lacking: Mask, image: LiveImage, now: float) -> WatchDiff:
        self._counter = image.counter
        if self._sieve is not None:
            lacking = self._sieve.passing_mask(lacking, image)
        before, seen = self._slot_updates, image.updates[self.selection.slots]
        if self._pacer is not None:
            lacking = self._pacer.passing_mask(lacking, image, now)
            seen = np.where(self._pacer.held, before, seen)
        self._slot_updates = seen
        # a change within the dead-band was not replaced by a newer one
        updates = (seen - before)[lacking]
        return WatchDiff.diff_of_masks(lacking, int(np.maximum(updates - 1, 0).sum()))

    def _note_sent(self, index: I8, image: LiveImage, now: float) -> None:
        if self._sieve is not None:
            self._sieve.note_sent(index, image)
        if self._pacer is not None:
            sent = np.zeros(self.selection.slots.shape, bool)
            sent[:, index] = True
            self._pacer.note_sent(sent, image, now)

    def next_due(self) -> float:
        """When something that is held back for a time may be sent."""
        return math.inf if self._pacer is None else self._pacer.next_due()

    def cut_instant(self, token: Token) -> Token:
        """The token of what the client holds, of that of an instant that was just taken."""
        return token if self._pacer is None else self._pacer.cut_instant(token)

    def reselect_rows(
        self,
        selection: WatchSelection,
        image: LiveImage,
        before: Directory,
        directory: Directory,
        now: float = 0.0,
    ) -> tuple[I8, I8, I8]:
        """Change what is watched, and the directory that it is of.

        Returns (numbers of PVs that left, numbers of those that stayed and whose channels are
        others now, positions in the new selection of these, of those that joined, and of those
        with a new name). What changed besides comes with the next diff.
        """
        old = self.selection
        left = np.setdiff1d(old.numbers, selection.numbers, assume_unique=True)
        stayed, old_at, new_at = np.intersect1d(
            old.numbers, selection.numbers, assume_unique=True, return_indices=True
        )
        moved = (old.setpoints[old_at] != selection.setpoints[new_at]) | (
            old.readbacks[old_at] != selection.readbacks[new_at]
        )
        joined = np.ones(len(selection), bool)
        joined[new_at[~moved]] = False
        if old.names != selection.names:
            rows = zip(old.rows[old_at].tolist(), selection.rows[new_at].tolist(), strict=True)
            renamed = [before.names[was] != directory.names[now_is] for was, now_is in rows]
            joined[new_at[renamed]] = True
        self.selection = selection
        channels = np.stack([selection.setpoints, selection.readbacks])
        if self._sieve is not None:
            self._sieve = self._sieve.followed_by(
                channels, selection.rows, directory, old_at[~moved], new_at[~moved]
            )
        if self._pacer is not None:
            self._pacer = self._pacer.followed_by(channels, old_at[~moved], new_at[~moved])
        if self._holds_back:
            self._slot_updates = image.updates[selection.slots]
        # those that joined are sent whole; their past is nobody's loss
        self._seen_updates = self._count_updates(image)
        self._note_sent(np.flatnonzero(joined), image, now)
        return left, stayed[moved], np.flatnonzero(joined)

    def _advance_clock(self, image: LiveImage) -> None:
        self._counter = image.counter
        self._seen_updates = self._count_updates(image)
        if self._holds_back:
            self._slot_updates = image.updates[self.selection.slots]

    def _count_updates(self, image: LiveImage) -> int:
        return int(image.updates[self.selection.slots].sum())


def check_token(
    token: Token, selection: WatchSelection, positions: Mapping[int, tuple[int, int]]
) -> str:
    """Why a watch cannot go on from a token here; empty when it can.

    `positions` are this gateway's by shard. A token of another selection, or of a time that this
    gateway has not reached, cannot be honoured.
    """
    if token.selection != selection.digest:
        return "what is watched has changed since the token"
    if frozenset(token.positions) != selection.shards:
        return "the shards have changed since the token"
    behind = [s for s, position in token.seen.items() if positions.get(s, (0, 0)) < position]
    if behind:
        return f"this gateway has not got as far as the token in shard {behind[0]}"
    return ""


def stale_numbers(selection: WatchSelection, stale: frozenset[int], shard_count: int) -> I8:
    """Numbers of the watched PVs with a channel in one of the shards."""
    codes = np.zeros(shard_count, bool)
    codes[[s for s in stale if s < shard_count]] = True
    channels = np.stack([selection.setpoints, selection.readbacks])
    hit = codes[shard_of_page(channels >> PAGE_SHIFT, shard_count)] & (channels > 0)
    numbers: I8 = selection.numbers[hit.any(axis=0)]
    return numbers
