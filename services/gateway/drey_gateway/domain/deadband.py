"""Dead-bands: which changes of numbers are too small to be sent. Pure.

What a client holds of a number is within the dead-band of what is so, always: a change is
measured against what was sent last, not against the change before. Only numbers have a dead-band; a
change of state, severity or status passes, and so does every change of a string, an enumeration, a
truth value or an array.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import Directory
from drey_core.tolerance import F8, number_difference
from drey_core.values import I8, U1, Kind, numeric_mask
from drey_gateway.domain.image import FIXED_DTYPE, LiveImage

Mask = NDArray[np.bool_]
_ALARM = ("state", "severity", "status")


@dataclass(frozen=True, slots=True)
class Deadband:
    """What a change has to exceed: the sum of the three, of which a client says one."""

    absolute: float = 0.0
    relative: float = 0.0
    tolerances: float = 0.0

    @property
    def manner(self) -> bytes:
        """Stands for it in tokens: what is held under another dead-band may be further off."""
        return struct.pack("<ddd", self.absolute, self.relative, self.tolerances)

    def value_bounds(self, rows: I8, directory: Directory) -> tuple[F8, F8]:
        """(absolute, relative) of PVs by row of the directory, shape (2, n)."""
        absolute, relative = (
            np.stack([directory.setpoint_tolerance[i][rows], directory.readback_tolerance[i][rows]])
            for i in (0, 1)
        )
        return (
            self.absolute + self.tolerances * absolute,
            self.relative + self.tolerances * relative,
        )


class DeadbandFilter:
    """What was sent last of the channels of one watch; all arrays of shape (2, n)."""

    def __init__(self, deadband: Deadband, channels: I8, rows: I8, directory: Directory) -> None:
        self._deadband, self._channels = deadband, channels
        self._absolute, self._relative = deadband.value_bounds(rows, directory)
        # of kind NONE: it is not known what the client holds
        self._sent = np.zeros(channels.shape, FIXED_DTYPE)
        self._recheck = False

    def followed_by(
        self, channels: I8, rows: I8, directory: Directory, old_at: I8, new_at: I8
    ) -> DeadbandFilter:
        """The filter of another selection, in which PVs at `old_at` are at `new_at`."""
        new = DeadbandFilter(self._deadband, channels, rows, directory)
        new._sent[:, new_at] = self._sent[:, old_at]
        # tolerances may be others now
        new._recheck = True
        return new

    def note_sent(self, index: I8, image: LiveImage) -> None:
        """All channels of the PVs at `index` are sent as they are now."""
        self._sent[:, index] = image.fixed_values(self._channels[:, index])

    def passing_mask(self, lacking: Mask, image: LiveImage) -> Mask:
        """Which of the changed channels are to be sent; they are taken as sent."""
        held = self._sent
        if self._recheck:
            unknown = (held["kind"] == Kind.NONE) & (self._channels > 0)
            lacking = lacking | _banded_kinds(held["kind"]) | unknown
            self._recheck = False
        lacking_rows = np.nonzero(lacking)
        before, now = held[lacking_rows], image.fixed_values(self._channels[lacking_rows])
        numbers = _banded_kinds(before["kind"]) & _banded_kinds(now["kind"])
        for name in _ALARM:
            numbers &= before[name] == now[name]
        rows = np.flatnonzero(numbers)
        within = np.zeros(len(now), bool)
        within[rows] = number_difference(
            before["kind"][rows],
            before["data"][rows],
            now["kind"][rows],
            now["data"][rows],
            self._absolute[lacking_rows][rows],
            self._relative[lacking_rows][rows],
        ).within
        out = np.zeros(lacking.shape, bool)
        out[lacking_rows] = ~within
        held[out] = now[~within]
        return out


def _banded_kinds(kind: U1) -> Mask:
    mask: Mask = numeric_mask(kind) & (kind != Kind.BOOL)
    return mask
