"""When something that was written has settled: what it waits for holds long enough, and in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drey_core.values import I8
from drey_restore.domain.items import F8

Mask = NDArray[np.bool_]


class SettlingRows:
    """n rows that wait. Times in seconds of one clock that never goes back; shapes (n,).

    A row is settled once its condition has held at every look for `settle_s`, and late where it
    has not by `deadline`. Each is one of waiting, settled, late; and stays settled or late.
    """

    def __init__(self, settle_s: F8, deadline: F8) -> None:
        self._settle_s, self._deadline = settle_s, deadline
        self._since = np.full(len(settle_s), np.nan)
        self.settled = np.zeros(len(settle_s), bool)
        self.late = np.zeros(len(settle_s), bool)

    @property
    def waiting_rows(self) -> I8:
        """Rows that are neither settled nor late."""
        return np.flatnonzero(~self.settled & ~self.late)

    def note_readbacks(self, holds: Mask, now: float, *, known: Mask | None = None) -> None:
        """Whether the condition of each row that waits holds now; in the order of `waiting`.

        Where that is not `known` nothing changes but that a row may be late.
        """
        rows = self.waiting_rows
        known = np.ones(len(rows), bool) if known is None else known
        holds = holds & known
        self._since[rows[known & ~holds]] = np.nan
        begun = rows[holds & np.isnan(self._since[rows])]
        self._since[begun] = now
        long_enough = np.zeros(len(rows), bool)
        long_enough[holds] = now - self._since[rows[holds]] >= self._settle_s[rows[holds]]
        self.settled[rows[long_enough]] = True
        self.late[rows[~long_enough & (now >= self._deadline[rows])]] = True

    def give_up(self) -> None:
        """Nobody waits any longer: what is not settled is late."""
        self.late[self.waiting_rows] = True
