"""The stored form of pages: compressed bytes, as they lie in Postgres, and their hashes.

Versioned and readable for ever; all pages of a snapshot in a few numpy calls. Values and times lie
apart: the hash of the values leaves out receive times and origins, so that a fail-over of monitors,
which changes those only, makes no new value page.

A stored page is a version (1 byte) and zstd of its columns. Columns of 8-byte numbers are stored as
byte planes (all first bytes, then all second bytes, ...), which is what makes time stamps and
readings compress. Pages of text (catalog, metadata, trees) are a version and zstd of their bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from drey_core.errors import Malformed, ResourceExhausted
from drey_core.pages import (
    HASH_BYTES,
    PAGE_SLOTS,
    TIMES_DTYPE,
    VALUES_DTYPE,
    PageHash,
    Pages,
    hash_bytes,
)
from drey_core.values import Columns, heap_mask, heap_slice, pack_heap

_VERSION = b"\x01"
_LEVEL = -1
"""Byte planes of values compress as well by this as by 1, in a third of the time."""
_TEXT_LEVEL = 1
_WIDE = PAGE_SLOTS * 8
VALUES_BYTES = VALUES_DTYPE.itemsize
TIMES_BYTES = TIMES_DTYPE.itemsize
_NARROW = VALUES_BYTES - 2 * _WIDE
_STORED_LIMIT = 1 << 30
"""No more is stored or unpacked of a page, whatever it claims; 256 arrays of 4 MB."""
_SEVERITIES = 3 * PAGE_SLOTS
"""End of the columns of one byte: kinds, states, severities."""

ValuePage = tuple[bytes, bytes]
"""A page's fixed columns (`VALUES_DTYPE`) as bytes, and its heap."""


def split_values(pages: Pages) -> list[ValuePage]:
    """Each page's fixed columns and heap."""
    raw = pages.values.tobytes()
    return [
        (raw[offset : offset + VALUES_BYTES], heap)
        for offset, heap in zip(range(0, len(raw), VALUES_BYTES), pages.heaps, strict=True)
    ]


def split_times(pages: Pages) -> list[bytes]:
    """Each page's receive times and origins (`TIMES_DTYPE`) as bytes."""
    raw = pages.times.tobytes()
    return [raw[offset : offset + TIMES_BYTES] for offset in range(0, len(raw), TIMES_BYTES)]


def join_pages(
    numbers: NDArray[np.int64], values: Sequence[ValuePage], times: Sequence[bytes]
) -> Pages:
    """Inverse of `split_values` and `split_times`; the arrays are read-only."""
    fixed = np.frombuffer(b"".join([v for v, _ in values]), VALUES_DTYPE)
    return Pages(
        numbers, fixed, np.frombuffer(b"".join(times), TIMES_DTYPE), [heap for _, heap in values]
    )


def hash_values(fixed: bytes | memoryview, heap: bytes) -> PageHash:
    """The address of a page's values; receive times and origins are no part of it."""
    digest = hashlib.blake2b(fixed, digest_size=HASH_BYTES)
    if heap:
        digest.update(heap)
    return digest.digest()


def value_hashes(pages: Pages) -> list[PageHash]:
    """Each page's `hash_values`."""
    fixed = pages.values.view(np.uint8).reshape(len(pages), VALUES_BYTES)
    return [hash_values(row.data, heap) for row, heap in zip(fixed, pages.heaps, strict=True)]


def times_hashes(pages: Pages) -> list[PageHash]:
    """The address of each page's receive times and origins."""
    fixed = pages.times.view(np.uint8).reshape(len(pages), TIMES_BYTES)
    return [hash_bytes(row.tobytes()) for row in fixed]


