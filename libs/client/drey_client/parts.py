"""Large values arrive in parts, in consecutive rows of one PV; here they become whole again.

A row is any message with a `number` and with fields that are values: a row of a snapshot or a
watch, an item of a plan or of a restore.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    from drey.common.v1 import value_pb2
    from drey.restore.v1 import restore_pb2

# as texts, so that the contracts are not loaded yet
Row = TypeVar("Row", "value_pb2.PvRow", "restore_pb2.PlanItem", "restore_pb2.RestoreItem")


_FLAT = ("uint8_array", "string_value", "raw_string_value")
"""Kinds that are no messages."""


def whole_rows(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows with their values complete, in order. A row without parts passes through untouched."""
    joiner: RowJoiner[Row] = RowJoiner()
    for row in rows:
        yield from joiner.feed_row(row)
    yield from joiner.finish_rows()


class RowJoiner(Generic[Row]):
    """Joins the parts of rows fed one after the other."""

    def __init__(self) -> None:
        self._open: Row | None = None

    def feed_row(self, row: Row) -> Iterator[Row]:
        """Take a row; give those that are complete by now."""
        if self._open is not None and self._open.number == row.number:
            for role in _value_fields(row.DESCRIPTOR):
                if row.HasField(role):  # type: ignore[arg-type]
                    _join_values(getattr(self._open, role), getattr(row, role))
            row = self._open
        elif self._open is not None:
            yield self._open
        self._open = None
        if any(_is_open(getattr(row, role)) for role in _value_fields(row.DESCRIPTOR)):
            self._open = row
        else:
            _close_row(row)
            yield row

    def finish_rows(self) -> Iterator[Row]:
        """Give what is left, even if its last part never came."""
        if self._open is not None:
            yield self._open
            self._open = None


@cache
def _value_fields(descriptor: Descriptor) -> tuple[str, ...]:
    return tuple(
        field.name
        for field in descriptor.fields
        if field.message_type is not None and field.message_type.full_name == "drey.common.v1.Value"
    )


def _is_open(value: value_pb2.Value) -> bool:
    return value.HasField("part") and (
        value.part.first_element + _value_length(value) < value.part.total_elements
    )


def _value_length(value: value_pb2.Value) -> int:
    kind = value.WhichOneof("data")
    if kind == "extract":
        return _value_length(value.extract.elements)
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


def _join_values(held: value_pb2.Value, more: value_pb2.Value) -> None:
    kind = more.WhichOneof("data")
    if kind is None or not more.HasField("part") or more.part.first_element == 0:
        if not held.HasField("part"):
            held.CopyFrom(more)
        return
    if kind == "extract":
        held, more = held.extract.elements, more.extract.elements
        kind = more.WhichOneof("data")
    if kind in _FLAT:
        setattr(held, kind, getattr(held, kind) + getattr(more, kind))
    elif kind is not None:
        getattr(held, kind).MergeFrom(getattr(more, kind))


def _close_row(row: Row) -> None:
    """Take the marks of parts away from values that are whole."""
    for role in _value_fields(row.DESCRIPTOR):
        value: value_pb2.Value = getattr(row, role)
        if value.HasField("part") and value.part.first_element == 0:
            value.ClearField("part")
