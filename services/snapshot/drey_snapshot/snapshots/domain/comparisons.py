"""A reference compared with several others: rows of the same PVs, chosen, ordered and cut."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drey_core.compare import CLASSES, DifferenceClass
from drey_core.directory import Directory
from drey_core.token import PartType
from drey_core.values import I8
from drey_snapshot.snapshots.domain.differences import Differences, Side

Mask = NDArray[np.bool_]
Key = tuple[str | int | float, ...]


class Order(IntEnum):
    """Order of the rows; the numbers of `drey.compare.v1.ComparisonOrder`."""

    UNSPECIFIED = 0
    NAME = 1
    DEVIATION = 2
    DEVICE = 3


POSITION_PARTS: dict[Order, tuple[PartType, ...]] = {
    Order.UNSPECIFIED: (str, int),
    Order.NAME: (str, int),
    Order.DEVIATION: (float, str, int),
    Order.DEVICE: (str, str, int),
}
"""What the position of a row is of, in each order."""


@dataclass(frozen=True)
class Comparisons:
    """The comparison of each other with the one reference; all are of the same PVs, by number."""

    each: tuple[Differences, ...]

    @property
    def pv_numbers(self) -> I8:
        """Numbers of the PVs, ascending: the rows of all."""
        return self.each[0].numbers

    @property
    def sides(self) -> Sequence[Side]:
        """The reference, and then the others."""
        return [self.each[0].reference, *(one.other for one in self.each)]

    @cached_property
    def names(self) -> list[str]:
        """Name of each PV, as of the reference, or of the first of the others that has it."""
        return self._row_texts(lambda directory: directory.names)

    @cached_property
    def device_names(self) -> list[str]:
        """Device of each PV, as `names`."""
        return self._row_texts(lambda directory: directory.devices)

    def _row_texts(self, of: Callable[[Directory], list[str]]) -> list[str]:
        rows = self.sides[0].rows.tolist()
        reference_texts = of(self.sides[0].directory)
        texts = [reference_texts[row] if row >= 0 else "" for row in rows]
        lacking = self.sides[0].rows < 0
        for side in self.sides[1:]:
            if not lacking.any():
                break
            reference_texts = of(side.directory)
            for index in np.flatnonzero(lacking & (side.rows >= 0)).tolist():
                texts[index] = reference_texts[side.rows[index]]
            lacking &= side.rows < 0
        return texts

    @cached_property
    def first_different(self) -> I8:
        """Of each PV, which of the others is the earliest in which it is DIFFERENT; -1: none."""
        first = np.full(len(self.pv_numbers), -1)
        by_time = sorted(range(len(self.each)), key=lambda k: self.each[k].other.view.time_ns)
        for k in reversed(by_time):
            comparison = self.each[k]
            different = comparison.setpoint.cls == DifferenceClass.DIFFERENT
            different |= comparison.readback.cls == DifferenceClass.DIFFERENT
            first[different] = k
        return first

    def of_classes(self, classes: Collection[int]) -> I8:
        """PVs with a channel in one of the classes in any of the comparisons, ascending."""
        wanted = np.zeros(CLASSES, bool)
        wanted[[int(c) for c in classes if c != DifferenceClass.UNSPECIFIED]] = True
        class_mask: Mask = np.zeros(len(self.pv_numbers), bool)
        for comparison in self.each:
            class_mask |= wanted[comparison.setpoint.cls] | wanted[comparison.readback.cls]
        return np.flatnonzero(class_mask)

    def order_rows(self, rows: I8, order: Order) -> I8:
        """The rows (ascending) in an order."""
        listed, key = rows.tolist(), self._key_function(order)
        listed.sort(key=self.names.__getitem__ if order == Order.NAME else key)
        return np.array(listed, np.int64)

    def position_of(self, row: int, order: Order) -> Key:
        """What a row is ordered by, the number of its PV at the end: no two have the same."""
        return (*self._key_function(order)(row), int(self.pv_numbers[row]))

    def rows_after(self, rows: I8, order: Order, position: Key) -> I8:
        """Those of the rows, in that order, that come after a position."""
        return rows[
            bisect_right(rows.tolist(), position, key=lambda row: self.position_of(row, order)) :
        ]

    def _key_function(self, order: Order) -> Callable[[int], Key]:
        names = self.names
        if order == Order.DEVICE:
            devices = self.device_names
            return lambda row: (devices[row], names[row])
        if order == Order.DEVIATION:
            sizes = self._largest_deviations.tolist()
            return lambda row: (-sizes[row], names[row])
        return lambda row: (names[row],)

    @cached_property
    def _largest_deviations(self) -> NDArray[np.float64]:
        """The largest of each PV; -inf where there is none."""
        largest = np.full(len(self.pv_numbers), np.nan)
        with np.errstate(invalid="ignore"):
            for comparison in self.each:
                for side in (comparison.setpoint, comparison.readback):
                    largest = np.fmax(largest, side.deviation)
        return np.where(np.isnan(largest), -np.inf, largest)
