"""PVs as columns, ordered by number. What the catalog holds in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.pv_table import Policy

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
U1 = NDArray[np.uint8]
Bools = NDArray[np.bool_]

_DTYPES: dict[str, Any] = {
    "number": np.int64,
    "protocol": np.uint8,
    "read_only": np.bool_,
    "setpoint_channel": np.int64,
    "readback_channel": np.int64,
    "setpoint_absolute": np.float64,
    "setpoint_relative": np.float64,
    "readback_absolute": np.float64,
    "readback_relative": np.float64,
    "version": np.int64,
    "create_time_ns": np.int64,
    "update_time_ns": np.int64,
    "delete_time_ns": np.int64,
}


@dataclass(frozen=True, slots=True)
class PvTable:
    """n PVs. Arrays have shape (n,), lists n elements; channel 0 means "has none".

    `tags` are numbers of tags, ascending; `version` is that of the catalog in which the PV last
    changed; `delete_time_ns` is 0 for the living.
    """

    number: I8
    id: list[str]
    name: list[str]
    device: list[str]
    description: list[str]
    protocol: U1
    read_only: Bools
    setpoint_channel: I8
    readback_channel: I8
    setpoint_address: list[str]
    readback_address: list[str]
    setpoint_absolute: F8
    setpoint_relative: F8
    readback_absolute: F8
    readback_relative: F8
    policy: list[Policy]
    tags: list[tuple[int, ...]]
    version: I8
    create_time_ns: I8
    update_time_ns: I8
    delete_time_ns: I8

    def __len__(self) -> int:
        return len(self.id)

    @classmethod
    def table_of_columns(cls, columns: Mapping[str, Any]) -> PvTable:
        """From a sequence for each column, all of one length."""
        made: dict[str, Any] = {}
        for name in COLUMNS:
            dtype = _DTYPES.get(name)
            column = columns[name]
            made[name] = list(column) if dtype is None else np.asarray(column, dtype)
        return cls(**made)

    @classmethod
    def empty_table(cls) -> PvTable:
        return cls.table_of_columns({name: [] for name in COLUMNS})

    def take_rows(self, rows: I8 | Bools) -> PvTable:
        """Some rows, in the order given (or those where a mask holds)."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        listed = index.tolist()
        made: dict[str, Any] = {
            name: [column[i] for i in listed] if isinstance(column, list) else column[index]
            for name, column in self._column_items()
        }
        return PvTable(**made)

    def merge_changed(self, changed: PvTable) -> PvTable:
        """This table with the rows of `changed` put in the place of those of equal number.

        Rows of `changed` that are deleted go; the result is ordered by number.
        """
        if len(changed) == 0:
            return self
        keep = np.flatnonzero(~np.isin(self.number, changed.number))
        living = np.flatnonzero(changed.delete_time_ns == 0)
        if len(keep) == 0:
            joined_number = changed.number[living]
        else:
            joined_number = np.concatenate([self.number[keep], changed.number[living]])
        order = np.argsort(joined_number, kind="stable")
        if len(keep) == len(self) and np.array_equal(order, np.arange(len(order))):
            return self._append_rows(changed.take_rows(living))
        kept, new, places = keep.tolist(), living.tolist(), order.tolist()
        made: dict[str, Any] = {}
        for name, column in self._column_items():
            other = getattr(changed, name)
            if isinstance(column, list):
                both = [column[i] for i in kept] + [other[i] for i in new]
                made[name] = [both[i] for i in places]
            else:
                made[name] = np.concatenate([column[keep], other[living]])[order]
        return PvTable(**made)

    def _append_rows(self, more: PvTable) -> PvTable:
        made: dict[str, Any] = {}
        for name, column in self._column_items():
            other = getattr(more, name)
            made[name] = (
                column + other if isinstance(column, list) else np.concatenate([column, other])
            )
        return PvTable(**made)

    def _column_items(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in COLUMNS]

    def row_of(self, number: int) -> int:
        """Row of a PV by number; -1 where it is not here. The table is ordered by number."""
        places = int(np.searchsorted(self.number, number))
        return places if places < len(self.number) and self.number[places] == number else -1


COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(PvTable))
