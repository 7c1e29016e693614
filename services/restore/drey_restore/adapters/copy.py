"""Rows for PostgreSQL's binary COPY, made in columns: no Python per field."""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_runtime.database import Connection

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_WIRE = {"i2": ">i2", "i4": ">i4", "i8": ">i8", "f8": ">f8"}


def copy_rows(
    key: str, fixed: Sequence[tuple[NDArray[Any], str]], texts: Sequence[list[str]]
) -> bytes:
    """A COPY stream: the uuid `key`, then columns of fixed width, then texts, for n rows.

    `fixed` are (column, `i2`, `i4`, `i8` or `f8`). NULs in texts, which Postgres cannot hold,
    become U+FFFD.
    """
    n = len(fixed[0][0])
    fields: list[tuple[str, str]] = [("count", ">i2"), ("key_length", ">i4"), ("key", "V16")]
    for at, (_, kind) in enumerate(fixed):
        fields += [(f"length{at}", ">i4"), (f"value{at}", _WIRE[kind])]
    table = np.zeros(n, np.dtype(fields))
    table["count"] = 1 + len(fixed) + len(texts)
    table["key_length"] = 16
    table["key"] = np.void(uuid.UUID(key).bytes)
    for at, (column, kind) in enumerate(fixed):
        table[f"length{at}"] = int(kind[1])
        table[f"value{at}"] = column
    parts: list[bytes] = table.view(f"V{table.dtype.itemsize}").tolist()
    for listed in texts:
        raws = [text.encode("utf-8", "replace") for text in listed]
        if any(b"\0" in raw for raw in raws):
            raws = [raw.replace(b"\0", b"\xef\xbf\xbd") for raw in raws]
        heads = np.fromiter(map(len, raws), ">i4", n).view("V4").tolist()
        parts = list(map(add, map(add, parts, heads), raws))
    return b"".join([_SIGNATURE, *parts, _END])


async def copy_into(conn: Connection, table: str, columns: Sequence[str], stream: bytes) -> None:
    """Send a COPY stream to `restore.{table}`."""
    await conn.copy_to_table(
        table,
        schema_name="restore",
        source=io.BytesIO(stream),
        columns=list(columns),
        format="binary",
    )
