"""Judging values that were read: at its target, reached, or not to be compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drey_core.compare import DifferenceClass
from drey_core.values import U1, Columns, Kind

SAME = (DifferenceClass.EQUAL, DifferenceClass.WITHIN_TOLERANCE)
_NOTHING_TO_COMPARE = (
    DifferenceClass.UNSPECIFIED,
    DifferenceClass.ONLY_IN_OTHER,
    DifferenceClass.DISCONNECTED_IN_REFERENCE,
    DifferenceClass.DISCONNECTED_IN_BOTH,
    DifferenceClass.TYPE_CHANGED,
    DifferenceClass.NOT_COMPARABLE,
)


def alarm_is_worse(seen: Columns, allowed: U1) -> NDArray[np.bool_]:
    """Whether the alarm severity of each value that was read is worse than allowed; shapes (n,).

    A write that the driver refused shows in the alarm only. Without a value nothing is known.
    """
    worse: NDArray[np.bool_] = (seen.kind != Kind.NONE) & (seen.severity > allowed)
    return worse


def readback_reached(cls: U1) -> NDArray[np.int8]:
    """1: within tolerance of the stored readback, 0: not, -1: there is none to compare.

    `cls` are the classes of a comparison of the stored readback with the one that was read.
    """
    return np.where(
        np.isin(cls, SAME), 1, np.where(np.isin(cls, _NOTHING_TO_COMPARE), -1, 0)
    ).astype(np.int8)
