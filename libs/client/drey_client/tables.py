"""Many values as columns: snapshots and comparisons for pandas, polars and Arrow. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from google.protobuf.message import Message

from drey.common.v1 import value_pb2
from drey.compare.v1 import compare_pb2
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from drey_client.values import AlarmSeverity, ChannelState, ChannelValue, EnumState, value_of

_ARRAY = 64
_ROLES = ("", "setpoint", "readback")
_SCALARS: dict[int, str] = {
    value_pb2.VALUE_TYPE_BOOL: "<u8",
    **dict.fromkeys(
        (
            value_pb2.VALUE_TYPE_INT8,
            value_pb2.VALUE_TYPE_INT16,
            value_pb2.VALUE_TYPE_INT32,
            value_pb2.VALUE_TYPE_INT64,
        ),
        "<i8",
    ),
    **dict.fromkeys(
        (
            value_pb2.VALUE_TYPE_UINT8,
            value_pb2.VALUE_TYPE_UINT16,
            value_pb2.VALUE_TYPE_UINT32,
            value_pb2.VALUE_TYPE_UINT64,
        ),
        "<u8",
    ),
    value_pb2.VALUE_TYPE_FLOAT64: "<f8",
}
_ELEMENTS: dict[int, str] = {
    value_pb2.VALUE_TYPE_BOOL: "?",
    value_pb2.VALUE_TYPE_INT8: "i1",
    value_pb2.VALUE_TYPE_INT16: "<i2",
    value_pb2.VALUE_TYPE_INT32: "<i4",
    value_pb2.VALUE_TYPE_INT64: "<i8",
    value_pb2.VALUE_TYPE_UINT8: "u1",
    value_pb2.VALUE_TYPE_UINT16: "<u2",
    value_pb2.VALUE_TYPE_UINT32: "<u4",
    value_pb2.VALUE_TYPE_UINT64: "<u8",
    value_pb2.VALUE_TYPE_FLOAT32: "<f4",
    value_pb2.VALUE_TYPE_FLOAT64: "<f8",
    value_pb2.VALUE_TYPE_ENUM: "<u2",
}


_COLUMN_PARTS = {
    **dict.fromkeys(
        ("pv", "device", "channel", "units", "state", "severity", "difference"), "text"
    ),
    **dict.fromkeys(("status", "other"), "integer"),
    **dict.fromkeys(("delta", "deviation"), "number"),
}
"""Types of columns that hold one, also where a table has no rows."""


class _Table:
    """Columns of equal length by name; lists of objects, or numpy arrays."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column: str) -> Any:
        return self.columns[column]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`, `value` as objects. Needs `drey-client[pandas]`."""
        numpy_types = {"integer": "int64", "number": "float64"}
        types = {
            name: numpy_types[part]
            for name, part in _COLUMN_PARTS.items()
            if name in self.columns and part in numpy_types
        }
        return _import_extra("pandas").DataFrame(self.columns).astype(types)

    def to_polars(self) -> Any:
        """A `polars.DataFrame`: `value` as in `to_arrow`. Needs `drey-client[polars]`."""
        polars = _import_extra("polars")
        part_types = {
            "number": polars.Float64,
            "integer": polars.Int64,
            "text": polars.String,
            "elements": polars.List(polars.Float64),
        }
        columns, parts = self._typed_columns()
        types = {name: part_types[part] for name, part in parts.items()}
        return polars.DataFrame(columns, schema_overrides=types)

    def to_arrow(self) -> Any:
        """A `pyarrow.Table`. Needs `drey-client[arrow]`.

        A column of Arrow has one type, so that `value` comes in four, each null where it does not
        apply: `number` (float64; of 64-bit integers the nearest), `integer` (int64, exact; null
        above 2**63 - 1), `text` (strings, and labels of enumerations) and `elements` (float64; of
        arrays of numbers).
        """
        arrow = _import_extra("pyarrow")
        part_types = {
            "number": arrow.float64(),
            "integer": arrow.int64(),
            "text": arrow.string(),
            "elements": arrow.list_(arrow.float64()),
        }
        columns, parts = self._typed_columns()
        typed = {name: arrow.array(columns[name], part_types[part]) for name, part in parts.items()}
        return arrow.table(columns | typed)

    def _typed_columns(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Columns of one type each, and which of them are which part of a value."""
        columns: dict[str, Any] = {}
        parts: dict[str, str] = {}
        for name, column in self.columns.items():
            if name != "value" and not name.endswith("_value"):
                columns[name] = column
                if name in _COLUMN_PARTS:
                    parts[name] = _COLUMN_PARTS[name]
                continue
            for part, values in _split_values(column).items():
                columns[name.removesuffix("value") + part] = values
                parts[name.removesuffix("value") + part] = part
        return columns, parts


class ValueTable(_Table):
    """Values of a snapshot, a row a channel, ordered as the server gave them.

    Columns: `pv`, `device`, `channel` (`setpoint`, `readback`), `value` (as `ChannelValue.data`),
    `units`, `state`, `severity`, `status` (of `AlarmStatus`, by number as EPICS does, -1: none),
    `source_time`, `receive_time` (`datetime64[ns]`, UTC, NaT without a value).
    """

    def __init__(self, snapshot: snapshot_pb2.Snapshot, columns: dict[str, Any]) -> None:
        super().__init__(columns)
        self.snapshot = snapshot


class ComparisonTable(_Table):
    """PVs that differ, a row a channel and other.

    Columns: `pv`, `device`, `channel`, `other` (from 0), `difference` (of `DifferenceClass`:
    `DIFFERENT`, `ONLY_IN_OTHER`), `reference_value`, `other_value`, `delta`, `deviation` (in
    tolerances; NaN: not numbers).
    """

    def __init__(self, header: compare_pb2.ComparisonHeader, columns: dict[str, Any]) -> None:
        super().__init__(columns)
        self.header = header


def _import_extra(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        extra = name.removeprefix("py")
        raise ImportError(f"{name} is needed: pip install 'drey-client[{extra}]'") from error


def _split_values(column: Iterable[Any]) -> dict[str, list[Any]]:
    parts: dict[str, list[Any]] = {"number": [], "integer": [], "text": [], "elements": []}
    for data in column:
        number = integer = text = elements = None
        if isinstance(data, EnumState):
            text = str(data)
        elif isinstance(data, (str, bytes)):
            text = _text_of(data)
        elif isinstance(data, (bool, int, float)):
            number = float(data)
            exact = isinstance(data, int) and -(2**63) <= data < 2**63
            integer = int(data) if exact else None
        elif isinstance(data, np.ndarray):
            elements = data.astype(np.float64).tolist()
        elif isinstance(data, list):
            text = ", ".join(map(_text_of, data))
        for part, value in zip(parts.values(), (number, integer, text, elements), strict=True):
            part.append(value)
    return parts


def _text_of(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode(errors="backslashreplace")


def join_columns(parts: Iterable[value_pb2.ValueColumns]) -> list[value_pb2.ValueColumns]:
    """Messages with whole values: the parts of one that is too large for a message become one."""
    whole: list[value_pb2.ValueColumns] = []
    open_heap: list[bytes] = []
    for columns in parts:
        if not columns.HasField("part"):
            whole.append(columns)
            continue
        if columns.part.first_element == 0:
            open_heap = []
            whole.append(columns)
        open_heap.append(columns.heap)
        if sum(map(len, open_heap)) == columns.part.total_elements:
            whole[-1].heap = b"".join(open_heap)
            whole[-1].ClearField("part")
    return whole


def read_values(
    columns: value_pb2.ValueColumns, labels: dict[tuple[int, int], tuple[str, ...]]
) -> list[Any]:
    """Values of a message, as `ChannelValue.data`. `labels` by PV number and role."""
    heap = columns.heap
    numbers = np.frombuffer(columns.pv_numbers, "<i8")
    roles = np.frombuffer(columns.roles, np.uint8)
    types = np.frombuffer(columns.types, np.uint8)
    data = np.frombuffer(columns.data, "<u8")
    values: list[Any] = [None] * len(types)
    for type_number in np.unique(types).tolist():
        rows = np.flatnonzero(types == type_number)
        bits = data[rows]
        if type_number in _SCALARS:
            scalars = bits.view(_SCALARS[type_number]).tolist()
            if type_number == value_pb2.VALUE_TYPE_BOOL:
                scalars = [bool(scalar) for scalar in scalars]
        elif type_number == value_pb2.VALUE_TYPE_FLOAT32:
            scalars = bits.astype("<u4").view("<f4").tolist()
        elif type_number == value_pb2.VALUE_TYPE_ENUM:
            scalars = [
                _enum_state(int(index), labels.get((int(numbers[row]), int(roles[row])), ()))
                for row, index in zip(rows.tolist(), bits.tolist(), strict=True)
            ]
        elif type_number == 0:
            continue
        else:
            scalars = [
                _from_heap(
                    type_number, heap[(start := bits_of & 0xFFFFFFFF) : start + (bits_of >> 32)]
                )
                for bits_of in bits.tolist()
            ]
        for row, scalar in zip(rows.tolist(), scalars, strict=True):
            values[row] = scalar
    return values


def _enum_state(index: int, labels: tuple[str, ...]) -> EnumState:
    return EnumState(index, labels[index] if index < len(labels) else "")


def _from_heap(type_number: int, raw: bytes) -> Any:
    if type_number == value_pb2.VALUE_TYPE_STRING:
        return _decode_text(raw)
    if type_number == value_pb2.VALUE_TYPE_STRING | _ARRAY:
        (count,) = struct.unpack_from("<I", raw)
        lengths = struct.unpack_from(f"<{count}I", raw, 4)
        strings, position = [], 4 + 4 * count
        for length in lengths:
            strings.append(_decode_text(raw[position : position + length]))
            position += length
        return strings
    if (element := _ELEMENTS.get(type_number & ~_ARRAY)) is None:
        raise ValueError(f"this client does not know values of type {type_number}")
    return np.frombuffer(raw, element)


def _decode_text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def snapshot_table(
    snapshot: snapshot_pb2.Snapshot,
    metadata: Iterable[snapshot_service_pb2.PvMetadata],
    parts: Iterable[value_pb2.ValueColumns],
) -> ValueTable:
    """The messages of `ReadSnapshot` as one table."""
    pvs_by_number = {pv.number: pv for pv in metadata}
    labels = {
        (number, role): tuple(getattr(pv, _ROLES[role]).enum_labels)
        for number, pv in pvs_by_number.items()
        for role in (1, 2)
    }
    names = ("pv", "device", "channel", "value", "units", "state", "severity", "status")
    columns: dict[str, Any] = {name: [] for name in names}
    times: dict[str, list[np.ndarray[Any, Any]]] = {"source_time": [], "receive_time": []}
    for part in join_columns(parts):
        roles = [_ROLES[role] for role in part.roles]
        pvs = [pvs_by_number[number] for number in np.frombuffer(part.pv_numbers, "<i8").tolist()]
        columns["pv"] += [pv.name for pv in pvs]
        columns["device"] += [pv.device for pv in pvs]
        columns["channel"] += roles
        columns["value"] += read_values(part, labels)
        columns["units"] += [getattr(pv, role).units for pv, role in zip(pvs, roles, strict=True)]
        columns["state"] += [ChannelState(state).name for state in part.states]
        columns["severity"] += [AlarmSeverity(severity - 1).name for severity in part.severities]
        statuses = np.frombuffer(part.statuses, "<u2").astype(np.int32) - 1
        columns["status"] += statuses.tolist()
        for name, raw in (("source_time", part.source_times), ("receive_time", part.receive_times)):
            times[name].append(np.frombuffer(raw, "<i8"))
    for name, chunks in times.items():
        stamps = np.concatenate([*chunks, np.zeros(0, np.int64)]).astype("datetime64[ns]")
        stamps[stamps.astype(np.int64) == 0] = np.datetime64("NaT")
        columns[name] = stamps
    return ValueTable(snapshot, columns)


def comparison_table(
    header: compare_pb2.ComparisonHeader, rows: Iterable[compare_pb2.ComparisonRow]
) -> ComparisonTable:
    """The messages of `Compare` as one table, values included where they were asked for."""
    names = ("pv", "device", "channel", "other", "difference", "reference_value", "other_value")
    columns: dict[str, list[Any]] = {name: [] for name in (*names, "delta", "deviation")}
    for row in rows:
        for index, cell in enumerate(row.cells):
            for role in _ROLES[1:]:
                if not cell.HasField(role):  # type: ignore[arg-type]
                    continue
                difference: compare_pb2.ChannelDifference = getattr(cell, role)
                added = (
                    row.name,
                    row.device,
                    role,
                    index,
                    compare_pb2.DifferenceClass.Name(difference.difference_class).removeprefix(
                        "DIFFERENCE_CLASS_"
                    ),
                    _data_of(row, f"reference_{role}"),
                    _data_of(difference, "other"),
                    difference.delta if difference.HasField("delta") else np.nan,
                    difference.deviation if difference.HasField("deviation") else np.nan,
                )
                for column, value in zip(columns.values(), added, strict=True):
                    column.append(value)
    return ComparisonTable(header, dict(columns))


def _data_of(message: Message, field: str) -> Any:
    value: ChannelValue | None = None
    if message.HasField(field):
        value = value_of(getattr(message, field))
    return value.data if value is not None else None
