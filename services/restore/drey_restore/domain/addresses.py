"""What an address names within a record, as far as a plan has to know."""

from __future__ import annotations

from drey_core.names import record_of

_LOW_LIMITS = ("DRVL", "LLM")
_HIGH_LIMITS = ("DRVH", "HLM")
DISABLING = frozenset({"DISP", "DISA", "DISV", "SDIS"})
"""Fields that decide whether a record takes values, and does something with them."""
_BEFORE_VALUES = frozenset(
    {*_LOW_LIMITS, *_HIGH_LIMITS, *DISABLING, "HOPR", "LOPR", "OMSL", "SPMG", "SET"}
)
"""Limits and modes of a record: written before its values."""


def field_of(address: str) -> str:
    """The same text for all addresses of one field: `X`, `X.VAL`, `X$` and `X.VAL$` are one."""
    return record_of(address.removesuffix("$"))


def field_key(address: str) -> str:
    """The same text for all addresses whose writes decide one field: X.RVAL is X in raw units."""
    return field_of(address).removesuffix(".RVAL")


def renamed_address(address: str, record: str) -> str:
    """The address with another name of its record."""
    return record + address.removeprefix(record_name(address))


def limit_field(address: str) -> tuple[str, bool] | None:
    """(record, whether it is the high one) of a control limit; None of all other fields."""
    record, _, name = address.rpartition(".")
    if record and name in _LOW_LIMITS + _HIGH_LIMITS:
        return record, name in _HIGH_LIMITS
    return None


def comes_first(address: str) -> bool:
    """Whether it is a limit or a mode, which is written before the values of its stage."""
    record, _, name = address.rpartition(".")
    return bool(record) and name in _BEFORE_VALUES


def record_name(address: str) -> str:
    """Name of the record, without field, long-string mark and filter."""
    return address.partition("{")[0].partition(".")[0].removesuffix("$")


def field_name(address: str) -> str:
    """Name of the field that an address names; VAL where it names none."""
    return address.partition("{")[0].partition(".")[2].removesuffix("$") or "VAL"
