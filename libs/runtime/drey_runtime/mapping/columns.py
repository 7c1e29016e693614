"""`drey.common.v1.ValueColumns` to columns; the other way is `drey_core.wire_columns`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drey.common.v1 import value_pb2
from drey_core.errors import Malformed
from drey_core.values import EXTRACT, I8, U1, Columns, heap_ref


class ReadColumns(NamedTuple):
    """Values of n channels, keyed by channel number, with whose they are; all shapes (n,)."""

    pv_numbers: I8
    roles: U1
    columns: Columns
    freshness: U1
    """`Freshness`; 0 for all where the message has none."""


class ColumnsReader:
    """Reads messages of a stream; the parts of a large value wait for the last one."""

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def join_columns(self, message: value_pb2.ValueColumns) -> ReadColumns | None:
        """The values; None while a part is missing. Raises `Malformed`."""
        if not message.HasField("part"):
            return _read_columns(message, message.heap)
        self._held.append(message.heap)
        if message.part.first_element + len(message.heap) < message.part.total_elements:
            return None
        heap = b"".join(self._held)
        self._held.clear()
        columns = _read_columns(message, heap)
        whole = np.array([heap_ref(0, len(heap))], np.uint64)
        return columns._replace(columns=replace(columns.columns, data=whole))


def _read_columns(message: value_pb2.ValueColumns, heap: bytes) -> ReadColumns:
    n = len(message.roles)

    def decode_column(raw: bytes, dtype: str) -> NDArray[Any]:
        if len(raw) != n * np.dtype(dtype).itemsize:
            raise Malformed("the columns of values differ in length")
        return np.frombuffer(raw, dtype)

    if any(kind & EXTRACT for kind in message.types):
        raise Malformed("an extract of an array is not a value")
    columns = Columns(
        key=decode_column(message.channels, "<i8"),
        kind=decode_column(message.types, "u1"),
        state=decode_column(message.states, "u1"),
        origin=decode_column(message.origins, "u1"),
        severity=_as_epics_counts(decode_column(message.severities, "u1")),
        status=_as_epics_counts(decode_column(message.statuses, "<u2")),
        source_time=decode_column(message.source_times, "<i8"),
        receive_time=decode_column(message.receive_times, "<i8"),
        data=decode_column(message.data, "<u8"),
        merged=np.zeros(n, np.uint32),
        heap=heap,
    )
    return ReadColumns(
        pv_numbers=decode_column(message.pv_numbers, "<i8"),
        roles=decode_column(message.roles, "u1"),
        columns=columns,
        freshness=decode_column(message.freshness or bytes(n), "u1"),
    )


def _as_epics_counts(numbers: NDArray[Any]) -> NDArray[Any]:
    """Severities or statuses of the contract, where 0 is "no value", as EPICS counts them."""
    epics: NDArray[Any] = np.maximum(numbers, 1) - 1
    return epics
