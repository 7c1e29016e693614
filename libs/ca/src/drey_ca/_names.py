"""Which names a channel can have."""

from __future__ import annotations

import re
from collections.abc import Sequence

from drey_core.errors import InvalidArgument

MAX_NAME = 500
_NAME = re.compile(rb"[^\x00-\x20\x7f]{1,%d}" % MAX_NAME).fullmatch


def checked_names(names: Sequence[str]) -> list[bytes]:
    """Names as they go on the wire; InvalidArgument naming the first that cannot."""
    raw = [text.encode("utf-8", "surrogateescape") for text in names]
    if not all(map(_NAME, raw)):
        index = next(i for i, name in enumerate(raw) if not _NAME(name))
        raise InvalidArgument(
            f"no channel can be named {names[index][:60]!r}: 1 to {MAX_NAME} bytes without blanks"
            " and control characters",
            field=f"names[{index}]",
        )
    return raw
