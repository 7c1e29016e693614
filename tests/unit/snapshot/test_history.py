"""Pages of a history come in groups of whole snapshots, few at a time where they are large."""

import asyncio
from contextlib import aclosing
from typing import Any, cast

import numpy as np

from drey_snapshot.snapshots.adapters.store import HistoryList, SnapshotStore
from drey_snapshot.snapshots.usecases import history
from drey_snapshot.snapshots.usecases.history import Historian


class Store:
    """Gives pages of one size; says how many bytes were asked for at a time."""

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, []
        self.running = 0
        self.block = asyncio.Event()
        self.block.set()

    async def page_data(self, hashes: list[bytes]) -> dict[bytes, bytes]:
        self.asked.append(len(hashes) * self.size)
        self.running += 1
        try:
            await self.block.wait()
        finally:
            self.running -= 1
        return {h: bytes(self.size) for h in hashes}


def listed(snapshots: int, pages: int) -> HistoryList:
    n = snapshots * pages
    hashes = [i.to_bytes(32, "big") for i in range(n)]
    no = np.repeat(np.arange(snapshots, 0, -1), pages)
    return HistoryList(
        np.tile(np.arange(1, pages + 1), snapshots), hashes, hashes, no, no, [bytes(16)] * n
    )


def historian(store: Store) -> Any:
    return cast("Any", Historian(cast("SnapshotStore", store)))


async def groups_of(store: Store, found: HistoryList) -> list[range]:
    out = []
    async for group in historian(store)._fetch_groups(found):
        out.append(group.entries)
        assert found.no[group.entries.stop - 1] != (
            found.no[group.entries.stop] if group.entries.stop < len(found.no) else 0
        )
    return out


async def test_groups_are_whole_snapshots_in_order():
    for snapshots in (0, 1, 7, 8, 9, 900):
        found = listed(snapshots, 3)
        groups = await groups_of(Store(10), found)
        assert [e for group in groups for e in group] == list(range(len(found.no)))
        assert len(groups) <= 6


async def test_large_pages_come_a_few_at_a_time():
    store = Store(4 << 20)
    await groups_of(store, listed(30, 1))
    first, later = store.asked[:4], store.asked[4:]
    assert max(first) <= history._FIRST_SNAPSHOTS * store.size
    assert later
    assert max(later) <= history._GROUP_BYTES


async def test_what_is_fetched_ahead_ends_with_the_reader():
    store = Store(10)
    async with aclosing(historian(store)._fetch_groups(listed(500, 1))) as groups:
        async for _ in groups:
            store.block.clear()
            break
        await asyncio.sleep(0)
    assert store.running == 0
