"""Distinct values of small arrays.

`numpy.unique` and the set functions on it import `numpy.ma` at their first use, which takes a
twelfth of a second: as much as everything else that a monitor does when it takes over a shard.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


def distinct_values(values: NDArray[T]) -> NDArray[T]:
    """The distinct ones of `values` (shape any), ascending, shape (n,)."""
    ordered = np.sort(values, axis=None)
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]
