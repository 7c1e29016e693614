"""Which pages belong to which shard, and under which epoch a shard is taken."""

from __future__ import annotations

from collections.abc import Iterable

from drey_core.pages import shard_of_page


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
