"""Limits of arrays: how much of them a watch is sent, and how often. Pure.

An array that may not be sent yet is held back, and is sent as it is then when it may be: the last
value always comes. So that the client may go on from its token, that names the instant before the
oldest change that is held back, and other gateways send what came after it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drey_core.extracts import ArrayShape, sent_bytes
from drey_core.values import ARRAY, I8
from drey_gateway.domain.image import FIXED_DTYPE, LiveImage, Mask
from drey_gateway.domain.resume import Point, Token

MAX_WAIT_S = 3600.0
_ALWAYS_TOLD = ("kind", "state", "severity", "status")


@dataclass(frozen=True, slots=True)
class ArrayLimits:
    """What a client asked for. `shape` None: arrays are sent whole; `bytes_per_s` 0: any number."""

    shape: ArrayShape | None = None
    min_interval_s: float = 0.0
    bytes_per_s: int = 0

    @property
    def manner(self) -> bytes:
        """Stands for what of an array is held, in tokens."""
        if self.shape is None:
            return b""
        return struct.pack("<BIB", 1, self.shape.max_elements, self.shape.decimation)

    @property
    def is_paced(self) -> bool:
        """Whether arrays may have to wait."""
        return self.min_interval_s > 0 or self.bytes_per_s > 0


class ArrayPacer:
    """Which arrays of one watch wait; arrays of shape (2, n). Times are of one monotonic clock."""

    def __init__(self, limits: ArrayLimits, channels: I8) -> None:
        self._limits, self._channels = limits, channels
        self.held: Mask = np.zeros(channels.shape, bool)
        # of kind NONE: it is not known what the client holds
        self._sent = np.zeros(channels.shape, FIXED_DTYPE)
        self._due = np.full(channels.shape, -math.inf)
        self._paid_at = -math.inf
        """When the bytes per second have paid for what was sent."""
        self._cut = 0
        self._held_since = np.zeros(channels.shape, np.int64)
        """The last instant at which the client had what is held back now."""
        self._cuts: dict[int, Mapping[int, Point]] = {}
        """The positions of these instants, and of the last one."""

    def followed_by(self, channels: I8, old_at: I8, new_at: I8) -> ArrayPacer:
        """The pacer of another selection, in which PVs at `old_at` are at `new_at`."""
        new = ArrayPacer(self._limits, channels)
        for name in ("held", "_sent", "_due", "_held_since"):
            getattr(new, name)[:, new_at] = getattr(self, name)[:, old_at]
        new._paid_at, new._cut, new._cuts = self._paid_at, self._cut, self._cuts
        return new

    def note_sent(self, sent: Mask, image: LiveImage, now: float) -> None:
        """These channels are sent as they are now, whatever the limits say."""
        self._note_sent(sent, image.fixed_values(self._channels[sent]), now)

    def passing_mask(self, lacking: Mask, image: LiveImage, now: float) -> Mask:
        """Which of the changed channels, and of those held back, are to be sent; they are taken as
        sent, and the others wait."""
        lacking = lacking | self.held
        at = np.nonzero(lacking)
        before, values = self._sent[at], image.fixed_values(self._channels[at])
        waits = _is_array(values) & (now < np.maximum(self._due[at], self._paid_at))
        for name in _ALWAYS_TOLD:
            waits &= before[name] == values[name]
        out = lacking.copy()
        out[at] = ~waits
        held = lacking & ~out
        self._held_since[held & ~self.held] = self._cut
        self.held = held
        arrays = self._note_sent(out, values[~waits], now)
        if self._limits.bytes_per_s and len(arrays):
            size = sent_bytes(arrays["kind"], arrays["data"], self._limits.shape)
            paid_at = max(self._paid_at, now) + size / self._limits.bytes_per_s
            self._paid_at = min(paid_at, now + MAX_WAIT_S)
        return out

    def _note_sent(self, sent: Mask, values: NDArray[np.void], now: float) -> NDArray[np.void]:
        """The arrays among what is sent."""
        self._sent[sent] = values
        self._due[sent] = now + self._limits.min_interval_s
        self.held &= ~sent
        arrays: NDArray[np.void] = values[_is_array(values)]
        return arrays

    def next_due(self) -> float:
        """When something that is held back may be sent; infinite where nothing is."""
        if not self.held.any():
            return math.inf
        return max(float(self._due[self.held].min()), self._paid_at)

    def cut_instant(self, now: Token) -> Token:
        """The token of an instant at which everything was sent but for what is held back.

        Call it after each `passing`.
        """
        self._cut += 1
        waiting = np.unique(self._held_since[self.held]).tolist()
        self._cuts = {cut: self._cuts[cut] for cut in waiting}
        positions = dict(now.positions)
        # the oldest last: shards that the watch had not yet then are as later ones say
        for cut in reversed(waiting):
            positions |= {s: p for s, p in self._cuts[cut].items() if s in positions}
        self._cuts[self._cut] = now.positions
        return replace(now, positions=positions)


def _is_array(values: NDArray[np.void]) -> Mask:
    mask: Mask = values["kind"] & ARRAY != 0
    return mask
