"""Differences as protobuf bytes: a comparison as `drey_core.wire_difference` takes it."""

from __future__ import annotations

import numpy as np

from drey_core import wire_difference
from drey_core.pages import PAGE_SHIFT
from drey_core.values import I8, U1, Columns
from drey_snapshot.snapshots.domain.differences import Differences, Side

_FRESH, _STALE = 1, 2


def encode_differences(found: Differences, rows: I8, *, live: bool) -> list[bytes]:
    """The field `differences = 1` of a `DifferenceChunk` for each row, in the order given.

    `live` says that the other is the machine: its values get a freshness. Arrays, and errors, as
    `drey_core.wire_difference.encode_differences`.
    """
    return wire_difference.encode_differences(
        found.names,
        found.numbers,
        rows,
        _side(found, "setpoint", live),
        _side(found, "readback", live),
    )


def _side(found: Differences, role: str, live: bool) -> wire_difference.Side:
    other: Columns = getattr(found.other, role)
    return wire_difference.Side(
        getattr(found, role),
        getattr(found.reference, role),
        other,
        found.reference.view.where.metadata.labels,
        found.other.view.where.metadata.labels,
        _freshness(found.other, other) if live else 0,
    )


def _freshness(side: Side, columns: Columns) -> int | U1:
    stale = side.view.stale_pages
    if stale is None or len(stale) == 0:
        return _FRESH
    return np.where(np.isin(columns.key >> PAGE_SHIFT, stale), _STALE, _FRESH).astype(np.uint8)
