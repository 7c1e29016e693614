"""Rows encoded once: the bytes of a PV's row, shared by every watcher that is sent it.

Rows are encoded when the first watcher asks, together with all others that changed and that
anybody watches, in one vectorised go.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import Directory, LabelSource
from drey_core.pages import PAGE_SHIFT, shard_of_page
from drey_core.values import I8
from drey_core.wire import RowEncoder
from drey_gateway.domain.image import LiveImage
from drey_gateway.domain.watch import Fields

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
        self._setpoint = directory.setpoint_channel if fields.setpoint else none
        self._readback = directory.readback_channel if fields.readback else none
        self._encoder = RowEncoder(directory.names, directory.pv_number)
        pages = np.stack([self._setpoint, self._readback]) >> PAGE_SHIFT
        self._shards = shard_of_page(pages, shard_count)
        self._slots = np.stack([image.slots(self._setpoint), image.slots(self._readback)])
        self._bytes: NDArray[Any] = np.full(n, b"", object)
        self._as_of = np.full(n, -1, np.int64)
        self._freshness = np.zeros(n, np.uint8)
        self._watchers = np.zeros(n, np.int32)
        self._counter = -1
        self._settled: frozenset[int] | None = None
        """The stale shards with which all watched rows are as of `_counter`; None: not all are."""
        self.encoded = 0

    def watch(self, rows: I8) -> None:
        """Encode these PVs' rows with the others from now on, each once; `leave` ends it."""
        self._watchers[rows] += 1
        self._settled = None

    def leave(self, rows: I8) -> None:
        """One watcher less for these."""
        self._watchers[rows] -= 1

    def rows(self, rows: I8, stale: frozenset[int]) -> list[bytes]:
        """The bytes of some PVs' rows as they are now; `stale` are shards."""
        if self._counter == self._image.counter and stale == self._settled:
            outdated = not self._watchers[rows].all()
        else:
            outdated = bool(self._outdated(rows, self._fresh(rows, stale)).any())
        if outdated:
            self._renew(rows, stale)
        found: list[bytes] = self._bytes[rows].tolist()
        return found

    def _fresh(self, rows: I8, stale: frozenset[int]) -> NDArray[np.uint8]:
        """Freshness of each row."""
        if not stale:
            return np.full(len(rows), FRESH, np.uint8)
        codes = np.zeros(int(self._shards.max(initial=0)) + 1, bool)
        codes[[s for s in stale if s < len(codes)]] = True
        there = np.stack([self._setpoint[rows], self._readback[rows]]) > 0
        hit = codes[self._shards[:, rows]] & there
        return np.where(hit.any(axis=0), STALE, FRESH).astype(np.uint8)

    def _outdated(self, rows: I8, freshness: NDArray[np.uint8]) -> NDArray[np.bool_]:
        version = self._image.version[self._slots[:, rows]].max(axis=0)
        old: NDArray[np.bool_] = version > self._as_of[rows]
        old |= self._as_of[rows] < 0
        old |= freshness != self._freshness[rows]
        return old

    def _renew(self, rows: I8, stale: frozenset[int]) -> None:
        """Encode what is outdated among `rows` and, once a change, all that is watched."""
        wanted = np.zeros(len(self._bytes), bool)
        changed = self._counter != self._image.counter
        if changed:
            wanted |= self._watchers > 0
        self._settled = None
        wanted[rows] = True
        chosen = np.flatnonzero(wanted)
        freshness = self._fresh(chosen, stale)
        outdated = self._outdated(chosen, freshness)
        chosen, freshness = chosen[outdated], freshness[outdated]
        setpoint, readback = self._setpoint[chosen], self._readback[chosen]
        encoded = self._encoder.encode(
            chosen,
            self._image.columns(setpoint) if setpoint.any() else None,
            self._image.columns(readback) if readback.any() else None,
            freshness,
            sp_present=setpoint > 0,
            rb_present=readback > 0,
            labels=self._labels,
        )
        self._bytes[chosen] = np.fromiter(encoded, object, len(encoded))
        self._as_of[chosen] = self._image.counter
        self._freshness[chosen] = freshness
        self.encoded += len(chosen)
        # only now is it so: what could not be encoded would be served as it was, and as new
        if changed:
            self._counter, self._settled = self._image.counter, stale
