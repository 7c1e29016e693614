"""Laws of page tables: folding columns, and what a page then holds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from drey_core.page_storage import value_hashes
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_SLOTS, Pages, mask_pages
from drey_core.values import Columns, State, heap_mask
from drey_testing.corpus import cases, columns_of, hostile_columns

SLOTS = st.integers(0, 3 * PAGE_SLOTS - 1)
BATCH = st.dictionaries(SLOTS, cases(), max_size=8)


def batch_columns(batch) -> Columns:
    return columns_of(list(batch.values())).with_key(np.array(list(batch), np.int64))


def cell(cols: Columns, row: int):
    head = tuple(
        int(getattr(cols, name)[row])
        for name in ("kind", "state", "severity", "status", "source_time", "receive_time")
    )
    in_heap = bool(heap_mask(cols.kind[row : row + 1])[0])
    return *head, cols.heap_bytes(row) if in_heap else int(cols.data[row])


@given(st.lists(BATCH, max_size=6))
@settings(max_examples=100, deadline=None)
def test_folding_batches_keeps_the_last_value_of_each_channel(batches):
    table = PageTable(np.arange(3))
    latest = {}
    for batch in batches:
        cols = batch_columns(batch)
        touched = table.apply_batch(cols)
        assert touched.tolist() == sorted({slot // PAGE_SLOTS for slot in batch})
        for row, slot in enumerate(batch):
            latest[slot] = cell(cols, row)
    keys = np.array(list(latest), np.int64)
    for source in (table, table.take_pages(np.arange(3))):
        back = source.columns_of_channels(keys)
        assert [cell(back, row) for row in range(len(keys))] == list(latest.values())


@given(st.lists(BATCH, max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_page_depends_on_its_values_not_on_their_way(batches):
    slow, fast = PageTable(np.arange(3)), PageTable(np.arange(3))
    latest = {}
    for batch in batches:
        slow.apply_batch(batch_columns(batch))
        slow.take_pages(np.arange(3))
        latest.update(batch)
    fast.apply_batch(batch_columns(dict(sorted(latest.items(), reverse=True))))
    a, b = slow.take_pages(np.arange(3)), fast.take_pages(np.arange(3))
    assert value_hashes(a) == value_hashes(b)


@given(st.sets(SLOTS, max_size=40))
@settings(max_examples=50, deadline=None)
def test_a_mask_keeps_what_was_asked_and_nothing_else(keep):
    cols = hostile_columns(first_key=100)
    table = PageTable(np.arange(3))
    table.apply_batch(cols)
    pages = table.take_pages(np.arange(3))
    masked = mask_pages(pages, np.array(sorted(keep), np.int64))
    every = np.arange(3 * PAGE_SLOTS)
    before, after = pages.columns_of_channels(every), masked.columns_of_channels(every)
    for slot in every.tolist():
        if slot in keep:
            assert cell(after, slot) == cell(before, slot)
        else:
            assert after.kind[slot] == 0
            assert after.state[slot] == State.ABSENT


def test_clearing_replacing_and_adding_pages():
    cols = hostile_columns()
    table = PageTable(np.array([0]))
    table.apply_batch(cols)
    table.add_pages(np.array([5, 0]))
    assert table.page_numbers.tolist() == [0, 5]
    assert cell(table.columns_of_channels(cols.key), 3) == cell(cols, 3)
    copy = PageTable(np.array([0]))
    copy.replace_pages(np.array([0]), table.take_pages(np.array([0])))
    copy.apply_batch(cols.take_rows(np.array([1])))
    assert value_hashes(copy.take_pages(np.array([0]))) == value_hashes(
        table.take_pages(np.array([0]))
    )
    table.clear_channels(cols.key)
    empty = Pages.empty_pages(np.array([0]))
    assert value_hashes(table.take_pages(np.array([0]))) == value_hashes(empty)


def test_channels_of_no_page_are_absent():
    table = PageTable(np.array([1]))
    table.apply_batch(hostile_columns())
    out = table.columns_of_channels(np.array([0, 300, 5000]))
    assert out.state.tolist() == [0, 0, 0]
