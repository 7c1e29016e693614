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

from drey_core import pages as codec
from drey_core.errors import Malformed
from drey_core.pages import PAGE_SLOTS, Pages, PageTable
from drey_core.values import Columns, heap_mask
from drey_testing.corpus import columns, hostile_columns

GOLDEN = Path(__file__).parent / "golden"
FIRST_KEY = 3 * PAGE_SLOTS - 40  # the corpus lies across two pages


def pages_of(cols: Columns) -> Pages:
    table = PageTable(np.unique(codec.page_of(cols.key)))
    table.apply(cols)
    return table.taken(np.arange(len(table.numbers)))


def assert_same(back: Columns, cols: Columns) -> None:
    for name in ("key", "kind", "state", "severity", "status", "source_time", "receive_time"):
        assert (getattr(back, name) == getattr(cols, name)).all(), name
    assert (back.origin == cols.origin).all()
    in_heap = heap_mask(cols.kind)
    assert (back.data[~in_heap] == cols.data[~in_heap]).all()
    for row in np.flatnonzero(in_heap).tolist():
        assert back.heap_bytes(row) == cols.heap_bytes(row)


def through_store(pages: Pages) -> Pages:
    out = Pages.empty(pages.numbers)
    for i in range(len(pages)):
        values, heap = codec.load_values(codec.store_values(pages, i))
        out.values[i], out.heaps[i] = values[0], heap
        out.times[i] = codec.load_times(codec.store_times(pages, i))[0]
    return out


def decoded(numbers: np.ndarray, blobs: list[bytes]) -> Pages:
    pages = Pages.empty(np.asarray(numbers, np.int64))

    def refuse(row: int, error: Malformed) -> None:
        raise error

    codec.fill_pages(pages, range(len(blobs)), blobs, refuse)
    return pages


def through_image(pages: Pages) -> Pages:
    blobs = [codec.encode_page(pages, i) for i in range(len(pages))]
    return decoded(pages.numbers, blobs)


def golden_images() -> Pages:
    numbers = [2, 3]
    blobs = [(GOLDEN / f"image-1-page{number}.bin").read_bytes() for number in numbers]
    return decoded(np.array(numbers), blobs)


def test_golden_pages_are_written_and_read_as_ever():
    pages = golden_images()
    hashes = (GOLDEN / "hashes-1.txt").read_text().split()
    assert [codec.value_hash(pages, i).hex() for i in range(len(pages))] == hashes
    for i, number in enumerate(pages.numbers.tolist()):
        image = (GOLDEN / f"image-1-page{number}.bin").read_bytes()
        assert codec.encode_page(pages, i) == image
        values, heap = codec.load_values((GOLDEN / f"values-1-page{number}.zst").read_bytes())
        times = codec.load_times((GOLDEN / f"times-1-page{number}.zst").read_bytes())
        assert values[0].tobytes() == pages.values[i].tobytes()
        assert heap == pages.heaps[i]
        assert times[0].tobytes() == pages.times[i].tobytes()


def test_golden_pages_hold_what_was_put_into_them():
    cols = golden_images().columns(np.arange(FIRST_KEY, FIRST_KEY + 30))
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
    assert_same(back.columns(cols.key), cols)
    for i in range(len(pages)):
        assert codec.value_hash(back, i) == codec.value_hash(pages, i)
        assert codec.times_hash(back, i) == codec.times_hash(pages, i)


@given(columns(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_any_columns_survive(cols, first):
    cols = cols.with_key(cols.key * 37 + first)
    if len(cols):
        pages = pages_of(cols)
        assert_same(through_store(pages).columns(cols.key), cols)
        assert_same(through_image(pages).columns(cols.key), cols)


def test_receive_times_and_origins_are_not_in_the_value_hash():
    cols = hostile_columns()
    moved = hostile_columns()
    moved.receive_time[:] += 5
    moved.origin[:] = 2
    a, b = pages_of(cols), pages_of(moved)
    assert codec.value_hash(a, 0) == codec.value_hash(b, 0)
    assert codec.times_hash(a, 0) != codec.times_hash(b, 0)


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_a_torn_image_page_is_refused(cut):
    blob = codec.encode_page(pages_of(hostile_columns()), 0)
    torn = blob[: cut % len(blob)]
    with pytest.raises(Malformed):
        decoded(np.array([0]), [torn])


def test_stored_forms_that_are_none_are_refused():
    for bad in (b"", b"\x02abc", b"\x01not zstd"):
        with pytest.raises(Malformed):
            codec.load_values(bad)
        with pytest.raises(Malformed):
            codec.load_times(bad)
