"""Which names an EPICS address may have, and which characters a text may hold.

Both rules are here and nowhere else: the contracts' limits, files that are imported and the channel
tables ask this module. What gets past them is shown on terminals and pages by others than the one
who wrote it, so characters that act on a display instead of being shown are refused.
"""

from __future__ import annotations

import re
import unicodedata

MAX_NAME_BYTES = 500

_GOOD = re.compile(r"[!-~]{1,500}\Z")
"""Printable ASCII: by far the most names, decided by one match."""

_JOINERS = "\u200c\u200d"
"""Formats that words of some languages are spelled with."""


def record_of(address: str) -> str:
    """The address without the field that is meant where none is named: `X` and `X.VAL` are one.

    Every other field (`X.DESC`), long strings (`X.VAL$`) and filters are channels of their own.
    """
    return address.removesuffix(".VAL")


def other_form(address: str) -> str:
    """How an address may be written as well: `X` for `X.VAL`, and `X.VAL` for `X`."""
    bare = record_of(address)
    return bare if bare != address else f"{address}.VAL"


def name_problem(name: str) -> str | None:
    """Why `name` cannot be an EPICS name, in words that follow the name, or None if it can.

    1 to 500 bytes of UTF-8 without blanks, control characters and characters that are not shown.
    Everything else is left to the IOC: field suffixes, long-string modifiers and JSON filters are
    all part of an address.
    """
    if _GOOD.match(name):
        return None
    if not name:
        return "is empty"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if size > MAX_NAME_BYTES:
        return f"has {size} bytes, more than {MAX_NAME_BYTES}"
    for index, char in enumerate(name):
        if char.isspace():
            return f"has a blank at position {index + 1}"
        if not char.isprintable():
            return f"has the control character U+{ord(char):04X} at position {index + 1}"
    return None


def text_problem(text: str, *, multiline: bool = False) -> str | None:
    """Why `text` cannot be a title, comment or description, in words that follow it, or None.

    Control characters, line and paragraph separators, surrogates, and formats such as marks of
    writing direction are refused. `multiline` allows tab, newline and carriage return.
    """
    if text.isprintable():
        return None
    for index, char in enumerate(text):
        if char.isprintable() or (multiline and char in "\t\n\r"):
            continue
        category = unicodedata.category(char)
        if category in {"Cc", "Cs", "Zl", "Zp"} or (category == "Cf" and char not in _JOINERS):
            return f"has the control character U+{ord(char):04X} at position {index + 1}"
    return None


def one_form(text: str) -> str:
    """`text` in Unicode's form NFC: letters with accents have two codings that look the same.

    For what people call things: tags and their groups, devices, labels, keys. Never for names of
    EPICS, which are bytes to an IOC, nor for values.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def escape_text(text: str) -> str:
    """`text` for one line of a log: what is not shown is written out (`\\x1b`)."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
