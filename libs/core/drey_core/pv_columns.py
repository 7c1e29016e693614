"""The columns of a CSV of PVs: their names, and what a cell of each can hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from drey_core.names import name_problem, one_form, text_problem
from drey_core.pv_table import (
    CompletionMode,
    PvProtocol,
    Tag,
)

SETPOINT, READBACK, DEVICE, DESCRIPTION = "Setpoint", "Readback", "Device", "Description"
NAME, READ_ONLY, PROTOCOL = "Name", "Read Only", "Protocol"
TOLERANCES = (
    "Abs Tolerance",
    "Rel Tolerance",
    "Readback Abs Tolerance",
    "Readback Rel Tolerance",
)
POLICY = {
    "Restore Completion": "completion",
    "Restore Timeout": "timeout_s",
    "Restore Settle": "settle_s",
    "Restore Stage": "stage",
    "Restore Done Channel": "done_channel",
    "Restore Done Value": "done_value",
    "Restore Ramp Rate": "ramp_rate",
    "Restore Ramp Step": "ramp_step",
    "Restore Allowed Low": "allowed_low",
    "Restore Allowed High": "allowed_high",
}
"""Columns of the restore policy → fields of `Policy`. Times in seconds."""

RESERVED = (
    *(SETPOINT, READBACK, DEVICE, DESCRIPTION, NAME),
    *(*TOLERANCES, READ_ONLY, PROTOCOL),
    *POLICY,
)
"""Column names with a meaning of their own, case ignored; all others are tag groups."""

MAX_DEVICE_BYTES, MAX_DESCRIPTION_BYTES, MAX_TAG_BYTES = 500, 10_000, 200
MAX_TAGS = 1000
MAX_CELL_CHARACTERS = MAX_TAGS * (2 * MAX_TAG_BYTES + 3)
"""Of the longest cell with a meaning: tags with every character quoted once more, and commas."""

CANONICAL_NAMES = {name.casefold(): name for name in RESERVED}
NO_TAG = ("nan", "none")
_TRUE, _FALSE = ("true", "yes", "y", "1"), ("", "false", "no", "n", "0")
PROTOCOLS = {"": PvProtocol.UNSPECIFIED, "ca": PvProtocol.CA, "pva": PvProtocol.PVA}
_COMPLETIONS = {"": CompletionMode.UNSPECIFIED} | {
    mode.name.lower().replace("_", "-"): mode for mode in CompletionMode if mode
}


def group_problem(name: str) -> str | None:
    """Why `name` cannot be that of a tag group, in words that follow it, or None.

    Each group is a column of the files of PVs, beside those with a meaning of their own.
    """
    if name.casefold() in CANONICAL_NAMES:
        return "is the name of another column in files of PVs"
    if name != name.strip() or not name:
        return "begins or ends with a blank, or is empty"
    return None


def short_cell(cell: str) -> str:
    return repr(cell if len(cell) <= 60 else cell[:60] + "…")


def parse_number(cell: str) -> float | None:
    """A number, or None for an empty cell."""
    if not cell:
        return None
    try:
        return float(_plain_number(cell))
    except ValueError:
        raise ValueError(f"{short_cell(cell)} is not a number") from None


def _plain_number(cell: str) -> str:
    """Python would also read `1_0` as 10, and the digits of other scripts."""
    if "_" in cell or not cell.isascii():
        raise ValueError(cell)
    return cell


def parse_finite(cell: str) -> float | None:
    value = parse_number(cell)
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{cell} is not finite")
    return value


def parse_range_end(cell: str) -> float | None:
    """An infinity is an open end."""
    value = parse_number(cell)
    if value is not None and math.isnan(value):
        raise ValueError(f"{cell} is no end of a range")
    return value


def parse_not_negative(cell: str) -> float | None:
    value = parse_finite(cell)
    if value is not None and value < 0:
        raise ValueError(f"{cell} is negative")
    return value


def parse_positive(cell: str) -> float | None:
    value = parse_finite(cell)
    if value is not None and value <= 0:
        raise ValueError(f"{cell} is not above zero")
    return value


def parse_tolerance(cell: str) -> float:
    return parse_not_negative(cell) or 0.0


def parse_whole(cell: str) -> int | None:
    if not cell:
        return None
    try:
        value = int(_plain_number(cell))
    except ValueError:
        raise ValueError(f"{short_cell(cell)} is not a whole number") from None
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{cell} does not fit 32 bits")
    return value


def parse_flag(cell: str) -> bool:
    folded = cell.casefold()
    if folded in _TRUE:
        return True
    if folded in _FALSE:
        return False
    raise ValueError(f"{short_cell(cell)} is neither true nor false")


def parse_protocol(cell: str) -> PvProtocol:
    if cell.casefold() not in PROTOCOLS:
        raise ValueError(f"{short_cell(cell)} is not a protocol; there are ca and pva")
    return PROTOCOLS[cell.casefold()]


def parse_completion(cell: str) -> CompletionMode | None:
    mode = _COMPLETIONS.get(cell.casefold())
    if mode is None:
        choices = ", ".join(name for name in _COMPLETIONS if name)
        raise ValueError(f"{short_cell(cell)} is not one of {choices}")
    return mode or None


def parse_channel(cell: str) -> str | None:
    problem = name_problem(cell) if cell else None
    if problem is not None:
        raise ValueError(f"{short_cell(cell)} {problem}")
    return cell or None


POLICY_PARSERS: dict[str, Callable[[str], Any]] = {
    "completion": parse_completion,
    "timeout_s": parse_positive,
    "settle_s": parse_not_negative,
    "stage": parse_whole,
    "done_channel": parse_channel,
    "done_value": parse_number,
    "ramp_rate": parse_positive,
    "ramp_step": parse_positive,
    "allowed_low": parse_range_end,
    "allowed_high": parse_range_end,
}


def parse_tags(group: str, cell: str) -> tuple[Tag, ...] | ValueError:
    """The tags of one cell, ordered, each once (the first spelling of several by case)."""
    parsed_tags: dict[str, str] = {}
    try:
        parts = _split_quoted(cell) if '"' in cell else [(p, False) for p in cell.split(",")]
    except ValueError as error:
        return error
    for raw, quoted in parts:
        tag = one_form(raw if quoted else raw.strip())
        if not tag or (not quoted and tag.casefold() in NO_TAG):
            continue
        if len(tag.encode()) > MAX_TAG_BYTES:
            return ValueError(f"the tag {short_cell(tag)} is longer than {MAX_TAG_BYTES} bytes")
        if problem := text_problem(tag):
            return ValueError(f"the tag {short_cell(tag)} {problem}")
        parsed_tags.setdefault(tag.casefold(), tag)
    return tuple((group, tag) for tag in sorted(parsed_tags.values()))


def _split_quoted(cell: str) -> list[tuple[str, bool]]:
    """(part, whether it was quoted) of a cell whose parts may be quoted once more."""
    parts: list[tuple[str, bool]] = []
    index = 0
    while index <= len(cell):
        begin = index
        while begin < len(cell) and cell[begin] == " ":
            begin += 1
        if begin < len(cell) and cell[begin] == '"':
            text, end = _quoted_part(cell, begin + 1)
            rest = cell.find(",", end)
            rest = len(cell) if rest < 0 else rest
            if cell[end:rest].strip():
                raise ValueError(f"text after the quoted tag {short_cell(text)}")
            parts.append((text, True))
        else:
            rest = cell.find(",", index)
            rest = len(cell) if rest < 0 else rest
            parts.append((cell[index:rest], False))
        index = rest + 1
    return parts


def _quoted_part(cell: str, index: int) -> tuple[str, int]:
    """(text, index after the closing quote) of a quoted part whose text begins at `index`."""
    out = []
    while True:
        end = cell.find('"', index)
        if end < 0:
            raise ValueError("a quoted tag does not end")
        out.append(cell[index:end])
        if cell[end + 1 : end + 2] != '"':
            return "".join(out), end + 1
        out.append('"')
        index = end + 2
