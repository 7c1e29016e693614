"""Pages: 256 consecutive channels as columns. The one shape in which values lie and are stored.

In memory many pages are one structured array of shape (n,), each element holding the fixed columns
of one page, so that `array["data"]` is an (n, 256) view for vectorised updates and a page's bytes
are one copy. Strings and arrays lie in a heap beside it, in slot order without gaps.

Two forms of bytes, both versioned and readable for ever: the *image form* (`page_image`) in Redis,
and the *stored form* (`page_storage`) in Postgres.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from drey_core.distinct import distinct_values
from drey_core.errors import Internal
from drey_core.values import HEAP_LIMIT, Columns, heap_mask, pack_heap, unpack_heap

PAGE_SLOTS = 256
PAGE_SHIFT = 8
PAGE_MASK = PAGE_SLOTS - 1
PAGE_LIMIT = 1 << 20
"""Page numbers lie below: memory is laid out by them, and 268 million channels are enough."""

VALUES_DTYPE = np.dtype(
    [
        ("kind", "u1", PAGE_SLOTS),
        ("state", "u1", PAGE_SLOTS),
        ("severity", "u1", PAGE_SLOTS),
        ("status", "<u2", PAGE_SLOTS),
        ("source_time", "<i8", PAGE_SLOTS),
        ("data", "<u8", PAGE_SLOTS),
    ]
)
"""Fixed columns of one page that its hash covers: what the value is."""

TIMES_DTYPE = np.dtype([("receive_time", "<i8", PAGE_SLOTS), ("origin", "u1", PAGE_SLOTS)])
"""Fixed columns of one page that its value hash leaves out: how and when it came."""

HASH_BYTES = 32

PageHash = bytes
_FEW_IN = 8
"""Channels are few where there are fewer than one in so many."""


def page_of(channel: NDArray[np.int64]) -> NDArray[np.int64]:
    """Page numbers of channel numbers."""
    return channel >> PAGE_SHIFT


_N = TypeVar("_N", int, NDArray[np.int64])


def shard_of_page(page: _N, shards: int) -> _N:
    """The shard of a page, or of each of an array: pairs of pages (1, 2), (3, 4), … in turn.

    The catalog puts setpoints on the first and readbacks on the second page of a pair, so both
    channels of a PV mostly have one owner, and shards share the readbacks evenly.
    """
    return ((page - 1) >> 1) % shards


@dataclass(slots=True)
class Pages:
    """n pages: their numbers ascending, fixed columns, and a heap each.

    `values` has shape (n,) of `VALUES_DTYPE`, `times` shape (n,) of `TIMES_DTYPE`; `heaps[i]` are
    the heap bytes of page i, `b""` where it has none.
    """

    numbers: NDArray[np.int64]
    values: NDArray[Any]
    times: NDArray[Any]
    heaps: list[bytes]

    @classmethod
    def empty_pages(cls, numbers: NDArray[np.int64]) -> Pages:
        """Pages with every slot absent."""
        n = len(numbers)
        return cls(numbers, np.zeros(n, VALUES_DTYPE), np.zeros(n, TIMES_DTYPE), [b""] * n)

    def __len__(self) -> int:
        return len(self.numbers)

    def columns_of_channels(
        self, channels: NDArray[np.int64], *, with_heap: bool = True
    ) -> Columns:
        """The given channels as columns, in their order; those in no page here as absent.

        `channels` has any order, duplicates allowed. The heap of the result is that of all pages
        touched that have one; empty without it, and then strings and arrays refer to nothing.
        """
        if len(self.numbers) == 0:
            return Columns.empty_columns(len(channels)).with_key(channels)
        at_safe, known_pages = find_pages(self.numbers, channels >> PAGE_SHIFT)
        unknown = None if known_pages.all() else ~known_pages
        # Of many channels the way over a copy of the whole column is the shorter one.
        dense = _FEW_IN * len(channels) > len(self.numbers) * PAGE_SLOTS
        slot = channels & PAGE_MASK
        flat = at_safe * PAGE_SLOTS + slot if dense else None
        index = FlatIndex(at_safe, slot)

        def pick_cells(array: NDArray[Any], name: str) -> Any:
            if flat is not None:
                column = array[name].reshape(-1)[flat]
            else:
                cells, where = index.cells(array, name)
                column = cells[where]
            if unknown is not None:
                column[unknown] = 0
            return column

        kind = pick_cells(self.values, "kind")
        data = pick_cells(self.values, "data")
        heap, bases = b"", None
        if with_heap:
            heap, bases = self._joined_heap(at_safe[known_pages & heap_mask(kind)])
        if bases is not None:
            data = np.where(heap_mask(kind), data + bases[at_safe], data)
        return Columns(
            key=channels,
            kind=kind,
            state=pick_cells(self.values, "state"),
            origin=pick_cells(self.times, "origin"),
            severity=pick_cells(self.values, "severity"),
            status=pick_cells(self.values, "status"),
            source_time=pick_cells(self.values, "source_time"),
            receive_time=pick_cells(self.times, "receive_time"),
            data=data,
            merged=np.zeros(len(channels), np.uint32),
            heap=heap,
        )

    def _joined_heap(self, touched: NDArray[np.int64]) -> tuple[bytes, NDArray[np.uint64] | None]:
        """Heaps of the touched pages joined, and where each page's begins (by index)."""
        if len(touched) == 0:
            return b"", None
        bases = np.zeros(len(self.numbers), np.uint64)
        parts, size = [], 0
        for index in distinct_values(touched).tolist():
            bases[index] = size
            parts.append(self.heaps[index])
            size += len(self.heaps[index])
        if size > HEAP_LIMIT:
            raise Internal("the heap of the channels asked for exceeds 4 GiB")
        return b"".join(parts), bases


