"""What a table cannot do, by its name, and why. Where the suite allows less, it asks here.

All of it is of aioca's table: aioca hands over what it made of a message, not the message.
"""

from __future__ import annotations

from drey_ca.interface import ChannelTable
from drey_core.values import Kind

_QUIET = 0x0040_0000

_COUNT = "aioca takes the first element of a scalar, without a look at how many there are"
_MEMORY = "aioca copies as many elements as a message claims, past the end of libca's buffer"
_TEXTS = "aioca reads texts up to a NUL, past their field, and takes a count of labels below zero"

FAILS = {
    "test_a_scalar_that_is_none[aioca-more-elements-than-agreed]": _COUNT,
    "test_a_scalar_that_is_none[aioca-thousands-more]": _COUNT,
    "test_a_scalar_that_is_none[aioca-claims-a-few-more]": _COUNT,
    "test_a_scalar_that_is_none[aioca-no-element]": _COUNT,
}
"""Tests that fail, by name; one that passes one day fails the suite."""

CRASHES = {
    "test_a_count_that_no_memory_has[aioca": _MEMORY,
    "test_a_table_outlives_lies[aioca": _MEMORY,
    "test_texts_of_metadata_without_an_end[aioca": _TEXTS,
}
"""Tests that read memory that is not theirs, by how their names begin; they are not run."""


def told_text(table: ChannelTable, raw: bytes) -> bytes:
    """Units or a label as the table can tell it.

    aioca decodes them itself, and puts U+FFFD where they are not UTF-8. Values, which can be asked
    for as bytes, are told as they are.
    """
    if table.implementation_name == "aioca":
        return raw.decode("utf-8", "replace").encode()
    return raw


def told_cell(table: ChannelTable, kind: int, cell: int) -> int:
    """The bits of a scalar as the table can tell them.

    aioca makes a Python float of a 32-bit one: a signalling NaN becomes the quiet one of the same
    payload. In arrays it stays as it is.
    """
    signalling = cell & 0x7F80_0000 == 0x7F80_0000 and cell & 0x007F_FFFF and not cell & _QUIET
    if table.implementation_name == "aioca" and kind == Kind.FLOAT32 and signalling:
        return cell | _QUIET
    return cell


def sees_counts_of_scalars(table: ChannelTable) -> bool:
    """Whether a scalar of no element, or of two, is refused.

    aioca takes the first element of a scalar without a look at how many there are.
    """
    return table.implementation_name != "aioca"
