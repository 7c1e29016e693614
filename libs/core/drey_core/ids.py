"""Ids: UUIDv7, sortable by the time of their making."""

from __future__ import annotations

import uuid

import numpy as np

from drey_core.errors import InvalidArgument, Reason

RANDOM_BYTES = 8
"""How many random bytes `uuid7` takes."""


def new_uuid7(now_ns: int, random_bytes: bytes) -> str:
    """A UUIDv7 (RFC 9562) in canonical text.

    The millisecond is followed by 12 bits of its fraction (method 3 of section 6.2), so that ids
    made by one process sort by time to a quarter of a microsecond. Raises `ValueError` when
    there are fewer than `RANDOM_BYTES` random bytes or the time does not fit 48 bits of ms.
    """
    if len(random_bytes) < RANDOM_BYTES:
        raise ValueError(f"a UUIDv7 needs {RANDOM_BYTES} random bytes")
    millis, rest = divmod(now_ns, 1_000_000)
    if not 0 <= millis < 1 << 48:
        raise ValueError(f"{now_ns} ns is not a time that a UUIDv7 can hold")
    fraction = (rest << 12) // 1_000_000
    tail = int.from_bytes(random_bytes[:RANDOM_BYTES], "big") & (1 << 62) - 1
    # formatted here: `uuid.UUID` takes three times as long, and an import makes one for each PV
    text = f"{millis << 80 | 7 << 76 | fraction << 64 | 2 << 62 | tail:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_uuid7s(now_ns: int, random_bytes: bytes, n: int) -> list[str]:
    """n ids as `uuid7` makes them, ascending: each a quarter of a microsecond after the one before.

    Needs `RANDOM_BYTES` random bytes for each; raises `ValueError` as `uuid7` does.
    """
    if len(random_bytes) < n * RANDOM_BYTES:
        raise ValueError(f"{n} UUIDv7 need {n * RANDOM_BYTES} random bytes")
    first = now_ns // 1_000_000 * 4096 + (now_ns % 1_000_000 << 12) // 1_000_000
    if not 0 <= first < (1 << 60) - n:
        raise ValueError(f"{now_ns} ns is not a time that a UUIDv7 can hold")
    words = np.empty((n, 2), ">u8")
    ticks = first + np.arange(n, dtype=np.uint64)
    words[:, 0] = ticks >> 12 << 16 | 7 << 12 | ticks & 0xFFF
    tails = np.frombuffer(random_bytes, ">u8", n)
    words[:, 1] = tails & (1 << 62) - 1 | 1 << 63
    text = words.tobytes().hex()
    return [
        f"{text[i : i + 8]}-{text[i + 8 : i + 12]}-{text[i + 12 : i + 16]}"
        f"-{text[i + 16 : i + 20]}-{text[i + 20 : i + 32]}"
        for i in range(0, 32 * n, 32)
    ]


def parse_uuid(text: str, field: str) -> str:
    """The id in canonical text (lower case, with hyphens).

    Raises `InvalidArgument` with reason MALFORMED_ID and the field when it is not one. Only the
    canonical layout is taken: no braces, no `urn:uuid:`, no missing hyphens.
    """
    try:
        canonical = str(uuid.UUID(text)) if len(text) == 36 else ""
    except ValueError:
        canonical = ""
    if canonical == "" or canonical != text.lower():
        shown = text if len(text) <= 60 else text[:60] + "…"
        raise InvalidArgument(
            f"{field}: {shown!r} is not a UUID",
            reason=Reason.MALFORMED_ID,
            field=field,
            metadata={"field": field},
        )
    return canonical
