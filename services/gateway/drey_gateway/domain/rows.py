"""Rows encoded once: the bytes of a PV's rows, shared by every watcher that is sent them.

A PV has up to three rows, each encoded when somebody lacks what it holds: its setpoint alone, its
readback alone, and both. So a setpoint's change sends and encodes no readback. The first watcher
that asks has them encoded together with those of all others that changed and that anybody watches,
in one vectorised go.

Who limits arrays is sent the same bytes, but for the rows with an array above the limit: of these
there is one more for each limit that anybody has, encoded of an extract when it is first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT, Directory, LabelSource
from drey_core.extracts import ArrayShape, most_elements
from drey_core.pages import PAGE_SHIFT, shard_of_page
from drey_core.values import ARRAY, I8, Columns, heap_mask, pack_heap
from drey_core.wire import RowEncoder
from drey_core.wire_values import object_array
from drey_gateway.domain.image import LiveImage
from drey_gateway.domain.watch import BOTH, READBACK, SETPOINT, Fields
from drey_gateway.domain.wire import TakenColumns

FRESH = 1
STALE = 2
SHARED_SHAPES = 32
"""Most shapes of which extracts are kept; who comes with another one pays for his alone."""


@dataclass(slots=True)
class _ShapedArrays:
    """What is kept for all watchers with one limit, of the arrays above it only."""

    watchers: int = 0
    extracts: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)
    """By channel: version of its slot, kind, heap bytes."""
    rows: dict[tuple[int, int], tuple[int, int, bytes]] = field(default_factory=dict)
    """By channels held and PV: version of the values, freshness, bytes."""


class RowCache:
    """Encoded rows of one directory for one choice of fields."""

    def __init__(
        self,
        directory: Directory,
        image: LiveImage,
        labels: LabelSource,
        fields: Fields,
        shard_count: int,
    ) -> None:
        n = len(directory)
        none = np.zeros(n, np.int64)
        self._image, self._labels = image, labels
        self._numbers = directory.pv_number
        setpoint = directory.setpoint_channel if fields.setpoint else none
        readback = directory.readback_channel if fields.readback else none
        self._channels = np.stack([setpoint, readback])
        self._encoder = RowEncoder(directory.names, directory.pv_number)
        self._shards = shard_of_page(self._channels >> PAGE_SHIFT, shard_count)
        self._slots = np.stack(
            [image.slots_of_channels(setpoint), image.slots_of_channels(readback)]
        )
        self._has = (setpoint > 0) * SETPOINT + (readback > 0) * READBACK
        # by which channels a row holds (0: none), and PV
        self._bytes: NDArray[Any] = np.full((BOTH + 1, n), b"", object)
        self._as_of = np.full((BOTH + 1, n), -1, np.int64)
        self._freshness = np.zeros((BOTH + 1, n), np.uint8)
        self._watchers = np.zeros(n, np.int32)
        self._limited_watchers = np.zeros(n, np.int32)
        self._shaped: dict[ArrayShape, _ShapedArrays] = {}
        self._counter = 0
        """Of the image, when what is watched was last encoded."""
        self.encoded = 0

    def watch_rows(self, rows: I8, shape: ArrayShape | None = None) -> None:
        """Encode these PVs' rows with the others from now on, each once; `leave` ends it."""
        self._count_watcher(rows, shape, 1)

    def leave_rows(self, rows: I8, shape: ArrayShape | None = None) -> None:
        """One watcher less for these."""
        self._count_watcher(rows, shape, -1)

    def _count_watcher(self, rows: I8, shape: ArrayShape | None, more: int) -> None:
        if shape is None:
            self._watchers[rows] += more
            return
        self._limited_watchers[rows] += more
        shaped = self._shaped.setdefault(shape, _ShapedArrays())
        shaped.watchers += more
        if shaped.watchers == 0:
            del self._shaped[shape]

    def _shared_arrays(self, shape: ArrayShape) -> _ShapedArrays:
        """What is kept for a shape; for one too many, something that is kept by nobody."""
        for index, known_shape in enumerate(self._shaped):
            if known_shape == shape and index < SHARED_SHAPES:
                return self._shaped[shape]
        return _ShapedArrays()

    def rows(
        self, rows: I8, channels: I8, stale: frozenset[int], shape: ArrayShape | None = None
    ) -> list[bytes]:
        """The bytes of some PVs' rows as they are now, each with those of its `channels` (bits)
        that it has, arrays in a shape; `stale` are shards."""
        held = channels & self._has[rows]
        if shape is None:
            return self._whole_rows(rows, held, stale)
        large = self._large_arrays(rows, held, shape)
        out = np.empty(len(rows), object)
        out[~large] = object_array(self._whole_rows(rows[~large], held[~large], stale))
        if large.any():
            limited = self._limited_rows(rows[large], held[large], stale, shape)
            out[large] = object_array(limited)
        row_bytes: list[bytes] = out.tolist()
        return row_bytes

    def _whole_rows(self, rows: I8, held: I8, stale: frozenset[int]) -> list[bytes]:
        if self._outdated_rows(rows, held, self._row_freshness(rows, stale)).any():
            self._renew_rows(rows, held, stale)
        row_bytes: list[bytes] = self._bytes[held, rows].tolist()
        return row_bytes

    def taken_columns(
        self, rows: I8, channels: I8, stale: frozenset[int], shape: ArrayShape | None = None
    ) -> TakenColumns:
        """The values of some PVs as they are now, as `rows` but in columns; of these only extracts
        are kept."""
        held = channels & self._has[rows]
        index, role = np.nonzero(_held_bits(held).T)
        chosen = rows[index]
        wanted = self._channels[role, chosen]
        return TakenColumns(
            self._numbers[chosen],
            np.array([ROLE_SETPOINT, ROLE_READBACK], np.uint8)[role],
            self._image.columns_of_channels(wanted)
            if shape is None
            else self._limited_columns(wanted, shape, self._shared_arrays(shape)),
            self._row_freshness(rows, stale)[index],
        )

    def _large_arrays(self, rows: I8, held: I8, shape: ArrayShape) -> NDArray[np.bool_]:
        """Which rows may hold an array above the limit."""
        fixed = self._image.fixed_values(self._held_channels(rows, held))
        counts = most_elements(fixed["kind"], fixed["data"])
        large: NDArray[np.bool_] = np.any(counts > shape.max_elements, axis=0)
        return large

    def _limited_rows(
        self, rows: I8, held: I8, stale: frozenset[int], shape: ArrayShape
    ) -> list[bytes]:
        """As `_whole_rows`, of rows with large arrays."""
        shaped, freshness = self._shared_arrays(shape), self._row_freshness(rows, stale)
        keys = list(zip(held.tolist(), rows.tolist(), strict=True))
        as_of = list(zip(self._row_versions(rows, held).tolist(), freshness.tolist(), strict=True))
        old = [i for i, key in enumerate(keys) if shaped.rows.get(key, ())[:2] != as_of[i]]
        if old:
            encoded = self._encode_limited(rows[old], held[old], freshness[old], shape, shaped)
            for i, row in zip(old, encoded, strict=True):
                shaped.rows[keys[i]] = (*as_of[i], row)
        return [shaped.rows[key][2] for key in keys]

    def _encode_limited(
        self,
        rows: I8,
        held: I8,
        freshness: NDArray[np.uint8],
        shape: ArrayShape,
        shaped: _ShapedArrays,
    ) -> list[bytes]:
        there, channels = _held_bits(held), self._held_channels(rows, held)
        self.encoded += len(rows)
        return self._encoder.encode_rows(
            rows,
            self._limited_columns(channels[0], shape, shaped),
            self._limited_columns(channels[1], shape, shaped),
            freshness,
            sp_present=there[0],
            rb_present=there[1],
            labels=self._labels,
        )

    def _limited_columns(self, channels: I8, shape: ArrayShape, shaped: _ShapedArrays) -> Columns:
        """Values of channels, large arrays as extracts. No other heap is copied."""
        image = self._image
        bare = image.table.columns_of_channels(channels, with_heap=False)
        in_heap = np.flatnonzero(heap_mask(bare.kind))
        if len(in_heap) == 0:
            return bare
        kind, data, heap_values = bare.kind.copy(), bare.data.copy(), []
        large = most_elements(kind, data) > shape.max_elements
        versions = image.version[image.slots_of_channels(channels)]
        for index in in_heap.tolist():
            channel, version = int(channels[index]), int(versions[index])
            if not large[index]:
                heap_values.append(image.table.heap_value(channel))
                continue
            kept = shaped.extracts.get(channel)
            if kept is None or kept[0] != version:
                raw = image.table.heap_value(channel)
                kept = (version, *shape.extract_elements(int(kind[index]), raw))
                shaped.extracts[channel] = kept
            kind[index] = kept[1]
            heap_values.append(kept[2])
        data[in_heap], heap = pack_heap(heap_values)
        return replace(bare, kind=kind, data=data, heap=heap)

    def _row_freshness(self, rows: I8, stale: frozenset[int]) -> NDArray[np.uint8]:
        """Freshness of each row."""
        if not stale:
            return np.full(len(rows), FRESH, np.uint8)
        codes = np.zeros(int(self._shards.max(initial=0)) + 1, bool)
        codes[[s for s in stale if s < len(codes)]] = True
        hit = codes[self._shards[:, rows]] & (self._channels[:, rows] > 0)
        return np.where(hit.any(axis=0), STALE, FRESH).astype(np.uint8)

    def _held_channels(self, rows: I8, held: I8) -> I8:
        """The setpoint and the readback of each row where it is held, else 0; shape (2, n)."""
        return np.where(_held_bits(held), self._channels[:, rows], 0)

    def _outdated_rows(self, rows: I8, held: I8, freshness: NDArray[np.uint8]) -> NDArray[np.bool_]:
        as_of = self._as_of[held, rows]
        old: NDArray[np.bool_] = (self._row_versions(rows, held) > as_of) | (as_of < 0)
        old |= freshness != self._freshness[held, rows]
        return old

    def _row_versions(self, rows: I8, held: I8) -> I8:
        """When one of the channels held last changed, of each row."""
        versions = np.where(_held_bits(held), self._image.version[self._slots[:, rows]], 0)
        newest: I8 = versions.max(axis=0)
        return newest

    def _watched_rows(self) -> I8:
        """Rows that somebody is sent. Of those that only limited watchers watch not the ones with
        arrays: these are perhaps not sent whole to anybody."""
        watched = self._watchers > 0
        limited = np.flatnonzero((self._limited_watchers > 0) & ~watched)
        if len(limited):
            changed = (self._image.version[self._slots[:, limited]] > self._counter).any(axis=0)
            limited = limited[changed]
            arrays = self._image.fixed_values(self._channels[:, limited])["kind"] & ARRAY != 0
            watched[limited[~arrays.any(axis=0)]] = True
        return np.flatnonzero(watched)

    def _renew_rows(self, rows: I8, held: I8, stale: frozenset[int]) -> None:
        """Encode what is outdated among these and, once a change, all that is watched."""
        counter = self._image.counter
        wanted = np.zeros(self._bytes.shape, bool)
        if self._counter != counter:
            watched = self._watched_rows()
            changed = self._image.version[self._slots[:, watched]] > self._counter
            wanted[changed[0] * SETPOINT + changed[1] * READBACK, watched] = True
            wanted[0] = False
        wanted[held, rows] = True
        held, rows = np.nonzero(wanted)
        freshness = self._row_freshness(rows, stale)
        outdated = self._outdated_rows(rows, held, freshness)
        held, rows, freshness = held[outdated], rows[outdated], freshness[outdated]
        there, (setpoint, readback) = _held_bits(held), self._held_channels(rows, held)
        encoded = self._encoder.encode_rows(
            rows,
            self._image.columns_of_channels(setpoint) if setpoint.any() else None,
            self._image.columns_of_channels(readback) if readback.any() else None,
            freshness,
            sp_present=there[0],
            rb_present=there[1],
            labels=self._labels,
        )
        self._bytes[held, rows] = np.fromiter(encoded, object, len(encoded))
        self._as_of[held, rows] = counter
        self._freshness[held, rows] = freshness
        self.encoded += len(rows)
        # only now is it so: what could not be encoded would be served as it was, and as new
        self._counter = counter


def _held_bits(held: I8) -> NDArray[np.bool_]:
    """Whether the setpoint, and whether the readback is held; shape (2, n)."""
    return np.stack([held & SETPOINT, held & READBACK]) > 0
