"""Comparisons as protobuf bytes: differences as `drey_core.wire_difference` takes them."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

import numpy as np

from drey_core.compare import Comparison
from drey_core.pages import PAGE_SHIFT
from drey_core.values import I8, U1, Columns
from drey_core.wire_difference import (
    DifferenceChannels,
    DifferenceRows,
    DifferenceValues,
    encode_rows,
)
from drey_snapshot.snapshots.domain.comparisons import Comparisons
from drey_snapshot.snapshots.domain.differences import Differences, Side

_FRESH, _STALE = 1, 2
Role = Literal["setpoint", "readback"]


def encode_comparisons(comparisons: Comparisons, rows: I8, *, with_values: bool) -> list[bytes]:
    """The field `rows = 1` of a `RowChunk` for each row, in the order given."""
    listed = rows.tolist()
    names, devices = comparisons.names, comparisons.device_names
    reference = comparisons.each[0].reference
    return encode_rows(
        DifferenceRows(
            [names[row] for row in listed],
            comparisons.pv_numbers[rows],
            [devices[row] for row in listed],
            (
                _value_columns(reference, "setpoint", rows),
                _value_columns(reference, "readback", rows),
            )
            if with_values
            else None,
            [
                (
                    _channel_columns(one, "setpoint", rows, with_values),
                    _channel_columns(one, "readback", rows, with_values),
                )
                for one in comparisons.each
            ],
            comparisons.first_different[rows],
        )
    )


def _channel_columns(
    differences: Differences, role: Role, rows: I8, with_values: bool
) -> DifferenceChannels:
    comparison: Comparison = getattr(differences, role)
    part = Comparison(*(getattr(comparison, each.name)[rows] for each in fields(Comparison)))
    return DifferenceChannels(
        part, _value_columns(differences.other, role, rows) if with_values else None
    )


def _value_columns(side: Side, role: Role, rows: I8) -> DifferenceValues:
    columns: Columns = getattr(side, role).take_rows(rows)
    return DifferenceValues(columns, side.view.where.metadata.labels, _row_freshness(side, columns))


def _row_freshness(side: Side, columns: Columns) -> int | U1:
    """Of the live machine; 0 of a snapshot."""
    if not side.view.live:
        return 0
    stale = side.view.stale_pages
    if stale is None or len(stale) == 0:
        return _FRESH
    return np.where(np.isin(columns.key >> PAGE_SHIFT, stale), _STALE, _FRESH).astype(np.uint8)
