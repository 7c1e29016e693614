"""Which names a channel can have."""

from __future__ import annotations

from collections.abc import Sequence

from drey_core.errors import InvalidArgument

MAX_NAME = 500


def checked_names(names: Sequence[str]) -> list[bytes]:
    """Names as they go on the wire; InvalidArgument naming the first that cannot."""
    return [_checked(i, text) for i, text in enumerate(names)]


def _checked(index: int, text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    bad = any(byte <= 0x20 or byte == 0x7F for byte in raw)
    if not raw or len(raw) > MAX_NAME or bad:
        raise InvalidArgument(
            f"no channel can be named {text[:60]!r}: 1 to {MAX_NAME} bytes without blanks"
            " and control characters",
            field=f"names[{index}]",
        )
    return raw
