"""Rows of values as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from drey_cli.contracts import value_pb2
from drey_cli.render.table import Cell, Column, Table
from drey_cli.render.times import format_time
from drey_cli.render.values import alarm_cell, value_cell


class Metadata(NamedTuple):
    """Metadata of a PV's channels; None where there is none."""

    setpoint: value_pb2.ChannelMetadata | None = None
    readback: value_pb2.ChannelMetadata | None = None


class _MetadataMessage(Protocol):
    """`MetadataRow` of monitor, and `PvMetadata` of snapshot."""

    @property
    def number(self) -> int: ...
    @property
    def setpoint(self) -> value_pb2.ChannelMetadata: ...
    @property
    def readback(self) -> value_pb2.ChannelMetadata: ...


NO_METADATA = Metadata()


def metadata_by_number(rows: Iterable[_MetadataMessage]) -> dict[int, Metadata]:
    """Metadata keyed by the permanent number of the PV."""
    return {row.number: Metadata(row.setpoint, row.readback) for row in rows}


def rows_table(
    rows: Iterable[value_pb2.PvRow],
    metadata: Mapping[int, Metadata],
    *,
    utc: bool,
    title: str = "",
) -> Table:
    """One line a PV: both values, the graver alarm, the newer source time."""
    table = Table(
        (
            Column("PV"),
            Column("setpoint", right=True),
            Column("readback", right=True),
            Column("alarm"),
            Column("source time"),
        ),
        title=title,
    )
    for row in rows:
        table.rows.append(row_cells(row, metadata.get(row.number, NO_METADATA), utc=utc))
    return table


def row_cells(row: value_pb2.PvRow, metadata: Metadata, *, utc: bool) -> list[Cell | str]:
    """The cells of one PV, as in `rows_table`."""
    setpoint = row.setpoint if row.HasField("setpoint") else None
    readback = row.readback if row.HasField("readback") else None
    return [
        row.name,
        value_cell(setpoint, metadata.setpoint),
        value_cell(readback, metadata.readback),
        _graver_cell(setpoint, readback),
        _newer_cell(setpoint, readback, utc),
    ]


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
    text = format_time(newest.source_time_ns, utc=utc)
    return Cell(f"{text} ?", "yellow") if newest.source_time_suspect else Cell(text)
