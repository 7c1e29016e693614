"""The image form of pages: uncompressed bytes, as they lie in Redis."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.errors import Malformed
from drey_core.pages import PAGE_SLOTS, TIMES_DTYPE, VALUES_DTYPE, Pages
from drey_core.values import Kind, Origin, Severity, State, why_malformed

_HEADER = struct.Struct("<4sHHQ")
_MAGIC = b"DRYP"
_IMAGE_VERSION = 1
_VALUES_BYTES = VALUES_DTYPE.itemsize
_TIMES_BYTES = TIMES_DTYPE.itemsize


def encode_page(pages: Pages, index: int) -> bytes:
    """One page in image form."""
    heap = pages.heaps[index]
    return b"".join(
        (
            _HEADER.pack(_MAGIC, _IMAGE_VERSION, PAGE_SLOTS, len(heap)),
            pages.values[index].tobytes(),
            heap,
            pages.times[index].tobytes(),
        )
    )


def fill_pages(
    pages: Pages,
    rows: Sequence[int],
    blobs: Iterable[bytes],
    refuse: Callable[[int, Malformed], None],
) -> None:
    """Decode image forms into the places `rows` of `pages`; what is torn stays absent.

    Each of `blobs` is asked for when its turn comes. `refuse` is told the row and what is wrong.
    """
    fixed, times = _as_bytes(pages.values), _as_bytes(pages.times)
    for row, blob in zip(rows, blobs, strict=True):
        try:
            heap_end = _HEADER.size + _VALUES_BYTES + _check_header(blob)
        except Malformed as error:
            refuse(row, error)
            continue
        raw = memoryview(blob)
        offset = row * _VALUES_BYTES
        fixed[offset : offset + _VALUES_BYTES] = raw[_HEADER.size : _HEADER.size + _VALUES_BYTES]
        pages.heaps[row] = blob[_HEADER.size + _VALUES_BYTES : heap_end]
        offset = row * _TIMES_BYTES
        times[offset : offset + _TIMES_BYTES] = raw[heap_end:]
    for row in _doubtful_pages(pages, rows):
        why = _why_malformed(pages, row)
        if why:
            pages.values[row], pages.times[row], pages.heaps[row] = 0, 0, b""
            refuse(row, Malformed(f"a torn image page: {why}"))


def _doubtful_pages(pages: Pages, rows: Sequence[int]) -> list[int]:
    """Which pages have to be looked at one by one: with a heap, or with an impossible code."""
    values = pages.values
    odd = (values["kind"] > max(Kind)).any(axis=1) | (values["kind"] == Kind.STRING).any(axis=1)
    odd |= (values["state"] > max(State)).any(axis=1)
    odd |= (values["severity"] > max(Severity)).any(axis=1)
    odd |= (pages.times["origin"] > max(Origin)).any(axis=1)
    return [row for row in rows if odd[row] or pages.heaps[row]]


def _why_malformed(pages: Pages, row: int) -> str:
    page = pages.values[row]
    codes = (page["kind"], page["state"], pages.times["origin"][row], page["severity"])
    return why_malformed(*codes, page["data"], pages.heaps[row])


def _as_bytes(array: NDArray[Any]) -> memoryview:
    return array.view(np.uint8).data


def _check_header(blob: bytes) -> int:
    if len(blob) < _HEADER.size:
        raise Malformed("an image page is shorter than its header")
    magic, version, slots, heap_len = _HEADER.unpack_from(blob)
    if magic != _MAGIC or version != _IMAGE_VERSION or slots != PAGE_SLOTS:
        raise Malformed(f"an image page of unknown form: {magic!r} version {version}")
    expected = _HEADER.size + _VALUES_BYTES + heap_len + _TIMES_BYTES
    if len(blob) != expected:
        raise Malformed(f"a torn image page: {len(blob)} bytes instead of {expected}")
    return int(heap_len)
