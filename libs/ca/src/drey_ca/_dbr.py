"""Channel Access data types (`db_access.h`) as numbers and layouts."""

from __future__ import annotations

from drey_core.values import Kind

DBR_STRING, DBR_SHORT, DBR_FLOAT, DBR_ENUM, DBR_CHAR, DBR_LONG, DBR_DOUBLE = range(7)
SCALAR_KIND = (
    Kind.STRING,
    Kind.INT16,
    Kind.FLOAT32,
    Kind.ENUM,
    Kind.UINT8,
    Kind.INT32,
    Kind.FLOAT64,
)
"""Our kind of each basic DBR type."""

LIMITS = (
    "display_high",
    "display_low",
    "alarm_high",
    "warning_high",
    "warning_low",
    "alarm_low",
    "control_high",
    "control_low",
)
"""Columns of `InfoColumns` in the order in which EPICS lays the limits out."""


def dbr_type(kind: Kind) -> int:
    """The basic DBR type that reads as `kind`; ValueError if Channel Access has none."""
    if kind not in SCALAR_KIND:
        raise ValueError(f"Channel Access cannot read as {kind!r}")
    return SCALAR_KIND.index(kind)
