"""Rows encoded once: the bytes of a PV's rows, shared by every watcher that is sent them.

A PV has up to three rows, each encoded when somebody lacks what it holds: its setpoint alone, its
readback alone, and both. So a setpoint's change sends and encodes no readback. The first watcher
that asks has them encoded together with those of all others that changed and that anybody watches,
in one vectorised go.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT, Directory, LabelSource
from drey_core.pages import PAGE_SHIFT, shard_of_page
from drey_core.values import I8
from drey_core.wire import RowEncoder
from drey_gateway.domain.image import LiveImage
from drey_gateway.domain.watch import BOTH, READBACK, SETPOINT, Fields
from drey_gateway.domain.wire import TakenColumns

FRESH = 1
STALE = 2


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
        self._setpoint = directory.setpoint_channel if fields.setpoint else none
        self._readback = directory.readback_channel if fields.readback else none
        self._encoder = RowEncoder(directory.names, directory.pv_number)
        pages = np.stack([self._setpoint, self._readback]) >> PAGE_SHIFT
        self._shards = shard_of_page(pages, shard_count)
        self._slots = np.stack([image.slots(self._setpoint), image.slots(self._readback)])
        self._has = (self._setpoint > 0) * SETPOINT + (self._readback > 0) * READBACK
        # by which channels a row holds (0: none), and PV
        self._bytes: NDArray[Any] = np.full((BOTH + 1, n), b"", object)
        self._as_of = np.full((BOTH + 1, n), -1, np.int64)
        self._freshness = np.zeros((BOTH + 1, n), np.uint8)
        self._watchers = np.zeros(n, np.int32)
        self._counter = 0
        """Of the image, when what is watched was last encoded."""
        self.encoded = 0

    def watch(self, rows: I8) -> None:
        """Encode these PVs' rows with the others from now on, each once; `leave` ends it."""
        self._watchers[rows] += 1

    def leave(self, rows: I8) -> None:
        """One watcher less for these."""
        self._watchers[rows] -= 1

    def rows(self, rows: I8, channels: I8, stale: frozenset[int]) -> list[bytes]:
        """The bytes of some PVs' rows as they are now, each with those of its `channels` (bits)
        that it has; `stale` are shards."""
        held = channels & self._has[rows]
        if self._outdated_rows(rows, held, self._row_freshness(rows, stale)).any():
            self._renew_rows(rows, held, stale)
        row_bytes: list[bytes] = self._bytes[held, rows].tolist()
        return row_bytes

    def columns(self, rows: I8, channels: I8, stale: frozenset[int]) -> TakenColumns:
        """The values of some PVs as they are now, as `rows` but in columns; nothing is kept."""
        held = channels & self._has[rows]
        index, role = np.nonzero(_held_bits(held).T)
        chosen = rows[index]
        both = np.stack([self._setpoint, self._readback])
        return TakenColumns(
            self._numbers[chosen],
            np.array([ROLE_SETPOINT, ROLE_READBACK], np.uint8)[role],
            self._image.columns(both[role, chosen]),
            self._row_freshness(rows, stale)[index],
        )

    def _row_freshness(self, rows: I8, stale: frozenset[int]) -> NDArray[np.uint8]:
        """Freshness of each row."""
        if not stale:
            return np.full(len(rows), FRESH, np.uint8)
        codes = np.zeros(int(self._shards.max(initial=0)) + 1, bool)
        codes[[s for s in stale if s < len(codes)]] = True
        there = np.stack([self._setpoint[rows], self._readback[rows]]) > 0
        hit = codes[self._shards[:, rows]] & there
        return np.where(hit.any(axis=0), STALE, FRESH).astype(np.uint8)

    def _outdated_rows(self, rows: I8, held: I8, freshness: NDArray[np.uint8]) -> NDArray[np.bool_]:
        as_of = self._as_of[held, rows]
        version = np.where(_held_bits(held), self._image.version[self._slots[:, rows]], 0).max(
            axis=0
        )
        old: NDArray[np.bool_] = (version > as_of) | (as_of < 0)
        old |= freshness != self._freshness[held, rows]
        return old

    def _renew_rows(self, rows: I8, held: I8, stale: frozenset[int]) -> None:
        """Encode what is outdated among these and, once a change, all that is watched."""
        counter = self._image.counter
        wanted = np.zeros(self._bytes.shape, bool)
        if self._counter != counter:
            watched = np.flatnonzero(self._watchers > 0)
            changed = self._image.version[self._slots[:, watched]] > self._counter
            wanted[changed[0] * SETPOINT + changed[1] * READBACK, watched] = True
            wanted[0] = False
        wanted[held, rows] = True
        held, rows = np.nonzero(wanted)
        freshness = self._row_freshness(rows, stale)
        outdated = self._outdated_rows(rows, held, freshness)
        held, rows, freshness = held[outdated], rows[outdated], freshness[outdated]
        there = _held_bits(held)
        setpoint, readback = np.where(there, np.stack([self._setpoint, self._readback])[:, rows], 0)
        encoded = self._encoder.encode(
            rows,
            self._image.columns(setpoint) if setpoint.any() else None,
            self._image.columns(readback) if readback.any() else None,
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
