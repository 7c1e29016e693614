"""Telling the changes of channels that a restore makes from those that somebody else makes."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from drey_core.compare import compare
from drey_core.values import I8, Columns, Kind, State, heap_mask
from drey_restore.domain.items import I4, PlanItems, scatter_rows
from drey_restore.domain.judging import SAME

Mask = NDArray[np.bool_]
_ARRAYS = tuple(field.name for field in fields(Columns) if field.name != "heap")


class Interference:
    """n rows of a plan, each from when it is about to be written until its verdict.

    `expect` says that rows are about to be written, `look` what their channels show. Not
    interference are the value before as long as the write has not shown, the value written, what is
    within the tolerance of either, and what the record makes of a write at once (it clips it, say):
    the first other value is taken for that, as long as it stays. Of a write that is complete
    nothing of this is waited for any more once its channel was away: an IOC that restarted shows
    what it has by now. `first` is of each row the first change that is not its own (kind NONE:
    none), `count` how many there were; shapes (n,).
    """

    def __init__(self, items: PlanItems, before: Columns) -> None:
        n = len(items)
        self._absolute, self._relative = items.absolute, items.relative
        self._own = items.target.take_rows(np.arange(n))
        self._before = before.take_rows(np.arange(n))
        self._made = Columns.empty_columns(n)
        self._last_kind, self._last_data = np.zeros(n, np.uint8), np.zeros(n, np.uint64)
        self._watched, self._shown, self._off = np.zeros((3, n), bool)
        self._complete, self._away = np.zeros((2, n), bool)
        self.first = Columns.empty_columns(n)
        self.count: I4 = np.zeros(n, np.int32)

    @property
    def interfered_count(self) -> int:
        """In how many rows somebody has interfered."""
        return int(np.count_nonzero(self.count))

    @property
    def rows_off(self) -> I8:
        """Rows whose last value was another than what was written last."""
        return np.flatnonzero(self._off)

    def expect_values(self, rows: I8, values: Columns | None = None) -> None:
        """Rows are about to be written: their targets, or `values` on the way there, numbers."""
        if values is not None:
            again = rows[self._watched[rows]]
            for name in ("kind", "data"):
                getattr(self._before, name)[again] = getattr(self._own, name)[again]
                getattr(self._own, name)[rows] = getattr(values, name)
        self._watched[rows] = True
        self._complete[rows] = self._shown[rows] = False
        self._made.kind[rows] = Kind.NONE

    def mark_complete(self, rows: I8) -> None:
        """The IOC has said that the writes of rows have taken place."""
        self._complete[rows] = True
        self._wait_no_more(rows[self._away[rows]])

    def mark_unsent(self, rows: I8) -> None:
        """Rows that were not written in the end are nobody's."""
        self._watched[rows] = self._off[rows] = False

    def note_values(self, rows: I8, values: Columns) -> bool:
        """What channels of different rows show now; whether some of it is interference."""
        connected = values.state == State.CONNECTED
        self._away[rows] = ~connected
        self._wait_no_more(rows[self._complete[rows] & ~connected])
        there = self._watched[rows] & connected & (values.kind != Kind.NONE)
        rows, values = rows[there], values.take_rows(there)
        own = self._is_same(self._own, rows, values)
        seen_before = self.count.sum()
        overtaken = rows[own & (self._made.kind[rows] != Kind.NONE)]
        self._add_values(overtaken, self._made.take_rows(overtaken))
        self._made.kind[overtaken] = Kind.NONE
        self._shown[rows[own]] = True
        self._off[rows] = ~own
        if not own.all():
            self._look_at_others(rows[~own], values.take_rows(~own))
        self._last_kind[rows], self._last_data[rows] = values.kind, values.data
        return bool(self.count.sum() > seen_before)

    def _wait_no_more(self, rows: I8) -> None:
        """Whatever is shown next of writes that are complete, it came after them."""
        rows = rows[~self._shown[rows]]
        self._shown[rows] = True
        self._last_kind[rows] = Kind.NONE

    def _look_at_others(self, rows: I8, values: Columns) -> None:
        """Values that are not those written."""
        first = ~self._shown[rows]
        quiet = first & self._is_same(self._before, rows, values)
        made = self._is_same(self._made, rows, values)
        fresh = first & ~quiet & (self._made.kind[rows] == Kind.NONE)
        taken = rows[fresh]
        self._made = _put_rows(self._made, taken, values.take_rows(fresh))
        repeated = (values.kind == self._last_kind[rows]) & (values.data == self._last_data[rows])
        repeated &= ~heap_mask(values.kind)
        # the value before does not come back by itself once the record has made something of it
        quiet &= self._made.kind[rows] == Kind.NONE
        foreign = ~quiet & ~made & ~fresh & ~repeated
        self._add_values(rows[foreign], values.take_rows(foreign))

    def _is_same(self, reference: Columns, rows: I8, values: Columns) -> Mask:
        cls = compare(
            reference.take_rows(rows), values, self._absolute[rows], self._relative[rows]
        ).cls
        same: Mask = np.isin(cls, SAME)
        return same

    def _add_values(self, rows: I8, values: Columns) -> None:
        new = self.count[rows] == 0
        self.first = _put_rows(self.first, rows[new], values.take_rows(new))
        self.count[rows] += 1


def _put_rows(into: Columns, rows: I8, values: Columns) -> Columns:
    """`into` with `values[i]` in row `rows[i]`; in place where no heap takes part."""
    if len(rows) == 0:
        return into
    if heap_mask(values.kind).any() or into.heap:
        return scatter_rows(into, rows, values)
    for name in _ARRAYS:
        getattr(into, name)[rows] = getattr(values, name)
    return into
