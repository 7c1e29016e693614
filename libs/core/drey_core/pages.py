"""Pages: 256 consecutive channels as columns. The one shape in which values lie and are stored.

In memory many pages are one structured array of shape (n,), each element holding the fixed columns
of one page, so that `array["data"]` is an (n, 256) view for vectorised updates and a page's bytes
are one copy. Strings and arrays lie in a heap beside it, in slot order without gaps.

Two forms of bytes, both versioned and readable for ever:

- the *image form* (`encode_page`, `fill_pages`), uncompressed, in Redis;
- the *stored form* (`store_values`, `store_times`), compressed, in Postgres. Values and times
  apart: the hash of the values leaves out receive times and origins, so that a fail-over of
  monitors, which changes those only, makes no new value page.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray

from drey_core.distinct import distinct
from drey_core.errors import Internal, Malformed, ResourceExhausted
from drey_core.values import ARRAY, Columns, Kind, Origin, Severity, State, heap_mask, why_malformed

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

_HEADER = struct.Struct("<4sHHQ")
_MAGIC = b"DRYP"
_IMAGE_VERSION = 1
_STORED_VALUES = 1
_STORED_TIMES = 1
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
    def empty(cls, numbers: NDArray[np.int64]) -> Pages:
        """Pages with every slot absent."""
        n = len(numbers)
        return cls(numbers, np.zeros(n, VALUES_DTYPE), np.zeros(n, TIMES_DTYPE), [b""] * n)

    def __len__(self) -> int:
        return len(self.numbers)

    def columns(self, channels: NDArray[np.int64]) -> Columns:
        """The given channels as columns, in their order; those in no page here as absent.

        `channels` has any order, duplicates allowed. The heap of the result is that of all pages
        touched that have one.
        """
        if len(self.numbers) == 0:
            return Columns.empty(len(channels)).with_key(channels)
        at_safe, known = _places(self.numbers, channels >> PAGE_SHIFT)
        unknown = None if known.all() else ~known
        # Of many channels the way over a copy of the whole column is the shorter one.
        dense = _FEW_IN * len(channels) > len(self.numbers) * PAGE_SLOTS
        slot = channels & PAGE_MASK
        flat = at_safe * PAGE_SLOTS + slot if dense else None
        index = _FlatIndex(at_safe, slot)

        def pick(array: NDArray[Any], name: str) -> Any:
            if flat is not None:
                column = array[name].reshape(-1)[flat]
            else:
                cells, where = index.cells(array, name)
                column = cells[where]
            if unknown is not None:
                column[unknown] = 0
            return column

        kind = pick(self.values, "kind")
        data = pick(self.values, "data")
        heap, bases = self._joined_heap(at_safe[known & heap_mask(kind)])
        if bases is not None:
            data = np.where(heap_mask(kind), data + bases[at_safe], data)
        return Columns(
            key=channels,
            kind=kind,
            state=pick(self.values, "state"),
            origin=pick(self.times, "origin"),
            severity=pick(self.values, "severity"),
            status=pick(self.values, "status"),
            source_time=pick(self.values, "source_time"),
            receive_time=pick(self.times, "receive_time"),
            data=data,
            merged=np.zeros(len(channels), np.uint32),
            heap=heap,
        )

    def _joined_heap(self, touched: NDArray[np.int64]) -> tuple[bytes, NDArray[np.uint64] | None]:
        """Heaps of the touched pages joined, and where each page's begins (by index)."""
        if len(touched) == 0:
            return b"", None
        bases = np.zeros(len(self.numbers), np.uint64)
        parts, at = [], 0
        for index in distinct(touched).tolist():
            bases[index] = at
            parts.append(self.heaps[index])
            at += len(self.heaps[index])
        if at > 0xFFFF_FFFF:
            raise Internal("the heap of the channels asked for exceeds 4 GiB")
        return b"".join(parts), bases


