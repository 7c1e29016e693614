"""Value batches: columns to `drey.events.v1.ValueBatch` and back, without touching a value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey.events.v1.values_pb2 import ValueBatch
from drey_core.errors import Internal
from drey_core.pages import page_of
from drey_core.values import Columns, heap_mask

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
    slices = list(_slices(columns))
    out = []
    for part, rows in enumerate(slices):
        chosen = columns if len(slices) == 1 else _compact(columns, rows)
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
    """A batch's stamps, and its columns as views. Raises `Internal` on anything torn."""
    batch = ValueBatch.FromString(raw)
    arrays: dict[str, Any] = {
        name: np.frombuffer(getattr(batch, field), dtype) for field, name, dtype in _COLUMNS
    }
    lengths = {len(a) for a in arrays.values()}
    if len(lengths) != 1:
        raise Internal(f"a value batch whose columns differ in length: {sorted(lengths)}")
    return batch, Columns(heap=batch.heap, **arrays)


def large_pages(batch: ValueBatch) -> NDArray[np.int64]:
    """Pages of the batch that are to be read from the image."""
    return np.frombuffer(batch.large_pages, "<u4").astype(np.int64)


def _without_large(columns: Columns) -> tuple[Columns, NDArray[np.int64]]:
    sizes = np.where(heap_mask(columns.kind), columns.data >> np.uint64(32), np.uint64(0))
    big = sizes > MAX_BUS_VALUE
    if not big.any():
        return columns, np.zeros(0, np.int64)
    return _compact(columns, np.flatnonzero(~big)), np.unique(page_of(columns.key[big]))


def _slices(columns: Columns) -> Iterator[NDArray[np.int64]]:
    n = len(columns)
    sizes = np.where(heap_mask(columns.kind), columns.data >> np.uint64(32), np.uint64(0))
    ends = np.cumsum(sizes.astype(np.int64) + _ROW_BYTES)
    start, base = 0, 0
    while start < n:
        stop = int(np.searchsorted(ends, base + MAX_BATCH_BYTES, "right"))
        stop = max(stop, start + 1)
        yield np.arange(start, stop)
        base = int(ends[stop - 1])
        start = stop
    if n == 0:
        yield np.arange(0)


def _compact(columns: Columns, rows: NDArray[np.int64]) -> Columns:
    """Rows with a heap of their own."""
    chosen = columns.take(rows)
    in_heap = np.flatnonzero(heap_mask(chosen.kind))
    if len(in_heap) == 0:
        return replace(chosen, heap=b"")
    parts, at, data = [], 0, chosen.data.copy()
    for row in in_heap.tolist():
        raw = chosen.heap_bytes(row)
        parts.append(raw)
        data[row] = len(raw) << 32 | at
        at += len(raw)
    return replace(chosen, data=data, heap=b"".join(parts))
