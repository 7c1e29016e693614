"""Large values arrive in parts, in consecutive rows of one PV; here they become whole again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drey_cli.contracts import value_pb2

_FLAT = ("uint8_array", "string_value", "raw_string_value")
"""Kinds that are no messages."""


def whole_rows(rows: Iterable[value_pb2.PvRow]) -> Iterator[value_pb2.PvRow]:
    """Rows with their values complete, in order. A row without parts passes through untouched."""
    joiner = RowJoiner()
    for row in rows:
        yield from joiner.feed(row)
    yield from joiner.finish()


class RowJoiner:
    """Joins the parts of rows fed one after the other."""

    def __init__(self) -> None:
        self._open: value_pb2.PvRow | None = None

    def feed(self, row: value_pb2.PvRow) -> Iterator[value_pb2.PvRow]:
        """Take a row; give those that are complete by now."""
        if self._open is not None and self._open.number == row.number:
            for role in ("setpoint", "readback"):
                if row.HasField(role):
                    _join(self._open, row, role)
            row = self._open
        elif self._open is not None:
            yield self._open
        self._open = None
        if _is_open(row.setpoint) or _is_open(row.readback):
            self._open = row
        else:
            _close(row)
            yield row

    def finish(self) -> Iterator[value_pb2.PvRow]:
        """Give what is left, even if its last part never came."""
        if self._open is not None:
            yield self._open
            self._open = None


def _is_open(value: value_pb2.Value) -> bool:
    return value.HasField("part") and (
        value.part.first_element + _length(value) < value.part.total_elements
    )


def _length(value: value_pb2.Value) -> int:
    kind = value.WhichOneof("data")
    if kind is None:
        return 0
    if kind == "uint8_array":
        return len(value.uint8_array)
    if kind == "string_array":
        return len(value.string_array.elements) or len(value.string_array.raw_elements)
    if kind == "string_value":
        return len(value.string_value.encode())
    data = getattr(value, kind)
    if kind == "raw_string_value":
        return len(data)
    return len(data.elements) if kind.endswith("_array") else 1


def _join(whole: value_pb2.PvRow, row: value_pb2.PvRow, role: str) -> None:
    held: value_pb2.Value = getattr(whole, role)
    more: value_pb2.Value = getattr(row, role)
    kind = more.WhichOneof("data")
    if kind is None or not more.HasField("part") or more.part.first_element == 0:
        if not held.HasField("part"):
            held.CopyFrom(more)
        return
    if kind in _FLAT:
        setattr(held, kind, getattr(held, kind) + getattr(more, kind))
    else:
        getattr(held, kind).MergeFrom(getattr(more, kind))


def _close(row: value_pb2.PvRow) -> None:
    """Take the marks of parts away from values that are whole."""
    for value in (row.setpoint, row.readback):
        if value.HasField("part") and value.part.first_element == 0:
            value.ClearField("part")
