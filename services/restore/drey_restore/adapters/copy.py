"""Rows for PostgreSQL's binary COPY, made in columns: no Python per row."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.values import I8, U1
from drey_restore.domain import blob
from drey_runtime.database import Connection

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_WIRE = {"i2": ">i2", "i4": ">i4", "i8": ">i8", "f8": ">f8"}


def copy_rows(
    key: str, fixed: Sequence[tuple[NDArray[Any], str]], texts: Sequence[bytes], rows: I8
) -> bytes:
    """A COPY stream: the uuid `key`, then columns of fixed width, then texts, for n rows.

    `fixed` are (column of shape (n,), `i2`, `i4`, `i8` or `f8`); `texts` are text sections of a
    blob, of which `rows` (shape (n,)) are taken. What Postgres cannot hold in a text becomes
    U+FFFD. Rows go in groups of equal length, so not in order.
    """
    head = _fixed_part(key, fixed, len(texts))
    columns = [_SectionTexts(section, rows) for section in texts]
    parts: list[bytes | memoryview] = [_SIGNATURE]
    for group in _equal_lengths([column.lengths for column in columns]):
        pieces = [head[group]]
        for column in columns:
            pieces += column.copy_fields(group)
        parts.append(np.concatenate(pieces, axis=1).reshape(-1).data)
    return b"".join([*parts, _END])


def _fixed_part(key: str, fixed: Sequence[tuple[NDArray[Any], str]], texts: int) -> U1:
    """All but the texts, shape (n, bytes)."""
    fields: list[tuple[str, str]] = [("count", ">i2"), ("key_length", ">i4"), ("key", "V16")]
    for column_number, (_, kind) in enumerate(fixed):
        fields += [(f"length{column_number}", ">i4"), (f"value{column_number}", _WIRE[kind])]
    table = np.zeros(len(fixed[0][0]), np.dtype(fields))
    table["count"] = 1 + len(fixed) + texts
    table["key_length"] = 16
    table["key"] = np.void(uuid.UUID(key).bytes)
    for column_number, (column, kind) in enumerate(fixed):
        table[f"length{column_number}"] = int(kind[1])
        table[f"value{column_number}"] = column
    return table.view(np.uint8).reshape(len(table), table.dtype.itemsize)


def _equal_lengths(lengths: Sequence[I8]) -> Iterator[I8]:
    """Rows by groups in which every text has one length."""
    code = np.zeros(len(lengths[0]), np.int64)
    for column in lengths:
        code = code * (int(column.max(initial=0)) + 1) + column
    order = np.argsort(code, kind="stable")
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(code[order])) + 1)


class _SectionTexts:
    """Some texts of a section, to be gathered as bytes."""

    def __init__(self, section: bytes, rows: I8) -> None:
        lengths, body = blob.text_parts(_valid_section(section))
        self._body = np.frombuffer(body, np.uint8)
        self.lengths = lengths[rows]
        self._starts = (np.cumsum(lengths) - lengths)[rows]

    def copy_fields(self, group: I8) -> list[U1]:
        """Lengths, shape (m, 4), and texts, shape (m, length), of rows of equal length."""
        length = int(self.lengths[group[0]])
        heads = np.broadcast_to(np.frombuffer(length.to_bytes(4), np.uint8), (len(group), 4))
        return [heads, self._body[self._starts[group][:, None] + np.arange(length)]]


def _valid_section(section: bytes) -> bytes:
    """The section with texts that Postgres can hold: UTF-8 without NUL."""
    _, body = blob.text_parts(section)
    if body.isascii() and b"\0" not in body:
        return section
    texts = [text.replace("\0", "\N{REPLACEMENT CHARACTER}") for text in blob.texts_of(section)]
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    return blob.text_section(clean)


async def copy_into(conn: Connection, table: str, columns: Sequence[str], stream: bytes) -> None:
    """Send a COPY stream to `restore.{table}`."""
    await conn.copy_to_table(
        table,
        schema_name="restore",
        source=io.BytesIO(stream),
        columns=list(columns),
        format="binary",
    )
