"""Which names an EPICS address may have."""

from __future__ import annotations

import re

MAX_NAME_BYTES = 500

_GOOD = re.compile(r"[!-~]{1,500}\Z")
"""Printable ASCII: by far the most names, decided by one match."""


def name_problem(name: str) -> str | None:
    """Why `name` cannot be an EPICS name, in words that follow the name, or None if it can.

    1 to 500 bytes of UTF-8 without blanks and control characters. Everything else is left to the
    IOC: field suffixes, long-string modifiers and JSON filters are all part of an address.
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
    for at, char in enumerate(name):
        if char.isspace():
            return f"has a blank at position {at + 1}"
        if not char.isprintable():
            return f"has the control character U+{ord(char):04X} at position {at + 1}"
    return None
