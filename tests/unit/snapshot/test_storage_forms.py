"""What is stored of a snapshot: pages, trees, and what is counted over them."""

from __future__ import annotations

import numpy as np
import pytest

from drey_core import page_storage as storage
from drey_core.errors import Internal
from drey_core.page_table import PageTable
from drey_core.values import State, heap_mask
from drey_snapshot.snapshots.domain.gates import in_scope
from drey_snapshot.snapshots.domain.lru import Lru
from drey_snapshot.snapshots.domain.prepared import prepare_pages
from drey_snapshot.snapshots.domain.stats import measure_pages
from drey_snapshot.snapshots.domain.tree import NO_PAGE, TreeEntry, decode_tree, digest_of
from drey_snapshot.snapshots.domain.tree import encode_tree as encode
from drey_testing.corpus import hostile_columns

NOW = 1_785_000_001_000_000_000


def hostile_pages():
    corpus = hostile_columns()
    table = PageTable(np.array([1, 2, 5]))
    for page in (1, 2):
        table.apply_batch(
            corpus.take_rows(np.arange(min(len(corpus), 256))).with_key(
                page * 256 + np.arange(min(len(corpus), 256))
            )
        )
    return table.take_pages(np.arange(3))


def test_what_was_stored_comes_back() -> None:
    pages = hostile_pages()
    values, times = storage.split_values(pages), storage.split_times(pages)
    assert storage.load_values(storage.store_values(values)) == values
    assert storage.load_times(storage.store_times(times)) == times
    joined = storage.join_pages(pages.numbers, values, times)
    assert joined.values.tobytes() == pages.values.tobytes()
    assert joined.times.tobytes() == pages.times.tobytes()
    assert joined.heaps == pages.heaps
    assert storage.load_text([storage.store_text(b"a"), storage.store_text(b"")]) == [b"a", b""]


def test_single_slots_are_what_the_whole_pages_hold() -> None:
    pages = hostile_pages()
    slots = list(range(256))
    values = storage.load_value_slots(storage.store_values(storage.split_values(pages)), slots)
    times = storage.load_times_slots(storage.store_times(storage.split_times(pages)), slots)
    for slot, columns, (receive_time, origin) in zip(slots, values, times, strict=True):
        whole = pages.columns_of_channels(pages.numbers * 256 + slot)
        for name in ("kind", "state", "severity", "status", "source_time"):
            assert getattr(columns, name).tolist() == getattr(whole, name).tolist(), (slot, name)
        assert receive_time.tolist() == whole.receive_time.tolist()
        assert origin.tolist() == whole.origin.tolist()
        for row in range(3):
            if heap_mask(columns.kind)[row]:
                assert columns.heap_bytes(row) == whole.heap_bytes(row)
            else:
                assert columns.data[row] == whole.data[row]
    assert storage.load_value_slots([], [3])[0].kind.tolist() == []
    with pytest.raises(Internal):
        storage.load_value_slots([storage.store_text(b"short")], [0])
    with pytest.raises(Internal):
        storage.load_times_slots([storage.store_text(b"short")], [0])


@pytest.mark.parametrize("blob", [b"", b"\x02abc", b"\x01abc", storage.store_text(b"short")])
def test_what_is_no_page_is_refused(blob: bytes) -> None:
    with pytest.raises(Internal):
        storage.load_values([blob])
    with pytest.raises(Internal):
        storage.load_times([blob])


def test_nothing_is_stored_for_pages_without_a_channel_or_known_already() -> None:
    pages = hostile_pages()
    prepared = prepare_pages(pages, NOW, lambda h: False)
    assert prepared.pages.numbers.tolist() == [1, 2]
    assert prepared.value_hashes[0] == prepared.value_hashes[1]  # the same content, once
    assert len(prepared.stored_pages()) == 2
    again = prepare_pages(pages, NOW, prepared.stored_pages().__contains__)
    assert again.stored_pages() == {}
    assert again.digest == prepared.digest


def test_receive_times_are_no_part_of_the_digest() -> None:
    pages = hostile_pages()
    other = hostile_pages()
    other.times["receive_time"] += 1
    a, b = (prepare_pages(p, NOW, lambda h: False) for p in (pages, other))
    assert a.digest == b.digest
    assert a.times_hashes != b.times_hashes


def test_a_tree_says_which_pages_there_are() -> None:
    entries = [TreeEntry(7, b"a" * 32, NO_PAGE), TreeEntry(1, b"b" * 32, b"c" * 32)]
    assert decode_tree(encode(entries)) == entries[::-1]
    assert encode(entries) == encode(entries[::-1])
    with pytest.raises(Internal):
        decode_tree(encode(entries)[:-1])
    assert digest_of([(1, b"x" * 32), (2, b"y" * 32)]) == digest_of(
        [(2, b"y" * 32), (1, b"x" * 32)]
    )
    assert digest_of([(1, b"x" * 32)]) != digest_of([(2, b"x" * 32)])


def test_counts_add_up_over_the_corpus() -> None:
    pages = hostile_pages()
    pages.values["state"][0, 40] = State.UNSUPPORTED
    pages.values["kind"][0, 40] = 0
    counts, skew = measure_pages(pages, NOW)
    assert counts.unsupported == 1
    assert counts.channels == (
        counts.connected + counts.disconnected + counts.never_connected + counts.unsupported
    )
    assert counts.source_time_suspect > 0
    assert 0 < skew.oldest_source_time_ns <= skew.newest_source_time_ns
    assert skew.median_age_ns <= skew.p99_age_ns


def test_a_scope_leaves_out_the_rest_and_counts_the_unseen() -> None:
    pages = hostile_pages()
    kept = np.array([256, 257, 5 * 256 + 3])
    masked = in_scope(pages, kept)
    present = np.flatnonzero(masked.values["state"].reshape(-1))
    assert present.tolist() == [0, 1, 2 * 256 + 3]
    assert masked.values["state"][2, 3] == State.NEVER_CONNECTED


def test_a_cache_forgets_the_oldest() -> None:
    lru: Lru[str, int] = Lru(10)
    lru.put_value("a", 1, 4)
    lru.put_value("b", 2, 4)
    assert lru.get("a") == 1
    lru.put_value("c", 3, 4)
    assert ("b" in lru, "a" in lru, lru.weight) == (False, True, 8)
    lru.put_value("huge", 4, 11)
    assert "huge" not in lru
    lru.put_value("a", 5, 10)
    assert (len(lru), lru.get("a"), lru.weight) == (1, 5, 10)


def test_a_cache_keeps_the_latest_whatever_they_weigh() -> None:
    lru: Lru[str, int] = Lru(10, least=2)
    for key, weight in (("a", 3), ("b", 20), ("c", 30)):
        lru.put_value(key, weight, weight)
    assert ("a" in lru, "b" in lru, "c" in lru, lru.weight) == (False, True, True, 50)
    lru.put_value("d", 1, 1)
    assert ("b" in lru, "c" in lru, "d" in lru, lru.weight) == (False, True, True, 31)
