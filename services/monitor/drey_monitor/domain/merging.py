"""Columns of one tick: the latest row of each channel, with a heap of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from drey_core.values import Columns


def latest_columns(parts: Sequence[Columns]) -> Columns:
    """The last row of each channel over `parts` in order, ascending by channel.

    The updates that such a row replaced, and the rows that it replaced here, add up in `merged`.
    Each channel is at most once in a part.
    """
    joined = Columns.concat_columns(parts)
    if len(parts) == 1:
        return joined
    order = np.argsort(joined.key, kind="stable")
    key = joined.key[order]
    last = np.flatnonzero(np.append(key[1:] != key[:-1], True)) if len(key) else order
    first = np.append(0, last[:-1] + 1).astype(np.int64) if len(last) else last
    chosen = joined.take_rows(order[last])
    if len(chosen) == len(joined):
        return chosen
    total = np.add.reduceat(joined.merged[order].astype(np.int64), first) + (last - first)
    merged = np.minimum(total, 0xFFFF_FFFF).astype(np.uint32)
    return replace(chosen, merged=merged).compact_heap()