def find_pages(
    numbers: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each wanted page is among `numbers` (ascending, at least one), and whether it is."""
    first, last = int(numbers[0]), len(numbers) - 1
    if int(numbers[last]) - first == last:  # without gaps, as in a whole machine
        places = np.clip(wanted - first, 0, last)
        return places, places == wanted - first
    places = np.minimum(np.searchsorted(numbers, wanted), last)
    return places, numbers[places] == wanted


VALUES_NAMES: tuple[str, ...] = VALUES_DTYPE.names or ()
TIMES_NAMES: tuple[str, ...] = TIMES_DTYPE.names or ()


class FlatIndex:
    """Pages and slots as one flat index, which numpy follows twice as fast as both.

    Slot s of page i is cell `i * (itemsize // width) + offset + s` of a structured array seen as
    cells of one column's type. Every column begins at a multiple of its width.
    """

    def __init__(self, page_index: NDArray[np.int64], slot: NDArray[np.int64]) -> None:
        self._at, self._slot = page_index, slot
        self._bases: dict[int, NDArray[np.int64]] = {}

    def cells(self, array: NDArray[Any], name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The cells of a column's type in a contiguous array, and which of them are meant."""
        fields: Any = array.dtype.fields
        dtype, offset = fields[name][:2]
        cells = array.view(dtype.base)
        step = array.itemsize // cells.itemsize
        if step not in self._bases:
            self._bases[step] = self._at * step + self._slot
        return cells, self._bases[step] + offset // cells.itemsize


def hash_bytes(raw: bytes) -> PageHash:
    """The hash by which stored bytes are addressed: BLAKE2b of 32 bytes."""
    return hashlib.blake2b(raw, digest_size=HASH_BYTES).digest()


def mask_pages(pages: Pages, keep: NDArray[np.int64]) -> Pages:
    """A copy in which every channel that is not among `keep` is absent, heaps laid out anew."""
    mask = np.zeros(pages.values["kind"].shape, bool)
    if len(pages):
        places, known_pages = find_pages(pages.numbers, keep >> PAGE_SHIFT)
        mask[places[known_pages], keep[known_pages] & PAGE_MASK] = True
    values, times = pages.values.copy(), pages.times.copy()
    for array in (values, times):
        for name in array.dtype.names or ():
            array[name][~mask] = 0
    heaps = list(pages.heaps)
    in_heap = heap_mask(pages.values["kind"])
    kept = in_heap & mask
    for index in np.flatnonzero((in_heap & ~mask).any(axis=1)).tolist():
        slots = np.flatnonzero(kept[index])
        cells = values["data"][index]
        cells[slots], heaps[index] = pack_heap(unpack_heap(cells[slots], heaps[index]))
    return Pages(pages.numbers.copy(), values, times, heaps)
