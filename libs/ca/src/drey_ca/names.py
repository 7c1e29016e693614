"""Which names a channel can have on the wire."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drey_core.errors import InvalidArgument
from drey_core.names import MAX_NAME_BYTES

_PLAIN = re.compile(rf"[!-~]{{1,{MAX_NAME_BYTES}}}").fullmatch
"""Printable ASCII: by far the most names, decided by one match."""
_NAME = re.compile(rb"[^\x00-\x20\x7f]{1,%d}" % MAX_NAME_BYTES).fullmatch


def is_name(text: str) -> bool:
    """1 to 500 bytes of UTF-8 without blanks and control characters; surrogates are raw bytes."""
    return _PLAIN(text) is not None or _NAME(_encoded(text)) is not None


def are_names(texts: Sequence[str]) -> NDArray[np.bool_]:
    """`is_name` of each, shape (n,)."""
    if all(map(_PLAIN, texts)):
        return np.ones(len(texts), np.bool_)
    return np.fromiter(map(is_name, texts), np.bool_, len(texts))


def checked_names(names: Sequence[str]) -> list[bytes]:
    """Names as they go on the wire; InvalidArgument naming the first that cannot."""
    bad = np.flatnonzero(~are_names(names))
    if len(bad):
        raise InvalidArgument(
            f"no channel can be named {names[bad[0]][:60]!r}: 1 to {MAX_NAME_BYTES} bytes without"
            " blanks and control characters",
            field=f"names[{bad[0]}]",
        )
    return list(map(_encoded, names))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
