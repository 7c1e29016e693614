"""How the live machine differs from one stored state, kept up by what changes. Pure.

All who watch the drift from one reference share one `DriftTable`. It has a row for each PV of the
reference; `advance` compares those of which something has changed, and encodes those that are not
the same. A watcher remembers the turn of the table up to which it has been sent everything, so what
it misses is merged, and its memory is its selection.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from drey_core.compare import DifferenceClass, Summary, compare, summarise_classes
from drey_core.directory import (
    ROLE_READBACK,
    ROLE_SETPOINT,
    Directory,
    LabelSource,
    MetadataIndex,
)
from drey_core.pages import PAGE_SHIFT, shard_of_page
from drey_core.selector import Selector, SelectorIndex
from drey_core.tolerance import F8
from drey_core.values import ARRAY, I8, U1, Columns, Kind
from drey_core.wire import RowEncoder
from drey_gateway.domain.drift_rows import DriftRowEncoder
from drey_gateway.domain.image import Mask
from drey_gateway.domain.live import LiveState
from drey_gateway.domain.resume import Point, Token
from drey_gateway.domain.rows import FRESH, STALE
from drey_gateway.domain.terms import needs_catalog
from drey_gateway.domain.watch import WatchedPvs, WatchSelection, stale_numbers

_DIFFERENT = int(DifferenceClass.DIFFERENT)
_WITHIN = int(DifferenceClass.WITHIN_TOLERANCE)
_EQUAL = int(DifferenceClass.EQUAL)


class DriftTolerances(IntEnum):
    """Whose tolerances hold; numbers of `drey.compare.v1.ToleranceSource`."""

    REFERENCE = 1
    CATALOG = 2
    EXACT = 4


@dataclass(frozen=True)
class Reference:
    """A stored state. Columns of shape (n,), ordered by PV number; absent where a PV has none."""

    snapshot_id: str
    time_ns: int
    directory: Directory
    """As of the state; it may have more PVs than the state."""
    metadata: MetadataIndex
    numbers: I8
    setpoint: Columns
    readback: Columns

    @classmethod
    def of_columns(
        cls,
        snapshot_id: str,
        time_ns: int,
        directory: Directory,
        metadata: MetadataIndex,
        pv_numbers: I8,
        roles: U1,
        columns: Columns,
    ) -> Reference:
        """By values of channels, shape (m,), ordered by PV number."""
        numbers = np.unique(pv_numbers)
        sides = []
        for role in (ROLE_SETPOINT, ROLE_READBACK):
            chosen = np.flatnonzero(roles == role)
            source = np.full(len(numbers), len(columns), np.int64)
            source[np.searchsorted(numbers, pv_numbers[chosen])] = chosen
            sides.append(
                Columns.concat_columns([columns, Columns.empty_columns(1)]).take_rows(source)
            )
        return cls(snapshot_id, time_ns, directory, metadata, numbers, sides[0], sides[1])

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def rows(self) -> I8:
        """Of the directory."""
        return self.directory.rows_of(self.numbers)

    @cached_property
    def names(self) -> list[str]:
        """What the PVs were called then."""
        return [self.directory.names[row] for row in self.rows.tolist()]

    @cached_property
    def row_encoder(self) -> RowEncoder:
        """Encodes its values; for the event loop only."""
        return RowEncoder(self.names, self.numbers)

    @cached_property
    def selector_index(self) -> SelectorIndex:
        """The PVs by what they were called then."""
        directory, rows = self.directory, self.rows.tolist()
        return SelectorIndex(
            numbers=self.numbers,
            names=self.names,
            setpoint_addresses=[directory.setpoint_address[row] for row in rows],
            readback_addresses=[directory.readback_address[row] for row in rows],
            devices=[directory.devices[row] for row in rows],
        )


@dataclass(frozen=True, slots=True)
class DriftCounts:
    """How many PVs differ; `stale` of them all cannot be believed."""

    summary: Summary
    stale: int


@dataclass(frozen=True, slots=True)
class DriftWanted:
    """What a client asked for."""

    reference: bytes
    """A `drey.common.v1.StateRef`, encoded; which snapshot it is, its owner says."""
    reference_text: str
    golden: bool
    """The reference may become another one."""
    selector: Selector | None
    tolerances: DriftTolerances
    hysteresis: float
    min_interval_s: float
    token: Token | None

    @property
    def needs_catalog(self) -> bool:
        """Whether what is chosen changes with the catalog."""
        return self.selector is not None and needs_catalog(self.selector)


@dataclass(slots=True)
class DriftPosition:
    """What one watcher has been sent."""

    turn: int = -1
    changes: int = 0
    """Of all rows that it watches, up to `turn`."""


@dataclass(frozen=True, slots=True)
class DriftStep:
    """What a watcher lacks: rows of the table to send, numbers of PVs that left."""

    rows: I8
    left: I8
    merged: int = 0


def _row_labels(labels: LabelSource, channels: I8) -> Callable[[int], tuple[bytes, ...]]:
    return lambda row: labels(int(channels[row]))


class DriftTable:
    """The comparison of the live machine with one reference; arrays of shape (2, n) are setpoints
    and readbacks of its PVs."""

    def __init__(
        self,
        reference: Reference,
        live: LiveState,
        tolerances: DriftTolerances = DriftTolerances.REFERENCE,
        hysteresis: float = 1.0,
    ) -> None:
        n = len(reference)
        self.reference, self.tolerances, self.hysteresis = reference, tolerances, hysteresis
        self.turn = 0
        self.instant = 0
        """Grows with each `advance`."""
        self.generation = -1
        """Of the directory that it compares by."""
        self.stale: frozenset[int] = frozenset()
        self._live = live
        self._counter = self._metadata_generation = -1
        self._stored = (reference.setpoint, reference.readback)
        self._rows = DriftRowEncoder(reference.row_encoder, reference.numbers, *self._stored)
        self._channels = np.zeros((2, n), np.int64)
        self._slots = np.zeros((2, n), np.int64)
        self._absolute, self._relative = np.zeros((2, n)), np.zeros((2, n))
        self._classes = np.zeros((2, n), np.uint8)
        self._deviations = np.full((2, n), np.nan)
        self._over = np.zeros((2, n), bool)
        """Differed when last compared, and has not come back below the hysteresis since."""
        self._listed = np.zeros(n, bool)
        self._freshness = np.full(n, FRESH, np.uint8)
        self._versions = np.zeros(n, np.int64)
        """Turn in which a row last changed, or left."""
        self._changes = np.zeros(n, np.int64)
        self._positions: Mapping[int, Point] = {}
        self._seen: Mapping[int, Point] = {}
        self._manner = b""
        self._counts: dict[tuple[bytes, frozenset[int]], DriftCounts] = {}
        self._all: WatchSelection | None = None

    def __len__(self) -> int:
        return len(self.reference)

    # --- keeping up ---

    def advance_classes(self, stale: frozenset[int]) -> bool:
        """Compare what has changed, at once; whether anything of it can be told."""
        self.instant += 1
        live, image = self._live, self._live.image
        bound = self.generation == live.generation
        news = not bound or stale != self.stale
        moved = np.zeros(len(self), bool) if bound else self._bind_directory()
        streams = enumerate(shard.stream for shard in live.shards)
        points = {n: (stream.known_position, stream.newest_point) for n, stream in streams}
        self._positions = {n: position for n, (position, _) in points.items()}
        self._seen = {n: seen for n, (_, seen) in points.items()}
        if self._metadata_generation != live.metadata_generation:
            self._metadata_generation, self._manner = live.metadata_generation, b""
        if image.counter != self._counter:
            moved |= (image.version[self._slots] > self._counter).any(axis=0)
            self._counter = image.counter
        dirty = np.flatnonzero(moved) if bound else np.arange(len(self))
        refreshed = self._mark_freshness(stale, bound)
        changed = self._compare_rows(dirty, moved[dirty])
        self._encode_rows(np.union1d(changed, refreshed))
        if len(changed):
            self.turn += 1
            self._versions[changed] = self.turn
            self._changes[changed] += 1
        if len(dirty):
            self._counts.clear()
        return news or len(changed) > 0

    def _bind_directory(self) -> Mask:
        """Look the PVs up in the present directory; of which rows more than values is new."""
        live = self._live
        directory, reference = live.directory, self.reference
        rows = directory.rows_of(reference.numbers)
        here = rows >= 0
        directory_rows = rows[here]
        channels = np.zeros_like(self._channels)
        channels[0, here] = directory.setpoint_channel[directory_rows]
        channels[1, here] = directory.readback_channel[directory_rows]
        news: Mask = (channels != self._channels).any(axis=0)
        self._channels = channels
        self._slots = np.stack([live.image.slots_of_channels(channel) for channel in channels])
        self._absolute, self._relative = self._look_up_tolerances(here, directory_rows)
        names = [
            directory.names[row] if row >= 0 else name
            for row, name in zip(rows.tolist(), reference.names, strict=True)
        ]
        news |= self._rows.rename_rows(names)
        self.generation = live.generation
        self._manner, self._all = b"", None
        self._counts.clear()
        return news

    def _look_up_tolerances(self, here: Mask, directory_rows: I8) -> tuple[F8, F8]:
        absolute, relative = np.zeros(self._channels.shape), np.zeros(self._channels.shape)
        if self.tolerances is DriftTolerances.EXACT:
            return absolute, relative
        if self.tolerances is DriftTolerances.REFERENCE:
            directory, rows = self.reference.directory, self.reference.rows
            here = np.ones(len(self), bool)
        else:
            directory, rows = self._live.directory, directory_rows
        for role, columns in enumerate(
            (directory.setpoint_tolerance, directory.readback_tolerance)
        ):
            absolute[role, here], relative[role, here] = columns[0][rows], columns[1][rows]
        return absolute, relative

    def _mark_freshness(self, stale: frozenset[int], bound: bool) -> I8:
        """Note which shards are stale; the listed rows of which that is news."""
        if stale == self.stale and bound:
            return np.zeros(0, np.int64)
        count = self._live.shard_count
        codes = np.zeros(count, bool)
        codes[[shard for shard in stale if shard < count]] = True
        hit = codes[shard_of_page(self._channels >> PAGE_SHIFT, count)] & (self._channels > 0)
        freshness = np.where(hit.any(axis=0), STALE, FRESH).astype(np.uint8)
        news = (freshness != self._freshness) & self._listed
        self._freshness, self.stale = freshness, stale
        self._counts.clear()
        return np.flatnonzero(news)

    def _compare_rows(self, rows: I8, moved: Mask) -> I8:
        """Compare some rows; those that are listed and not what they were, or that left.

        `moved`: where the values, or what belongs to them, are others now.
        """
        image, metadata, reference = self._live.image, self._live.metadata, self.reference
        was_listed = self._listed[rows]
        classes, deviations = self._classes[:, rows], self._deviations[:, rows]
        for role in (0, 1):
            stored, channels = self._stored[role].take_rows(rows), self._channels[role, rows]
            result = compare(
                stored,
                image.columns_of_channels(channels),
                self._absolute[role, rows],
                self._relative[role, rows],
                reference_labels=_row_labels(reference.metadata.labels, stored.key),
                other_labels=_row_labels(metadata.labels, channels),
            )
            self._classes[role, rows], self._deviations[role, rows] = result.cls, result.deviation
            over = self._over[role, rows] & ~self._is_back(result.cls, result.deviation)
            self._over[role, rows] = over | (result.cls == _DIFFERENT)
        told = self._told_classes(rows)
        listed = (told > _WITHIN).any(axis=0)
        self._listed[rows] = listed
        now = self._deviations[:, rows]
        alike = (deviations == now) | (np.isnan(deviations) & np.isnan(now))
        alike &= classes == self._classes[:, rows]
        changed: I8 = rows[(listed & (moved | ~alike.all(axis=0))) | (was_listed & ~listed)]
        return changed

    def _is_back(self, classes: U1, deviations: F8) -> Mask:
        """Whether channels that differed are the same again; one that is away is not."""
        within = classes == _WITHIN
        if self.hysteresis < 1:
            within &= deviations < self.hysteresis
        mask: Mask = within | (classes == _EQUAL)
        return mask

    def _told_classes(self, rows: I8) -> U1:
        """Classes of channels as they count: what the hysteresis holds is DIFFERENT."""
        classes = self._classes[:, rows]
        held = self._over[:, rows] & (classes == _WITHIN)
        return np.where(held, np.uint8(_DIFFERENT), classes)

    def _encode_rows(self, rows: I8) -> None:
        """Encode the rows that are listed, forget the bytes of the others."""
        listed = rows[self._listed[rows]]
        self._rows.forget_rows(rows[~self._listed[rows]])
        if len(listed) == 0:
            return
        image = self._live.image
        self._rows.encode_rows(
            listed,
            (
                image.columns_of_channels(self._channels[0, listed]),
                image.columns_of_channels(self._channels[1, listed]),
            ),
            self._channels[:, listed] > 0,
            self._freshness[listed],
            self._classes[:, listed],
            np.fmax(self._deviations[0, listed], self._deviations[1, listed]),
            (self._told_classes(listed) == _DIFFERENT).any(axis=0),
            (self._live.metadata.labels, self.reference.metadata.labels),
        )

    # --- for one watcher ---

    def select_rows(self, rows: I8 | None) -> WatchSelection:
        """The PVs of a watcher by row, ascending; None: all. Good until the directory changes."""
        if rows is None and self._all is not None:
            return self._all
        chosen = np.arange(len(self)) if rows is None else rows
        pvs = WatchedPvs(self.reference.numbers, self._channels[0], self._channels[1])
        selection = WatchSelection.of_channels(
            chosen, pvs, self._live.image, self._live.shard_count, self.manner
        )
        if rows is None:
            self._all = selection
        return selection

    @property
    def manner(self) -> bytes:
        """Stands for what a comparison depends on beside the values, in tokens."""
        if not self._manner:
            digest = hashlib.blake2b(digest_size=16, person=b"drey-drift")
            digest.update(self.reference.snapshot_id.encode())
            digest.update(struct.pack("<Bd", self.tolerances, self.hysteresis))
            digest.update("\0".join(self._rows.names).encode(errors="replace"))
            digest.update(self._absolute.tobytes() + self._relative.tobytes())
            for channel in self._enum_channels():
                digest.update(struct.pack("<q", channel))
                digest.update(b"\0".join(self._live.metadata.labels(channel)) + b"\0\0")
            self._manner = digest.digest()
            self._all = None
        return self._manner

    def _enum_channels(self) -> list[int]:
        """Channels that were enumerations; their labels now decide on what is the same."""
        channels: list[int] = []
        for role, stored in enumerate(self._stored):
            enums = (stored.kind == Kind.ENUM) | (stored.kind == Kind.ENUM | ARRAY)
            channels += self._channels[role, enums].tolist()
        return channels

    def baseline_rows(self, selection: WatchSelection, position: DriftPosition) -> I8:
        """Rows of all PVs that are not the same, as sent now: a baseline."""
        self._note_sent(selection, position)
        return selection.rows[self._listed[selection.rows]]

    def since_token(
        self, selection: WatchSelection, position: DriftPosition, token: Token
    ) -> DriftStep:
        """What the token lacks, as sent now. The token must be `honourable`."""
        image, count = self._live.image, self._live.shard_count
        channels = np.stack([selection.setpoints, selection.readbacks])
        shard = shard_of_page(channels >> PAGE_SHIFT, count)
        epochs, sequences = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
        for number, (epoch, sequence) in token.positions.items():
            epochs[number], sequences[number] = epoch, sequence
        lacking = image.stamped_after(selection.slots, epochs[shard], sequences[shard])
        # whether these differ depends on what was before, which another gateway may have seen
        classes = self._classes[:, selection.rows]
        lacking |= (classes == _WITHIN) & (self._deviations[:, selection.rows] >= self.hysteresis)
        self._note_sent(selection, position)
        return self._split_rows(selection.rows[lacking.any(axis=0)], 0)

    def next_step(self, selection: WatchSelection, position: DriftPosition) -> DriftStep:
        """What changed since the last call, as sent now."""
        if position.turn == self.turn:
            return DriftStep(np.zeros(0, np.int64), np.zeros(0, np.int64))
        rows = selection.rows[self._versions[selection.rows] > position.turn]
        before = position.changes
        self._note_sent(selection, position)
        return self._split_rows(rows, max(position.changes - before - len(rows), 0))

    def reselect_rows(
        self, old: WatchSelection, new: WatchSelection, position: DriftPosition
    ) -> DriftStep:
        """Watch other rows: what joins, and what leaves. The old ones were sent, by `step`."""
        joined = np.setdiff1d(new.rows, old.rows, assume_unique=True)
        left = np.setdiff1d(old.rows, new.rows, assume_unique=True)
        self._note_sent(new, position)
        gone = left[self._listed[left]]
        return DriftStep(joined[self._listed[joined]], self.reference.numbers[gone])

    def _split_rows(self, rows: I8, merged: int) -> DriftStep:
        listed = self._listed[rows]
        return DriftStep(rows[listed], self.reference.numbers[rows[~listed]], merged)

    def _note_sent(self, selection: WatchSelection, position: DriftPosition) -> None:
        position.turn = self.turn
        position.changes = int(self._changes[selection.rows].sum())

    def row_bytes(self, rows: I8) -> list[bytes]:
        """`DriftRow`s as field `rows = 1`; of PVs that are not the same only."""
        return self._rows.row_bytes(rows)

    def counts(self, selection: WatchSelection) -> DriftCounts:
        """How many of the PVs differ."""
        key = selection.digest, self.stale
        counts = self._counts.get(key)
        if counts is None:
            told = self._told_classes(selection.rows)
            every = np.ones(len(selection), bool)
            counts = DriftCounts(
                summarise_classes(told[0], every, told[1], every),
                len(stale_numbers(selection, self.stale, self._live.shard_count)),
            )
            self._counts[key] = counts
        return counts

    def token(self, selection: WatchSelection) -> Token:
        """Where a watcher stands that has been sent all that this table has."""
        return Token(
            selection.digest,
            {shard: self._positions[shard] for shard in selection.shards},
            {shard: self._seen[shard] for shard in selection.shards},
        )
