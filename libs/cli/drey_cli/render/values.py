"""Values for people, and rows of them: precision, units and labels from metadata."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from drey_cli.contracts import value_pb2
from drey_cli.render.table import (
    Cell,
    Table,
    escape_text,
    name_field,
    number_field,
    table_of,
    text_field,
    time_cell,
)
from drey_cli.render.words import short_name
from drey_client.watch_state import ChannelPair

if TYPE_CHECKING:
    from google.protobuf.message import Message

NO_CHANNEL = "—"
NO_VALUE = "no value"
SHOWN_ELEMENTS = 3
_SHOWN_TEXT = 60
_FLOATS = {"float64_value": 10, "float32_value": 7, "float64_array": 10, "float32_array": 7}
_SEVERITY_STYLE = {2: "yellow", 3: "red", 4: "magenta"}
_FIRST = 1
_NEVER, _DISCONNECTED, _UNSUPPORTED, _STALE = 1, 2, 4, 2


def format_value(
    value: value_pb2.Value | None,
    metadata: value_pb2.ChannelMetadata | None = None,
    *,
    units: bool = True,
    full: bool = False,
) -> str:
    """Text of a value. `full`: every element of an array and all of a string."""
    if value is None:
        return NO_CHANNEL
    kind = value.WhichOneof("data")
    if kind is None:
        return NO_VALUE
    text = _format_data(value, kind, metadata, full)
    if kind == "extract":
        kind = value.extract.elements.WhichOneof("data") or kind
    has_units = units and metadata is not None and metadata.units and not _is_text(kind)
    return f"{text} {escape_text(metadata.units)}" if has_units and metadata is not None else text


def value_text(message: Message, field: str, *, full: bool = False) -> str:
    """Text of a value that a message may have; empty where it has none."""
    return format_value(getattr(message, field), full=full) if message.HasField(field) else ""


def value_cell(
    value: value_pb2.Value | None, metadata: value_pb2.ChannelMetadata | None = None
) -> Cell:
    """The value in the colour of its severity; what cannot be believed is dim."""
    text = format_value(value, metadata)
    if value is None:
        return Cell(text, "dim")
    if value.state in {_NEVER, _DISCONNECTED, _UNSUPPORTED}:
        return Cell(text, "dim red")
    if value.freshness == _STALE:
        return Cell(text, "dim italic")
    return Cell(text, _SEVERITY_STYLE.get(value.severity, ""))


def alarm_cell(value: value_pb2.Value | None) -> Cell:
    """Severity and status, or why there is no value: `MAJOR HIHI`, `disconnected`."""
    if value is None:
        return Cell("")
    if value.state == _NEVER:
        return Cell("never connected", "red")
    if value.state == _DISCONNECTED:
        return Cell("disconnected", "red")
    if value.state == _UNSUPPORTED:
        return Cell("protocol not supported", "red")
    if value.severity <= 1:
        return Cell("stale", "dim italic") if value.freshness == _STALE else Cell("")

    severity = short_name(value_pb2.AlarmSeverity, value.severity).upper()
    status = short_name(value_pb2.AlarmStatus, value.status).upper() if value.status > 1 else ""
    return Cell(f"{severity} {status}".rstrip(), _SEVERITY_STYLE.get(value.severity, ""))


def _is_text(kind: str) -> bool:
    return kind in {
        "enum_value",
        "string_value",
        "raw_string_value",
        "bool_value",
        "string_array",
        "enum_array",
        "bool_array",
        "unsent",
    }


def _format_data(
    value: value_pb2.Value, kind: str, metadata: value_pb2.ChannelMetadata | None, full: bool
) -> str:
    data = getattr(value, kind)
    precision = None
    if metadata is not None and metadata.HasField("precision"):
        precision = metadata.precision
    if kind in _FLOATS and not kind.endswith("_array"):
        return format_float(data, precision, digits=_FLOATS[kind])
    if kind == "enum_value":
        return _format_enum(data.index, data.label, metadata)
    if kind in {"string_value", "raw_string_value"}:
        return format_text(data, full=full)
    if kind == "bool_value":
        return "true" if data else "false"
    if kind == "unsent":
        return f"cannot be shown: {escape_text(data.message)}"
    if kind.endswith("_array"):
        total = value.part.total_elements if value.HasField("part") else 0
        return _format_array(value, kind, precision, metadata, full, total)
    if kind == "extract":
        held = data.elements.WhichOneof("data")
        total = data.total_elements
        text = _format_array(data.elements, held, precision, metadata, full, total)
        return text if data.decimation == _FIRST else f"extract {text}"
    return str(data)


def format_float(number: float, precision: int | None, *, digits: int = 10) -> str:
    """A number by the precision of its record, where that shows it; else by `digits`.

    Precision 0 is what a record has whose author said nothing, so a fraction is still shown.
    """
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    if precision is None or precision < 0 or precision > 17 or abs(number) >= 1e12:
        return f"{number:.{digits}g}"
    text = f"{number:.{precision}f}"
    hides = float(text) == 0.0 and number != 0.0
    if hides or (precision == 0 and not number.is_integer()):
        return f"{number:.6g}"
    return text


def _format_enum(index: int, label: str, metadata: value_pb2.ChannelMetadata | None) -> str:
    if not label and metadata is not None and index < len(metadata.enum_labels):
        label = metadata.enum_labels[index]
    return f"{escape_text(label)} ({index})" if label else f"#{index}"


def format_text(data: str | bytes, *, full: bool = False) -> str:
    """A string in quotes; control characters and bytes that are not UTF-8 escaped (`\\xff`)."""
    text = data.decode("utf-8", "backslashreplace") if isinstance(data, bytes) else data
    if not full and len(text) > _SHOWN_TEXT:
        return f'"{escape_text(text[:_SHOWN_TEXT])}…" ({len(text)})'
    return f'"{escape_text(text)}"'


def _format_array(
    value: value_pb2.Value,
    kind: str,
    precision: int | None,
    metadata: value_pb2.ChannelMetadata | None,
    full: bool,
    total: int,
) -> str:
    """`total`: of the whole array, where this is not all of it; else 0."""
    elements = _value_elements(value, kind)
    total = total or len(elements)
    short = total > len(elements) or (not full and total > SHOWN_ELEMENTS + 1)
    chosen: Iterable[object] = islice(elements, SHOWN_ELEMENTS) if short and not full else elements
    texts = [_format_element(element, kind, precision, metadata) for element in chosen]
    if short:
        return f"[{', '.join(texts)}, … ({total})]"
    return f"[{', '.join(texts)}]"


def _value_elements(value: value_pb2.Value, kind: str) -> Sequence[object]:
    if kind == "uint8_array":
        return value.uint8_array
    if kind == "string_array":
        return value.string_array.raw_elements or value.string_array.elements
    elements: Sequence[object] = getattr(value, kind).elements
    return elements


def _format_element(
    element: object,
    kind: str,
    precision: int | None,
    metadata: value_pb2.ChannelMetadata | None,
) -> str:
    if isinstance(element, float):
        return format_float(element, precision, digits=_FLOATS[kind])
    if isinstance(element, bool):
        return "true" if element else "false"
    if isinstance(element, str | bytes):
        return format_text(element)
    if kind == "enum_array" and isinstance(element, int):
        return _format_enum(element, "", metadata)
    return str(element)


class _MetadataMessage(Protocol):
    """`MetadataRow` of monitor, and `PvMetadata` of snapshot."""

    @property
    def number(self) -> int: ...
    @property
    def setpoint(self) -> value_pb2.ChannelMetadata: ...
    @property
    def readback(self) -> value_pb2.ChannelMetadata: ...


NO_METADATA = ChannelPair()


def metadata_by_number(rows: Iterable[_MetadataMessage]) -> dict[int, ChannelPair]:
    """Metadata keyed by the permanent number of the PV."""
    return {row.number: ChannelPair(row.setpoint, row.readback) for row in rows}


def rows_table(
    rows: Iterable[value_pb2.PvRow],
    metadata: Mapping[int, ChannelPair],
    *,
    utc: bool,
    title: str = "",
) -> Table:
    """One line a PV: both values, the graver alarm, the newer source time."""
    cells = (row_cells(row, metadata.get(row.number, NO_METADATA), utc=utc) for row in rows)
    return table_of(
        cells,
        name_field("PV", lambda each: each.name),
        number_field("setpoint", lambda each: each.setpoint),
        number_field("readback", lambda each: each.readback),
        text_field("alarm", lambda each: each.alarm),
        text_field("source time", lambda each: each.source_time),
        title=title,
    )


class RowCells(NamedTuple):
    """The cells of one PV."""

    name: Cell | str
    setpoint: Cell
    readback: Cell
    alarm: Cell
    source_time: Cell


def row_cells(row: value_pb2.PvRow, metadata: ChannelPair, *, utc: bool) -> RowCells:
    """The cells of one PV, as in `rows_table`."""
    setpoint = row.setpoint if row.HasField("setpoint") else None
    readback = row.readback if row.HasField("readback") else None
    return RowCells(
        row.name,
        value_cell(setpoint, metadata.setpoint),
        value_cell(readback, metadata.readback),
        _graver_cell(setpoint, readback),
        _newer_cell(setpoint, readback, utc),
    )


def _graver_cell(one: value_pb2.Value | None, two: value_pb2.Value | None) -> Cell:
    def alarm_gravity(value: value_pb2.Value | None) -> tuple[bool, int, int]:
        if value is None:
            return (False, 0, 0)
        return (value.state in {1, 2}, value.severity, value.freshness)

    return alarm_cell(max((one, two), key=alarm_gravity))


def _newer_cell(one: value_pb2.Value | None, two: value_pb2.Value | None, utc: bool) -> Cell:
    values = [value for value in (one, two) if value is not None and value.source_time_ns]
    if not values:
        return Cell("—", "dim")
    newest = max(values, key=lambda value: value.source_time_ns)
    cell = time_cell(newest.source_time_ns, utc=utc)
    if newest.source_time_suspect:
        return Cell(f"{cell.text} ?", "yellow", f"{cell.short} ?")
    return cell
