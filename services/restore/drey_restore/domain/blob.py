"""Columns as bytes: one canonical form, which is what a digest covers and what is stored.

A magic number, then for each section its name, its type and its bytes, in the order given. The
same columns give the same bytes on any machine.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from drey_core.errors import Internal
from drey_core.values import Columns, pack_strings

MAGIC = b"DRRS\x01"
_HEAD = struct.Struct("<B8sQ")
_BYTES = b"bytes"
_LEVEL = 1

Section = NDArray[Any] | bytes

_COLUMNS = (
    ("key", "<i8"),
    ("kind", "u1"),
    ("state", "u1"),
    ("origin", "u1"),
    ("severity", "u1"),
    ("status", "<u2"),
    ("source_time", "<i8"),
    ("receive_time", "<i8"),
    ("data", "<u8"),
)


def encode_sections(sections: Mapping[str, Section]) -> bytes:
    """Sections in canonical form."""
    parts = [MAGIC]
    for name, section in sections.items():
        if isinstance(section, bytes):
            kind, raw = _BYTES, section
        else:
            array = np.ascontiguousarray(section, section.dtype.newbyteorder("<"))
            kind, raw = array.dtype.str.lstrip("|<").encode(), array.tobytes()
        label = name.encode()
        parts += [_HEAD.pack(len(label), kind, len(raw)), label, raw]
    return b"".join(parts)


def decode_sections(raw: bytes) -> dict[str, Section]:
    """Inverse of `encode`; arrays are views. Raises `Internal` on anything else."""
    if not raw.startswith(MAGIC):
        raise Internal("stored columns of an unknown form")
    out: dict[str, Section] = {}
    offset = len(MAGIC)
    while offset < len(raw):
        length, kind, size = _HEAD.unpack_from(raw, offset)
        offset += _HEAD.size
        name = raw[offset : offset + length].decode()
        offset += length
        body = raw[offset : offset + size]
        offset += size
        if len(body) != size:
            raise Internal("stored columns that end too early")
        kind = kind.rstrip(b"\0")
        out[name] = body if kind == _BYTES else np.frombuffer(body, "<" + kind.decode())
    return out


def compress_blob(raw: bytes) -> bytes:
    """For the database."""
    return zstandard.ZstdCompressor(_LEVEL).compress(raw)


def decompress_blob(blob: bytes) -> bytes:
    """Inverse of `compress`. Raises `Internal` where the bytes are damaged."""
    try:
        return zstandard.ZstdDecompressor().decompress(blob)
    except zstandard.ZstdError as error:
        raise Internal(f"stored columns cannot be decompressed: {error}") from error


def digest(raw: bytes) -> str:
    """BLAKE2b over the canonical form, 64 hexadecimal digits."""
    return hashlib.blake2b(raw, digest_size=32).hexdigest()


def text_section(texts: list[str]) -> bytes:
    """Texts as a section; lone surrogates stand for bytes that were not UTF-8."""
    joined = "".join(texts)
    if not joined.isascii():
        return pack_strings([text.encode("utf-8", "surrogateescape") for text in texts])
    # nearly always: characters are bytes, so that the whole is encoded at once
    lengths = np.fromiter(map(len, texts), "<u4", len(texts))
    return struct.pack("<I", len(texts)) + lengths.tobytes() + joined.encode()


def text_parts(section: Section) -> tuple[NDArray[np.int64], bytes]:
    """(lengths in bytes, all texts joined) of a text section. `Internal` on anything else."""
    raw = bytes(section)
    count = struct.unpack_from("<I", raw)[0] if len(raw) >= 4 else 0
    if len(raw) < 4 + 4 * count:
        raise Internal("stored texts that end too early")
    lengths = np.frombuffer(raw, "<u4", count, 4).astype(np.int64)
    body = raw[4 + 4 * count :]
    if int(lengths.sum()) != len(body):
        raise Internal("stored texts do not end where their lengths say")
    return lengths, body


def texts_of(section: Section) -> list[str]:
    """Inverse of `text_section`. Raises `Internal` on anything else."""
    lengths, body = text_parts(section)
    ends = np.cumsum(lengths).tolist()
    spans = zip([0, *ends], ends, strict=False)
    if not body.isascii():
        return [body[start:end].decode("utf-8", "surrogateescape") for start, end in spans]
    whole = body.decode()
    return [whole[start:end] for start, end in spans]


def columns_sections(prefix: str, columns: Columns) -> dict[str, Section]:
    """The sections of columns, the heap laid out without gaps."""
    columns = columns.compact_heap()
    sections: dict[str, Section] = {
        f"{prefix}.{name}": getattr(columns, name).astype(dtype, copy=False)
        for name, dtype in _COLUMNS
    }
    sections[f"{prefix}.heap"] = columns.heap
    return sections


def columns_of(prefix: str, sections: Mapping[str, Section]) -> Columns:
    """Inverse of `columns_sections`."""
    fields: dict[str, Any] = {name: sections[f"{prefix}.{name}"] for name, _ in _COLUMNS}
    merged = np.zeros(len(fields["key"]), np.uint32)
    return Columns(merged=merged, heap=bytes(sections[f"{prefix}.heap"]), **fields)
