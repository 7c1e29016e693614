"""Pages of a history come in groups of whole snapshots, few at a time where they are large."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import numpy as np
import pytest

from drey_core.errors import Unavailable
from drey_snapshot.snapshots.adapters.store import HistoryList, SnapshotStore
from drey_snapshot.snapshots.usecases import history
from drey_snapshot.snapshots.usecases.history import Historian
from drey_testing.lease import until


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


async def in_parts(*parts: HistoryList) -> AsyncGenerator[HistoryList, None]:
    for part in parts:
        yield part


async def groups_of(store: Store, found: HistoryList) -> list[range]:
    out = []
    async for group in historian(store)._fetch_groups(in_parts(found)):
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
    fetched = historian(store)._fetch_groups(in_parts(listed(500, 1)))
    async with aclosing(history._one_ahead(fetched)) as groups:
        async for _ in groups:
            store.block.clear()
            await until(lambda: store.running == 1)
            break
    assert store.running == 0


async def test_the_next_is_fetched_while_the_reader_has_one():
    store = Store(10)
    fetched = historian(store)._fetch_groups(in_parts(listed(500, 1)))
    async with aclosing(history._one_ahead(fetched)) as groups:
        async for _ in groups:
            await until(lambda: len(store.asked) == 2)
            break


async def test_a_failure_ahead_reaches_the_reader_after_what_came_before():
    async def two_parts() -> AsyncGenerator[HistoryList, None]:
        yield listed(1, 1)
        raise Unavailable("Postgres is away")

    seen = []
    with pytest.raises(Unavailable):
        async for group in history._one_ahead(historian(Store(10))._fetch_groups(two_parts())):
            seen.append(group.entries)
    assert seen == [range(1)]


def part(*snapshots: tuple[int, int]) -> HistoryList:
    """Of (time, number) of each, newest first; two pages each."""
    found = listed(len(snapshots), 2)
    time_ns, no = (np.repeat([s[i] for s in snapshots], 2) for i in (0, 1))
    return found._replace(no=no, time_ns=time_ns)


@pytest.mark.parametrize("newest", range(6))
def test_parts_join_without_gap_or_repetition(newest: int):
    every = ((30, 9), (20, 7), (20, 3), (20, 2), (10, 8))
    older = history._older_part(part(*every), part(*every[:newest]))
    assert older.no.tolist() == np.repeat([no for _, no in every[newest:]], 2).tolist()
    assert len(older.value_hash) == len(older.no)


def test_a_snapshot_taken_between_the_two_looks_is_in_one_part_only():
    older = history._older_part(part((40, 10), (30, 9), (20, 7)), part((30, 9)))
    assert older.no.tolist() == [7, 7]
