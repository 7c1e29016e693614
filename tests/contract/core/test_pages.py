"""Page codecs: golden bytes, and round trips of the hostile corpus.

The golden files hold the hostile corpus as it was when version 1 was laid down; it may have grown
since. A page once written stays readable for ever: never replace a golden file, add one for the
new version.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey_core import page_storage as storage
from drey_core.errors import Malformed
from drey_core.page_image import encode_page, fill_pages
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_SLOTS, Pages, page_of
from drey_core.values import Columns, heap_mask
from drey_testing.corpus import columns, hostile_columns

GOLDEN = Path(__file__).parent / "golden"
FIRST_KEY = 3 * PAGE_SLOTS - 40  # the corpus lies across two pages


def pages_of(cols: Columns) -> Pages:
    table = PageTable(np.unique(page_of(cols.key)))
    table.apply_batch(cols)
    return table.take_pages(np.arange(len(table.page_numbers)))


def assert_same(back: Columns, cols: Columns) -> None:
    for name in ("key", "kind", "state", "severity", "status", "source_time", "receive_time"):
        assert (getattr(back, name) == getattr(cols, name)).all(), name
    assert (back.origin == cols.origin).all()
    in_heap = heap_mask(cols.kind)
    assert (back.data[~in_heap] == cols.data[~in_heap]).all()
    for row in np.flatnonzero(in_heap).tolist():
        assert back.heap_bytes(row) == cols.heap_bytes(row)


def through_store(pages: Pages) -> Pages:
    values = storage.load_values(storage.store_values(storage.split_values(pages)))
    times = storage.load_times(storage.store_times(storage.split_times(pages)))
    return storage.join_pages(pages.numbers, values, times)


def decoded(numbers: np.ndarray, blobs: list[bytes]) -> Pages:
    pages = Pages.empty_pages(np.asarray(numbers, np.int64))

    def refuse(row: int, error: Malformed) -> None:
        raise error

    fill_pages(pages, range(len(blobs)), blobs, refuse)
    return pages


def through_image(pages: Pages) -> Pages:
    blobs = [encode_page(pages, i) for i in range(len(pages))]
    return decoded(pages.numbers, blobs)


def golden_images() -> Pages:
    numbers = [2, 3]
    blobs = [(GOLDEN / f"image-1-page{number}.bin").read_bytes() for number in numbers]
    return decoded(np.array(numbers), blobs)


def test_golden_pages_are_written_and_read_as_ever():
    pages = golden_images()
    hashes = (GOLDEN / "hashes-1.txt").read_text().split()
    assert [value_hash.hex() for value_hash in storage.value_hashes(pages)] == hashes
    numbers = pages.numbers.tolist()
    for i, number in enumerate(numbers):
        assert encode_page(pages, i) == (GOLDEN / f"image-1-page{number}.bin").read_bytes()
    values = [(GOLDEN / f"values-1-page{number}.zst").read_bytes() for number in numbers]
    times = [(GOLDEN / f"times-1-page{number}.zst").read_bytes() for number in numbers]
    assert storage.load_values(values) == storage.split_values(pages)
    assert storage.load_times(times) == storage.split_times(pages)
    # what this version writes is what is under it, in whatever way zstd compresses today
    for written, golden in (
        (storage.store_values(storage.split_values(pages)), values),
        (storage.store_times(storage.split_times(pages)), times),
    ):
        assert storage.load_text(written) == storage.load_text(golden)


def test_golden_pages_hold_what_was_put_into_them():
    cols = golden_images().columns_of_channels(np.arange(FIRST_KEY, FIRST_KEY + 30))
    assert cols.data[:3].tolist() == [0, 1 << 63, 0x3FF0_0000_0000_0000]
    assert cols.data[7] == 0x7FF8_0000_DEAD_BEEF
    assert (cols.source_time[0], cols.receive_time[0]) == (
        1_785_000_000_123_456_789,
        1_785_000_000_124_456_792,
    )
    assert cols.value(21) == b"MAGNET"
    assert cols.value(25) == b"gr\xfcn \xb5m"
    assert (cols.state[:30] == 3).all()


@pytest.mark.parametrize("through", [through_store, through_image])
def test_the_corpus_survives(through):
    cols = hostile_columns(first_key=FIRST_KEY)
    pages = pages_of(cols)
    back = through(pages)
    assert_same(back.columns_of_channels(cols.key), cols)
    assert storage.value_hashes(back) == storage.value_hashes(pages)
    assert storage.times_hashes(back) == storage.times_hashes(pages)


@given(columns(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_any_columns_survive(cols, first):
    cols = cols.with_key(cols.key * 37 + first)
    if len(cols):
        pages = pages_of(cols)
        assert_same(through_store(pages).columns_of_channels(cols.key), cols)
        assert_same(through_image(pages).columns_of_channels(cols.key), cols)


def test_receive_times_and_origins_are_not_in_the_value_hash():
    cols = hostile_columns()
    moved = hostile_columns()
    moved.receive_time[:] += 5
    moved.origin[:] = 2
    a, b = pages_of(cols), pages_of(moved)
    assert storage.value_hashes(a) == storage.value_hashes(b)
    assert storage.times_hashes(a) != storage.times_hashes(b)


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_a_torn_image_page_is_refused(cut):
    blob = encode_page(pages_of(hostile_columns()), 0)
    torn = blob[: cut % len(blob)]
    with pytest.raises(Malformed):
        decoded(np.array([0]), [torn])


def test_stored_forms_that_are_none_are_refused():
    for bad in (b"", b"\x02abc", b"\x01not zstd"):
        with pytest.raises(Malformed):
            storage.load_values([bad])
        with pytest.raises(Malformed):
            storage.load_times([bad])