def _places(
    numbers: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each wanted page is among `numbers` (ascending, at least one), and whether it is."""
    first, last = int(numbers[0]), len(numbers) - 1
    if int(numbers[last]) - first == last:  # without gaps, as in a whole machine
        at = np.clip(wanted - first, 0, last)
        return at, at == wanted - first
    at = np.minimum(np.searchsorted(numbers, wanted), last)
    return at, numbers[at] == wanted


_VALUES_NAMES: tuple[str, ...] = VALUES_DTYPE.names or ()
_TIMES_NAMES: tuple[str, ...] = TIMES_DTYPE.names or ()


class _FlatIndex:
    """Pages and slots as one flat index, which numpy follows twice as fast as both.

    Slot s of page i is cell `i * (itemsize // width) + offset + s` of a structured array seen as
    cells of one column's type. Every column begins at a multiple of its width.
    """

    def __init__(self, at: NDArray[np.int64], slot: NDArray[np.int64]) -> None:
        self._at, self._slot = at, slot
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


class PageTable:
    """Pages under construction and update: what a monitor keeps and a consumer folds into.

    Applying columns is vectorised; heap values (strings and arrays) are kept as bytes by channel
    and laid out when a page is taken. Not thread-safe.
    """

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self.pages = Pages.empty(np.sort(np.asarray(numbers, np.int64)))
        self._heap_values: list[dict[int, bytes]] = [{} for _ in range(len(self.pages))]
        self._stale_heap: set[int] = set()

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Page numbers, ascending."""
        return self.pages.numbers

    def add_pages(self, numbers: NDArray[np.int64]) -> None:
        """Make room for pages not there yet, every slot absent."""
        new = distinct(np.asarray(numbers, np.int64))
        new = new[~np.isin(new, self.numbers)]
        if len(new) == 0:
            return
        old, old_heaps = self.taken(np.arange(len(self.pages))), self._heap_values
        merged = np.sort(np.concatenate([old.numbers, new]))
        self.pages = Pages.empty(merged)
        self._heap_values = [{} for _ in range(len(merged))]
        places = np.searchsorted(merged, old.numbers)
        self.pages.values[places], self.pages.times[places] = old.values, old.times
        for i, at in enumerate(places.tolist()):
            self.pages.heaps[at], self._heap_values[at] = old.heaps[i], old_heaps[i]
        self._stale_heap = set()

    def apply(self, columns: Columns) -> NDArray[np.int64]:
        """Fold columns keyed by channel number; indices of the pages touched, ascending.

        Each channel at most once in `columns`. Channels of pages not here are ignored.
        """
        number = columns.key >> PAGE_SHIFT
        if len(self.numbers) == 0 or len(number) == 0:
            return np.zeros(0, np.int64)
        at, known = _places(self.numbers, number)
        if not known.all():
            columns, at = columns.take(known), at[known]
        slot = columns.key & PAGE_MASK
        has_heap = heap_mask(columns.kind)
        had_heap = self._scatter(columns, at, slot)
        if has_heap.any() or had_heap.any():
            self._apply_heap(columns, at, slot, had_heap, has_heap)
        touched = np.zeros(len(self.numbers), bool)
        touched[at] = True
        return np.flatnonzero(touched)

    def _scatter(
        self, columns: Columns, at: NDArray[np.int64], slot: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Write the fixed columns of rows; which of them had their value in the heap before."""
        had_heap = np.zeros(0, bool)
        flat = _FlatIndex(at, slot)
        for array, names in ((self.pages.values, _VALUES_NAMES), (self.pages.times, _TIMES_NAMES)):
            for name in names:
                cells, where = flat.cells(array, name)
                if name == "kind":
                    had_heap = heap_mask(cells[where])
                cells[where] = getattr(columns, name)
        return had_heap

    def _apply_heap(
        self,
        columns: Columns,
        at: NDArray[np.int64],
        slot: NDArray[np.int64],
        had_heap: NDArray[np.bool_],
        has_heap: NDArray[np.bool_],
    ) -> None:
        for row in np.flatnonzero(had_heap | has_heap).tolist():
            index = int(at[row])
            self._stale_heap.add(index)
            if has_heap[row]:
                self._heap_values[index][int(slot[row])] = columns.heap_bytes(row)
            else:
                self._heap_values[index].pop(int(slot[row]), None)

    def set_state(self, channels: NDArray[np.int64], state: int) -> NDArray[np.int64]:
        """Set the connection state of channels, values kept; indices of pages touched."""
        number = channels >> PAGE_SHIFT
        at = np.searchsorted(self.numbers, number)
        self.pages.values["state"][at, channels & PAGE_MASK] = state
        return distinct(at)

    def clear(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Make channels absent; indices of pages touched, ascending."""
        blank = Columns.empty(len(channels)).with_key(channels)
        return self.apply(blank)

    def replace_page(self, index: int, page: Pages) -> None:
        """Put page 0 of `page` in the place of page `index`."""
        self.replace_pages(np.array([index]), page)

    def replace_pages(self, indices: NDArray[np.int64], pages: Pages) -> None:
        """Put the first pages of `pages` in the places `indices`, each at most once."""
        n = len(indices)
        values = pages.values[:n]
        self.pages.values[indices], self.pages.times[indices] = values, pages.times[:n]
        in_heap = heap_mask(values["kind"])
        for row, index in enumerate(indices.tolist()):
            heap = self.pages.heaps[index] = pages.heaps[row]
            self._stale_heap.discard(index)
            self._heap_values[index] = {}
            if not in_heap[row].any():
                continue
            slots = np.flatnonzero(in_heap[row])
            cells = zip(slots.tolist(), values["data"][row, slots].tolist(), strict=True)
            self._heap_values[index] = {
                slot: heap[(d & 0xFFFF_FFFF) : (d & 0xFFFF_FFFF) + (d >> 32)] for slot, d in cells
            }

    def taken(self, indices: NDArray[np.int64]) -> Pages:
        """A copy of some pages by index, heaps laid out canonically."""
        for index in self._stale_heap.intersection(indices.tolist()):
            self._lay_out(index)
            self._stale_heap.discard(index)
        return Pages(
            self.numbers[indices].copy(),
            self.pages.values[indices],
            self.pages.times[indices],
            [self.pages.heaps[i] for i in indices.tolist()],
        )

    def columns(self, channels: NDArray[np.int64]) -> Columns:
        """As `Pages.columns`."""
        for index in list(self._stale_heap):
            self._lay_out(index)
        self._stale_heap.clear()
        return self.pages.columns(channels)

    def _lay_out(self, index: int) -> None:
        """Write the heap of one page in slot order without gaps."""
        cells = sorted(self._heap_values[index].items())
        at = 0
        data = self.pages.values["data"][index]
        for slot, raw in cells:
            data[slot] = len(raw) << 32 | at
            at += len(raw)
        self.pages.heaps[index] = b"".join(raw for _, raw in cells)


# --- image form ---------------------------------------------------------------------------------

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
        at = row * _VALUES_BYTES
        fixed[at : at + _VALUES_BYTES] = raw[_HEADER.size : _HEADER.size + _VALUES_BYTES]
        pages.heaps[row] = blob[_HEADER.size + _VALUES_BYTES : heap_end]
        at = row * _TIMES_BYTES
        times[at : at + _TIMES_BYTES] = raw[heap_end:]
    for row in _doubtful(pages, rows):
        why = _why_malformed(pages, row)
        if why:
            pages.values[row], pages.times[row], pages.heaps[row] = 0, 0, b""
            refuse(row, Malformed(f"a torn image page: {why}"))


def _doubtful(pages: Pages, rows: Sequence[int]) -> list[int]:
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


# --- stored form --------------------------------------------------------------------------------
#
# version (1 byte) then zstd of the columns. 8-byte columns are stored as byte planes (all first
# bytes, then all second bytes, ...), which is what makes time stamps and readings compress.

_COMPRESSION_LEVEL = -1


def hash_bytes(raw: bytes) -> PageHash:
    """The hash by which stored bytes are addressed: BLAKE2b of 32 bytes."""
    return hashlib.blake2b(raw, digest_size=HASH_BYTES).digest()


def value_hash(pages: Pages, index: int) -> PageHash:
    """The address of one page's values: over fixed columns and heap, receive times left out."""
    digest = hashlib.blake2b(pages.values[index].tobytes(), digest_size=HASH_BYTES)
    digest.update(pages.heaps[index])
    return digest.digest()


def times_hash(pages: Pages, index: int) -> PageHash:
    """The address of one page's receive times and origins."""
    return hash_bytes(pages.times[index].tobytes())


def _planes(column: NDArray[Any]) -> bytes:
    return column.view(np.uint8).reshape(-1, 8).T.tobytes()


def _unplanes(raw: bytes, dtype: str) -> NDArray[Any]:
    planes = np.frombuffer(raw, np.uint8).reshape(8, -1)
    return np.ascontiguousarray(planes.T).view(dtype).reshape(-1)


def store_values(pages: Pages, index: int) -> bytes:
    """The stored form of one page's values."""
    page = pages.values[index]
    raw = b"".join(
        (
            page["kind"].tobytes(),
            page["state"].tobytes(),
            page["severity"].tobytes(),
            page["status"].tobytes(),
            _planes(page["source_time"]),
            _planes(page["data"]),
            pages.heaps[index],
        )
    )
    if len(raw) > _STORED_LIMIT:
        raise ResourceExhausted(
            f"page {pages.numbers[index]} holds {len(raw)} bytes, {_STORED_LIMIT} can be stored"
        )
    return bytes([_STORED_VALUES]) + zstandard.ZstdCompressor(_COMPRESSION_LEVEL).compress(raw)


def store_times(pages: Pages, index: int) -> bytes:
    """The stored form of one page's receive times and origins."""
    page = pages.times[index]
    raw = _planes(page["receive_time"]) + page["origin"].tobytes()
    return bytes([_STORED_TIMES]) + zstandard.ZstdCompressor(_COMPRESSION_LEVEL).compress(raw)


_STORED_LIMIT = 1 << 30
"""No more is unpacked of a page, whatever it claims; 256 arrays of 4 MB."""
_DECOMPRESSOR = zstandard.ZstdDecompressor()


def _inflate(blob: bytes, version: int) -> bytes:
    if not blob or blob[0] != version:
        raise Malformed(f"a stored page of unknown version {blob[:1].hex()}")
    frame = memoryview(blob)[1:]
    try:
        claimed = zstandard.frame_content_size(frame)
        if not 0 <= claimed <= _STORED_LIMIT:
            raise Malformed(f"a stored page that claims {claimed} bytes")
        return _DECOMPRESSOR.decompress(frame)
    except zstandard.ZstdError as error:
        raise Malformed(f"a stored page cannot be decompressed: {error}") from error


def load_values(blob: bytes) -> tuple[NDArray[Any], bytes]:
    """(one page of `VALUES_DTYPE`, shape (1,), and its heap) from the stored form."""
    raw = _inflate(blob, _STORED_VALUES)
    if len(raw) < _VALUES_BYTES:
        raise Malformed("a stored page is too short")
    page = np.zeros(1, VALUES_DTYPE)
    at = 0
    for name, width in (("kind", 1), ("state", 1), ("severity", 1), ("status", 2)):
        end = at + PAGE_SLOTS * width
        page[name][0] = np.frombuffer(raw[at:end], VALUES_DTYPE[name].base)
        at = end
    for name, dtype in (("source_time", "<i8"), ("data", "<u8")):
        end = at + PAGE_SLOTS * 8
        page[name][0] = _unplanes(raw[at:end], dtype)
        at = end
    return page, raw[at:]


def load_times(blob: bytes) -> NDArray[Any]:
    """One page of `TIMES_DTYPE`, shape (1,), from the stored form."""
    raw = _inflate(blob, _STORED_TIMES)
    if len(raw) != _TIMES_BYTES:
        raise Malformed("a stored page of times has the wrong length")
    page = np.zeros(1, TIMES_DTYPE)
    page["receive_time"][0] = _unplanes(raw[: PAGE_SLOTS * 8], "<i8")
    page["origin"][0] = np.frombuffer(raw[PAGE_SLOTS * 8 :], np.uint8)
    return page


def mask_pages(pages: Pages, keep: NDArray[np.int64]) -> Pages:
    """A copy in which every channel that is not among `keep` is absent, heaps laid out anew."""
    mask = np.zeros(pages.values["kind"].shape, bool)
    if len(pages):
        at, known = _places(pages.numbers, keep >> PAGE_SHIFT)
        mask[at[known], keep[known] & PAGE_MASK] = True
    values, times = pages.values.copy(), pages.times.copy()
    for array in (values, times):
        for name in array.dtype.names or ():
            array[name][~mask] = 0
    heaps = list(pages.heaps)
    out = Pages(pages.numbers.copy(), values, times, heaps)
    lost = heap_mask(pages.values["kind"]) & ~mask
    for index in np.flatnonzero(lost.any(axis=1)).tolist():
        _repack(out, pages, index)
    return out


def _repack(out: Pages, pages: Pages, index: int) -> None:
    kinds = out.values["kind"][index]
    parts, at = [], 0
    for slot in np.flatnonzero((kinds & ARRAY != 0) | (kinds == Kind.STRING)).tolist():
        cell = int(pages.values["data"][index][slot])
        offset, length = cell & 0xFFFF_FFFF, cell >> 32
        parts.append(pages.heaps[index][offset : offset + length])
        out.values["data"][index][slot] = length << 32 | at
        at += length
    out.heaps[index] = b"".join(parts)