def store_values(pages: Sequence[ValuePage]) -> list[bytes]:
    """The stored forms of value pages."""
    if not pages:
        return []
    array = np.frombuffer(b"".join([fixed for fixed, _ in pages]), VALUES_DTYPE)
    n = len(array)
    matrix = np.concatenate(
        [
            array["kind"],
            array["state"],
            array["severity"],
            np.ascontiguousarray(array["status"]).view(np.uint8),
            _byte_planes(array["source_time"]),
            _byte_planes(array["data"]),
        ],
        axis=1,
    )
    raw = matrix.tobytes()
    compress = zstandard.ZstdCompressor(_LEVEL).compress
    heaps = [_checked_heap(heap) for _, heap in pages]
    return [
        _VERSION + compress(raw[i * VALUES_BYTES : (i + 1) * VALUES_BYTES] + heaps[i])
        for i in range(n)
    ]


def _checked_heap(heap: bytes) -> bytes:
    if len(heap) > _STORED_LIMIT - VALUES_BYTES:
        raise ResourceExhausted(
            f"the strings and arrays of 256 consecutive channels take {len(heap)} bytes, and"
            f" {_STORED_LIMIT} can be stored; leave some of their PVs out of the snapshot"
        )
    return heap


def store_times(pages: Sequence[bytes]) -> list[bytes]:
    """The stored forms of pages of receive times."""
    if not pages:
        return []
    array = np.frombuffer(b"".join(pages), TIMES_DTYPE)
    raw = np.concatenate([_byte_planes(array["receive_time"]), array["origin"]], axis=1).tobytes()
    compress = zstandard.ZstdCompressor(_LEVEL).compress
    return [
        _VERSION + compress(raw[offset : offset + TIMES_BYTES])
        for offset in range(0, len(raw), TIMES_BYTES)
    ]


def load_values(blobs: Sequence[bytes]) -> list[ValuePage]:
    """Value pages from their stored forms. Raises `Malformed` for what is none."""
    if not blobs:
        return []
    raws = _inflate_all(blobs)
    if any(len(raw) < VALUES_BYTES for raw in raws):
        raise Malformed("a stored page is too short")
    matrix = _byte_matrix([raw[:VALUES_BYTES] for raw in raws], VALUES_BYTES)
    array = np.zeros(len(raws), VALUES_DTYPE)
    array["kind"] = matrix[:, :PAGE_SLOTS]
    array["state"] = matrix[:, PAGE_SLOTS : 2 * PAGE_SLOTS]
    array["severity"] = matrix[:, 2 * PAGE_SLOTS : 3 * PAGE_SLOTS]
    array["status"] = np.ascontiguousarray(matrix[:, 3 * PAGE_SLOTS : _NARROW]).view("<u2")
    array["source_time"] = _join_planes(matrix[:, _NARROW : _NARROW + _WIDE]).view("<i8")
    array["data"] = _join_planes(matrix[:, _NARROW + _WIDE :]).view("<u8")
    fixed = array.tobytes()
    return [
        (fixed[i * VALUES_BYTES : (i + 1) * VALUES_BYTES], raw[VALUES_BYTES:])
        for i, raw in enumerate(raws)
    ]


def load_times(blobs: Sequence[bytes]) -> list[bytes]:
    """Pages of receive times from their stored forms. Raises `Malformed` for what is none."""
    if not blobs:
        return []
    raws = _inflate_all(blobs)
    if any(len(raw) != TIMES_BYTES for raw in raws):
        raise Malformed("a stored page of times has the wrong length")
    matrix = _byte_matrix(raws, TIMES_BYTES)
    array = np.zeros(len(raws), TIMES_DTYPE)
    array["receive_time"] = _join_planes(matrix[:, :_WIDE]).view("<i8")
    array["origin"] = matrix[:, _WIDE:]
    fixed = array.tobytes()
    return [fixed[offset : offset + TIMES_BYTES] for offset in range(0, len(fixed), TIMES_BYTES)]


def load_value_slots(blobs: Sequence[bytes], slots: Sequence[int]) -> list[Columns]:
    """For each slot its value in each page, a row a page; only these are taken out of the pages.

    Keys, receive times and origins are 0: `load_times_slots` has them. Raises as `load_values`.
    """
    raws = _inflate_all(blobs)
    if any(len(raw) < VALUES_BYTES for raw in raws):
        raise Malformed("a stored page is too short")
    matrix = _byte_matrix([raw[:VALUES_BYTES] for raw in raws], VALUES_BYTES)
    return [_value_slot(matrix, raws, slot) for slot in slots]


