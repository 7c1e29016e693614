"""Which pages belong to which shard, and under which epoch a shard is taken."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from drey_core.pages import PAGE_SHIFT, shard_of_page

I8 = NDArray[np.int64]


def shard_of_channels(channels: I8, shards: int) -> I8:
    """The shard of each channel."""
    return shard_of_page(channels >> PAGE_SHIFT, shards)


def pages_of_shard(pages: Iterable[int], shard: int, shards: int) -> list[int]:
    """Those of `pages` that belong to `shard`, ascending."""
    return sorted(p for p in pages if shard_of_page(p, shards) == shard)


def next_epoch(granted: int, *seen: int) -> int:
    """The epoch under which a shard is taken.

    At least the one that the lease `granted`, and greater than every one `seen` elsewhere: epochs
    only grow, also where the lease's memory or the image was wiped.
    """
    return max(granted, 1, *(s + 1 for s in seen))


def has_room(owned: int, most: int) -> bool:
    """Whether a process that owns `owned` shards may take one more; `most` 0 is no limit."""
    return most == 0 or owned < most
