"""Columns of one tick: the latest row of each channel, with a heap of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from drey_core.values import Columns, heap_mask


def latest(parts: Sequence[Columns]) -> Columns:
    """The last row of each channel over `parts` in order, ascending by channel.

    The updates that such a row replaced, and the rows that it replaced here, add up in `merged`.
    Each channel is at most once in a part.
    """
    joined = Columns.concat(parts)
    if len(parts) == 1:
        return joined
    order = np.argsort(joined.key, kind="stable")
    key = joined.key[order]
    last = np.flatnonzero(np.append(key[1:] != key[:-1], True)) if len(key) else order
    first = np.append(0, last[:-1] + 1).astype(np.int64) if len(last) else last
    chosen = joined.take(order[last])
    if len(chosen) == len(joined):
        return chosen
    total = np.add.reduceat(joined.merged[order].astype(np.int64), first) + (last - first)
    return compacted(replace(chosen, merged=np.minimum(total, 0xFFFF_FFFF).astype(np.uint32)))


def compacted(columns: Columns) -> Columns:
    """The same rows, their heap without what other rows left in it."""
    if not columns.heap:
        return columns
    rows = np.flatnonzero(heap_mask(columns.kind))
    used = int((columns.data[rows] >> np.uint64(32)).sum())
    if used == len(columns.heap):
        return columns
    parts = [columns.heap_bytes(row) for row in rows.tolist()]
    sizes = np.fromiter(map(len, parts), np.uint64, len(parts))
    data = columns.data.copy()
    data[rows] = sizes << np.uint64(32) | (np.cumsum(sizes, dtype=np.uint64) - sizes)
    return replace(columns, data=data, heap=b"".join(parts))
