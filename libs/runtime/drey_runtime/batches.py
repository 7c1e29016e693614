"""Value batches: columns to `drey.events.v1.ValueBatch` and back, without touching a value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey.events.v1.values_pb2 import ValueBatch
from drey_core.distinct import distinct_values
from drey_core.errors import Malformed
from drey_core.pages import PAGE_LIMIT, PAGE_SHIFT, page_of
from drey_core.values import Columns, why_malformed
from drey_runtime.edge import parse_guard, require_stamp

MAX_BATCH_BYTES = 512 << 10
"""Aim for one message; NATS takes 1 MiB by default."""
MAX_BUS_VALUE = 256 << 10
"""A single value beyond this is not sent; consumers read its page from the image."""
_ROW_BYTES = 45

_COLUMNS = (
    ("channels", "key", "<i8"),
    ("kinds", "kind", "u1"),
    ("states", "state", "u1"),
    ("origins", "origin", "u1"),
    ("severities", "severity", "u1"),
    ("statuses", "status", "<u2"),
    ("source_times", "source_time", "<i8"),
    ("receive_times", "receive_time", "<i8"),
    ("data", "data", "<u8"),
    ("merged", "merged", "<u4"),
)


def encode_batches(
    columns: Columns, *, shard: int, epoch: int, sequence: int, time_ns: int, directory_version: int
) -> list[bytes]:
    """The messages of one sequence, each of at most about `MAX_BATCH_BYTES`; never empty."""
    columns, large = _without_large(columns)
    slices = _message_slices(columns)
    out = []
    for part, (start, stop) in enumerate(slices):
        chosen = columns if len(slices) == 1 else _compact_rows(columns, slice(start, stop))
        batch = ValueBatch(
            shard=shard,
            epoch=epoch,
            sequence=sequence,
            time_ns=time_ns,
            directory_version=directory_version,
            part=part,
            more=part + 1 < len(slices),
            heap=chosen.heap,
            **{
                field: np.ascontiguousarray(getattr(chosen, name), dtype).tobytes()
                for field, name, dtype in _COLUMNS
            },
        )
        if part + 1 == len(slices):
            batch.large_pages = large.astype("<u4").tobytes()
        out.append(batch.SerializeToString())
    return out


def decode_batch(raw: bytes) -> tuple[ValueBatch, Columns]:
    """A batch's stamps, and its columns as views. Raises `Malformed` on anything torn."""
    with parse_guard("a value batch"):
        batch = ValueBatch.FromString(raw)
        arrays: dict[str, Any] = {
            name: np.frombuffer(getattr(batch, field), dtype) for field, name, dtype in _COLUMNS
        }
        large_pages(batch)
    require_stamp("a value batch", batch.epoch, batch.sequence, batch.directory_version)
    lengths = {len(a) for a in arrays.values()}
    if len(lengths) != 1:
        raise Malformed(f"a value batch whose columns differ in length: {sorted(lengths)}")
    columns = Columns(heap=batch.heap, **arrays)
    why = _why_not_channels(columns.key) or why_malformed(
        columns.kind, columns.state, columns.origin, columns.severity, columns.data, columns.heap
    )
    if why:
        raise Malformed(f"a value batch with {why}")
    return batch, columns


def _why_not_channels(key: NDArray[np.int64]) -> str:
    if len(key) == 0:
        return ""
    if int(key.min()) <= 0 or int(key.max()) >= PAGE_LIMIT << PAGE_SHIFT:
        return "channel numbers out of range"
    ascending = bool((key[1:] > key[:-1]).all())
    return "" if ascending or len(distinct_values(key)) == len(key) else "a channel twice"


def large_pages(batch: ValueBatch) -> NDArray[np.int64]:
    """Pages of the batch that are to be read from the image."""
    return np.frombuffer(batch.large_pages, "<u4").astype(np.int64)


def _without_large(columns: Columns) -> tuple[Columns, NDArray[np.int64]]:
    big = np.flatnonzero(columns.heap_lengths() > MAX_BUS_VALUE) if columns.heap else ()
    if not len(big):
        return columns, np.zeros(0, np.int64)
    kept = np.ones(len(columns), bool)
    kept[big] = False
    return _compact_rows(columns, np.flatnonzero(kept)), distinct_values(page_of(columns.key[big]))


def _message_slices(columns: Columns) -> list[tuple[int, int]]:
    """First row of each message and the one after its last; one empty message if there is none."""
    n = len(columns)
    if not columns.heap:
        step = MAX_BATCH_BYTES // _ROW_BYTES
        return [(index, min(index + step, n)) for index in range(0, max(n, 1), step)]
    ends = np.cumsum(columns.heap_lengths() + _ROW_BYTES)
    out = []
    start = base = 0
    while start < n:
        stop = max(int(np.searchsorted(ends, base + MAX_BATCH_BYTES, "right")), start + 1)
        out.append((start, stop))
        start, base = stop, int(ends[stop - 1])
    return out or [(0, 0)]


def _compact_rows(columns: Columns, rows: NDArray[np.int64] | slice) -> Columns:
    """Rows with a heap of their own; views of the columns where `rows` is a slice."""
    chosen = _slice_rows(columns, rows) if isinstance(rows, slice) else columns.take_rows(rows)
    return chosen.compact_heap()


def _slice_rows(columns: Columns, rows: slice) -> Columns:
    views = {name: getattr(columns, name)[rows] for _, name, _ in _COLUMNS}
    return Columns(heap=columns.heap, **views)