def _value_slot(matrix: NDArray[np.uint8], raws: Sequence[bytes], slot: int) -> Columns:
    columns = Columns.empty_columns(len(raws))
    narrow = matrix[:, slot:_SEVERITIES:PAGE_SLOTS]
    columns.kind[:], columns.state[:], columns.severity[:] = narrow.T
    status = 3 * PAGE_SLOTS + 2 * slot
    columns.status[:] = np.ascontiguousarray(matrix[:, status : status + 2]).view("<u2")[:, 0]
    columns.source_time[:] = _slot_cells(matrix, _NARROW, slot).view("<i8")[:, 0]
    columns.data[:] = _slot_cells(matrix, _NARROW + _WIDE, slot).view("<u8")[:, 0]
    rows = np.flatnonzero(heap_mask(columns.kind))
    # in a page's bytes its heap comes after its columns
    cells = (columns.data[rows] + np.uint64(VALUES_BYTES)).tolist()
    values = [raws[row][heap_slice(cell)] for row, cell in zip(rows.tolist(), cells, strict=True)]
    columns.data[rows], heap = pack_heap(values)
    return replace(columns, heap=heap)


def load_times_slots(
    blobs: Sequence[bytes], slots: Sequence[int]
) -> list[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """For each slot its receive time and its origin in each page. Raises as `load_times`."""
    raws = _inflate_all(blobs)
    if any(len(raw) != TIMES_BYTES for raw in raws):
        raise Malformed("a stored page of times has the wrong length")
    matrix = _byte_matrix(raws, TIMES_BYTES)
    return [
        (_slot_cells(matrix, 0, slot).view("<i8")[:, 0], matrix[:, _WIDE + slot]) for slot in slots
    ]


def _slot_cells(matrix: NDArray[np.uint8], begin: int, slot: int) -> NDArray[np.uint8]:
    """The eight bytes of one slot of a column in byte planes, shape (n, 8)."""
    return np.ascontiguousarray(matrix[:, begin + slot : begin + _WIDE : PAGE_SLOTS])


def store_text(raw: bytes) -> bytes:
    """The stored form of a directory page or tree."""
    return _VERSION + zstandard.ZstdCompressor(_TEXT_LEVEL).compress(raw)


def load_text(blobs: Sequence[bytes]) -> list[bytes]:
    """Directory pages or trees from their stored forms. Raises `Malformed` for what is none."""
    return _inflate_all(blobs)


def _byte_planes(column: NDArray[Any]) -> NDArray[np.uint8]:
    """Byte planes of an (n, 256) column of 8-byte numbers, shape (n, 2048)."""
    n = len(column)
    split = np.ascontiguousarray(column).view(np.uint8).reshape(n, PAGE_SLOTS, 8)
    return split.transpose(0, 2, 1).reshape(n, _WIDE)


def _join_planes(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Inverse of `_byte_planes`, still as bytes of shape (n, 2048)."""
    n = len(planes)
    return planes.reshape(n, 8, PAGE_SLOTS).transpose(0, 2, 1).reshape(n, _WIDE)


def _byte_matrix(raws: Sequence[bytes], width: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(raws), np.uint8).reshape(len(raws), width)


def _inflate_all(blobs: Sequence[bytes]) -> list[bytes]:
    decompress = zstandard.ZstdDecompressor().decompress
    raws = []
    for blob in blobs:
        if blob[:1] != _VERSION:
            raise Malformed(f"a stored page of unknown version {blob[:1].hex()}")
        frame = memoryview(blob)[1:]
        try:
            claimed = zstandard.frame_content_size(frame)
            if not 0 <= claimed <= _STORED_LIMIT:
                raise Malformed(f"a stored page that claims {claimed} bytes")
            raws.append(decompress(frame))
        except zstandard.ZstdError as error:
            raise Malformed(f"a stored page cannot be decompressed: {error}") from error
    return raws
