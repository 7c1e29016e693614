"""What a monitor decides, without a socket or a clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey_core.directory import CatalogPage
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_SLOTS, Pages
from drey_core.values import Columns, Kind, State
from drey_monitor.domain.catalog import ChannelsChange, channels_difference, unchanged
from drey_monitor.domain.progress import SearchSettling, UpdateRate
from drey_monitor.domain.shard import (
    ShardState,
    has_room,
    latest_columns,
    next_epoch,
    pages_of_shard,
)
from drey_monitor.owned import Owned, WarmShard
from drey_runtime.lease import Term


def rows(values: dict[int, object], state: int = State.CONNECTED, merged: int = 0) -> Columns:
    """Columns by channel."""
    filled = [0 if v is None else v for v in values.values()]
    out = Columns.from_values(np.array(list(values), np.int64), filled, [None] * len(values))
    out.kind[[v is None for v in values.values()]] = Kind.NONE
    out.state[:] = state
    out.merged[:] = merged
    return out


def nothing_new(shard: int, channels: np.ndarray) -> None:
    """No channel has other metadata."""


def as_dict(columns: Columns) -> dict[int, tuple[int, object]]:
    """State and value by channel."""
    return {
        int(key): (int(columns.state[i]), columns.value(i))
        for i, key in enumerate(columns.key.tolist())
    }


# --- ownership ---


@given(st.lists(st.integers(0, 5000), unique=True), st.integers(1, 50))
def test_shards_partition_pages(pages, shards):
    parts = [pages_of_shard(pages, s, shards) for s in range(shards)]
    assert sorted(p for part in parts for p in part) == sorted(pages)


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40)))
def test_epochs_grow(granted, seen):
    epoch = next_epoch(granted, *seen)
    assert epoch >= max(granted, 1)
    assert all(epoch > s for s in seen)


def test_room():
    assert has_room(1000, 0)
    assert has_room(1, 2)
    assert not has_room(2, 2)


# --- merging ---

CHANNEL = st.integers(0, 1023)
VALUE = st.one_of(st.floats(allow_nan=False), st.binary(max_size=5), st.integers(0, 2**63 - 1))
PART = st.dictionaries(CHANNEL, VALUE, max_size=12)


@given(st.lists(PART, min_size=1, max_size=5))
def test_latest_wins_and_counts_what_it_replaced(parts):
    got = latest_columns([rows(p, merged=1) for p in parts])
    wanted: dict[int, object] = {}
    for part in parts:
        wanted |= part
    assert {k: v for k, (_, v) in as_dict(got).items()} == wanted
    total = sum(map(len, parts))
    # every update is either in the batch or counted as merged
    assert len(got) + int(got.merged.sum()) == 2 * total


@given(PART, st.data())
def test_compacting_changes_no_value(part, data):
    columns = rows(part)
    mask = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(part), max_size=len(part))), bool
    )
    chosen = columns.take_rows(mask)
    got = chosen.compact_heap()
    assert as_dict(got) == as_dict(chosen)
    used = sum(len(got.heap_bytes(i)) for i in range(len(got)) if got.kind[i] == Kind.STRING)
    assert used == len(got.heap)


# --- the shard ---


def publishes(owned: Owned) -> bool:
    """Asked anew each time: the type checker believes that a property stays as it was."""
    return owned.may_publish


def next_columns(state: ShardState) -> Columns:
    cut = state.cut_batch()
    assert cut is not None
    return cut.columns


def shard(*pages: int, epoch: int = 1) -> ShardState:
    state = ShardState(0, epoch)
    state.grow_pages(np.array(pages, np.int64))
    return state


@given(st.lists(st.one_of(PART, st.none()), max_size=12))
def test_batches_lead_to_the_pages(events):
    """The law: a consumer that folds every batch has what the owner's pages have."""
    state, consumer = shard(0, 1, 2, 3), PageTable(np.arange(4))
    sequences = []
    for event in [*events, None]:
        if event is not None:
            state.fold_columns(rows(event))
        elif (cut := state.cut_batch()) is not None:
            sequences.append(cut.sequence)
            consumer.apply_batch(cut.columns)
    assert sequences == list(range(1, len(sequences) + 1))
    mine = state.take_unwritten()
    theirs = consumer.take_pages(np.arange(4))
    assert (mine.values == theirs.values).all()
    assert mine.heaps == theirs.heaps


def test_nothing_changed_is_no_batch():
    assert shard(0).cut_batch() is None


def test_channels_of_a_protocol_that_is_not_spoken_are_unsupported():
    state = shard(1)
    state.add_channels(np.array([256]))
    state.add_channels(np.array([257]), State.UNSUPPORTED)
    counts = state.counts()
    assert (counts.channels, counts.never_connected, counts.unsupported) == (2, 1, 1)
    assert counts.disconnected == 0
    assert as_dict(next_columns(state))[257] == (State.UNSUPPORTED, None)


def test_added_channels_are_never_connected_removed_are_absent():
    state = shard(1)
    state.add_channels(np.array([256, 257]))
    counts = state.counts()
    assert (counts.channels, counts.never_connected) == (2, 2)
    state.fold_columns(rows({256: 1.5}))
    assert as_dict(next_columns(state)) == {
        256: (State.CONNECTED, 1.5),
        257: (State.NEVER_CONNECTED, None),
    }
    state.remove_channels(np.array([256]))
    assert as_dict(next_columns(state)) == {256: (State.ABSENT, None)}
    assert state.counts().channels == 1


def test_replaced_channel_forgets_its_value():
    state = shard(1)
    state.fold_columns(rows({256: b"old"}))
    state.remove_channels(np.array([256]))
    state.add_channels(np.array([256]))
    assert as_dict(next_columns(state)) == {256: (State.NEVER_CONNECTED, None)}


def test_counts():
    state = shard(0)
    state.add_channels(np.array([1, 2, 3, 4]))
    up = rows({1: 1.0, 2: 2.0})
    up.severity[:] = [0, 2]
    state.fold_columns(up)
    state.fold_columns(rows({3: 3.0}, State.DISCONNECTED))
    counts = state.counts()
    assert (counts.channels, counts.connected, counts.disconnected) == (4, 2, 1)
    assert (counts.never_connected, counts.in_alarm, counts.valued) == (1, 1, 2)


def test_unwritten_pages():
    state = shard(0, 1, 2)
    assert state.take_unwritten().numbers.tolist() == [0, 1, 2]
    assert len(state.take_unwritten()) == 0
    state.fold_columns(rows({256: 1.0}))
    assert state.take_unwritten().numbers.tolist() == [1]
    state.mark_unwritten(np.array([1]))
    state.grow_pages(np.array([7, 0]))
    # the mark moves with its page
    assert state.take_unwritten().numbers.tolist() == [1, 7]
    state.mark_all_unwritten()
    assert state.unwritten_pages == 4


def test_new_epoch_begins_anew():
    state = shard(0)
    state.fold_columns(rows({1: 1.0}))
    state.cut_batch()
    state.take_unwritten()
    state.begin_epoch(5)
    assert (state.epoch, state.sequence, state.unwritten_pages) == (5, 0, 1)
    with pytest.raises(ValueError, match="not greater"):
        state.begin_epoch(5)


# --- taking over ---


def left_by_the_last_owner() -> tuple[Pages, np.ndarray]:
    table = PageTable(np.array([0]))
    table.apply_batch(rows({1: 1.0, 2: b"two", 3: 3.0, 4: 4.0}))
    table.apply_batch(rows({5: None}, State.NEVER_CONNECTED))
    same = np.zeros((1, PAGE_SLOTS), bool)
    same[0, [1, 2, 3, 5]] = True  # 4 has another address now
    return table.take_pages(np.array([0])), same


def heir() -> ShardState:
    state = ShardState(0, 2)
    kept = state.inherit_pages(*left_by_the_last_owner())
    assert kept.tolist() == [1, 2, 3]
    state.add_channels(np.array([4, 5]))
    return state


def test_inherited_values_stand_unpublished():
    state = heir()
    assert set(as_dict(next_columns(state))) == {4, 5}
    assert (state.counts().connected, state.counts().disconnected) == (0, 3)
    pages = state.take_unwritten()
    assert pages.columns_of_channels(np.array([2])).value(0) == b"two"
    assert pages.values["state"][0, 1] == State.CONNECTED


def test_answering_channels_are_confirmed():
    state = heir()
    state.cut_batch()
    state.fold_columns(rows({1: None}))  # connected, its value still to come
    assert state.cut_batch() is None
    state.fold_columns(rows({1: 1.0, 2: b"zwei"}))
    assert as_dict(next_columns(state)) == {
        1: (State.CONNECTED, 1.0),
        2: (State.CONNECTED, b"zwei"),
    }
    assert state.counts().connected == 2


def test_silent_channels_are_disconnected_when_the_search_is_over():
    state = heir()
    state.cut_batch()
    state.fold_columns(rows({1: 1.0}))
    state.fold_columns(rows({3: None}))
    state.settle_unconnected()
    assert as_dict(next_columns(state)) == {
        1: (State.CONNECTED, 1.0),
        2: (State.DISCONNECTED, b"two"),
        3: (State.CONNECTED, None),
    }
    state.settle_unconnected()
    assert state.cut_batch() is None


def test_a_lost_inherited_channel_keeps_its_value():
    state = heir()
    state.cut_batch()
    state.fold_columns(rows({2: b"two"}, State.DISCONNECTED))
    assert as_dict(next_columns(state)) == {2: (State.DISCONNECTED, b"two")}


def dated(values, time: int, state: State = State.CONNECTED):
    """Rows of which the IOC says that they are of `time`."""
    dated = rows(values, state)
    dated.source_time[:] = time
    return dated


def heir_of(values, time: int) -> ShardState:
    """Who takes over a page where some channels have values of `time`."""
    table = PageTable(np.array([0]))
    table.apply_batch(dated(values, time))
    state = ShardState(0, 2)
    state.inherit_pages(table.take_pages(np.array([0])), np.ones((1, PAGE_SLOTS), bool))
    return state


def test_an_heir_whose_ioc_is_late_shows_nothing_older_than_the_last_owner_told():
    state = heir_of({1: 62.0, 2: b"62", 3: 62.0}, 62)
    state.fold_columns(dated({1: 60.0, 2: b"60"}, 60))
    state.fold_columns(dated({1: 61.0, 2: b"61"}, 61))
    assert state.cut_batch() is None
    assert state.counts().connected == 0  # it still waits for their answer
    state.fold_columns(dated({1: 62.0, 3: 62.0}, 62))  # the same again
    state.fold_columns(dated({2: b"63"}, 63))
    told = {
        1: (State.CONNECTED, 62.0),
        2: (State.CONNECTED, b"63"),
        3: (State.CONNECTED, 62.0),
    }
    assert as_dict(next_columns(state)) == told
    state.settle_unconnected()
    assert state.cut_batch() is None
    # from now on it is the IOC's word, and its clock may go back
    state.fold_columns(dated({1: 5.0}, 5))
    assert as_dict(next_columns(state)) == {1: (State.CONNECTED, 5.0)}


def test_an_ioc_whose_clock_was_set_back_is_believed_when_the_search_is_over():
    state = heir_of({1: 62.0, 2: b"62"}, 62)
    state.fold_columns(dated({1: 1.0, 2: b"1"}, 1))
    state.fold_columns(dated({2: b"2"}, 2))
    assert state.cut_batch() is None
    state.settle_unconnected()
    told = {1: (State.CONNECTED, 1.0), 2: (State.CONNECTED, b"2")}
    assert as_dict(next_columns(state)) == told
    assert state.counts().connected == 2


@pytest.mark.parametrize("fate", ["lost", "hollow", "removed", "added"])
def test_an_older_answer_is_forgotten_when_the_channel_goes_meanwhile(fate: str):
    state = heir_of({1: 62.0}, 62)
    state.fold_columns(dated({1: 60.0}, 60))
    match fate:
        case "lost":
            state.fold_columns(dated({1: 60.0}, 60, State.DISCONNECTED))
        case "hollow":
            state.fold_columns(dated({1: None}, 0, State.DISCONNECTED))
        case "removed":
            state.remove_channels(np.array([1]))
        case "added":
            state.add_channels(np.array([1]))
    state.settle_unconnected()
    ((said, _),) = as_dict(next_columns(state)).values()
    expected = {"removed": State.ABSENT, "added": State.NEVER_CONNECTED}
    assert said == expected.get(fate, State.DISCONNECTED)


def test_what_left_the_catalog_is_absent():
    state = ShardState(0, 2)
    pages, same = left_by_the_last_owner()
    same[:] = False
    state.inherit_pages(pages, same)
    assert {v for v, _ in as_dict(next_columns(state)).values()} == {int(State.ABSENT)}
    assert state.counts().channels == 0


# --- the catalog ---


def page(**addresses: str) -> CatalogPage:
    """Page 2 with addresses by slot (`s3="A"`)."""
    out = CatalogPage.empty_page(2)
    for key, address in addresses.items():
        slot = int(key[1:])
        out.pv_number[slot], out.protocol[slot] = 1000 + slot, 1
        out.addresses[slot] = address
    return out


def test_first_sight_of_a_page():
    change = channels_difference(None, page(s3="A", s9="B"))
    assert change.added.tolist() == [515, 521]
    assert change.addresses == ["A", "B"]
    assert len(change.removed) == 0


def test_only_what_changed_is_touched():
    old, new = page(s1="A", s2="B", s3="C"), page(s1="A", s2="B2", s4="D")
    change = channels_difference(old, new)
    assert change.removed.tolist() == [514, 515]
    assert change.added.tolist() == [514, 516]
    assert change.gone_channels.tolist() == [515]
    assert np.flatnonzero(unchanged(old, new)).tolist() == [1]


def test_tolerances_and_names_touch_no_channel():
    old, new = page(s1="A"), page(s1="A")
    new.absolute[1], new.names[1] = 5.0, "renamed"
    change = channels_difference(old, new)
    assert len(change.added) == len(change.removed) == 0


def test_what_is_not_watched():
    new = page(s1="A", s2="B", s3="has blank")
    new.protocol[2] = 2
    assert channels_difference(None, new).watchable.tolist() == [True, False, False]
    assert ChannelsChange.join_changes([]).gone_channels.tolist() == []


# --- settling and rates ---

SECOND = 1_000_000_000


def test_settled_at_once_when_all_answered():
    settling = SearchSettling(SECOND)
    assert not settling.has_settled(0, searched=False, channels=2, connected=2, valued=2)
    assert settling.has_settled(1, searched=True, channels=2, connected=2, valued=2)


def test_settled_after_quiet_with_dead_channels():
    settling = SearchSettling(SECOND)
    times = [0.0, 0.5, 1.0, 1.5, 2.0]
    found = [1, 5, 5, 5, 5]
    seen = [
        settling.has_settled(int(t * SECOND), searched=True, channels=9, connected=n, valued=n)
        for t, n in zip(times, found, strict=True)
    ]
    assert seen == [False, False, False, False, True]
    settling.restart_search()
    assert not settling.has_settled(3 * SECOND, searched=True, channels=9, connected=5, valued=5)


def test_a_long_pause_of_the_process_is_no_quiet():
    settling = SearchSettling(SECOND)
    settling.has_settled(0, searched=True, channels=9, connected=5, valued=5)
    assert not settling.has_settled(60 * SECOND, searched=True, channels=9, connected=5, valued=5)


def test_rate():
    rate = UpdateRate(10 * SECOND)
    assert rate.observe_total(0, 0) == 0.0
    seen = [rate.observe_total(i * SECOND, 100 * i) for i in range(1, 31)]
    assert seen[-1] == pytest.approx(100)
    for i in range(31, 45):
        last = rate.observe_total(i * SECOND, 3000)
    assert last == 0.0
    assert rate.observe_total(1, 3000) == 0.0


# --- what comes while the past is still being read ---


@given(st.lists(PART, max_size=12))
@settings(deadline=None)
def test_early_values_are_folded_after_the_past(parts):
    early, late = Owned(0, 2, SECOND, Term("shard-0", 2), nothing_new), ShardState(0, 2)
    for part in parts:
        early.fold_columns(rows(part, merged=1))
    early.note_fenced(2)
    assert not publishes(early)
    for state in (early.state, late):
        state.inherit_pages(*left_by_the_last_owner())
        state.grow_pages(np.arange(4))
    early.begin_publishing()
    assert publishes(early)
    for part in parts:
        late.fold_columns(rows(part, merged=1))
    assert early.state.updates == late.updates
    every = np.arange(4 * PAGE_SLOTS)
    mine, theirs = (s.take_unwritten().columns_of_channels(every) for s in (early.state, late))
    assert as_dict(mine) == as_dict(theirs)
    mine, theirs = (next_columns(s) for s in (early.state, late))
    assert as_dict(mine) == as_dict(theirs)
    assert mine.merged.tolist() == theirs.merged.tolist()


def test_nothing_is_published_under_an_epoch_that_is_not_fenced():
    owned = Owned(0, 2, SECOND, Term("shard-0", 2), nothing_new)
    owned.begin_publishing()
    assert not publishes(owned)
    owned.note_fenced(2)
    assert publishes(owned)
    owned.begin_epoch(5)
    assert not publishes(owned)
    owned.note_fenced(5)
    assert publishes(owned)


def test_the_image_is_told_when_each_value_changed():
    state = ShardState(0, 1)
    state.grow_pages(np.array([1, 2]))
    state.fold_columns(rows({256: 1.0, 257: 1.0, 512: 1.0}))
    state.cut_batch()
    state.fold_columns(rows({257: 2.0}))
    state.cut_batch()
    for _ in range(3):
        state.fold_columns(rows({512: 2.0}))
        state.cut_batch()
    ages = state.slot_ages(np.array([1, 2]))
    assert (ages[0, 0], ages[0, 1], ages[1, 0]) == (4, 3, 0)
    state.grow_pages(np.array([0]))
    assert state.slot_ages(np.array([2]))[0, 0] == 0
    # what is folded already goes with the next batch: not older than the page
    state.fold_columns(rows({256: 3.0}))
    assert state.slot_ages(np.array([1]))[0, 0] == 0
    state.begin_epoch(2)
    assert not state.slot_ages(np.array([0, 1, 2])).any()


def test_what_is_merged_before_a_shard_is_ours_is_not_told_as_missed():
    """The former owner published it."""
    warm = WarmShard(0)
    warm.follow({0: b""}, np.zeros(0, np.int64))
    for number in range(20):
        warm.fold_columns(rows({1: float(number)}, merged=3))
    owned = Owned(0, 5, 0, Term("shard-0", 5), nothing_new)
    owned.state.grow_pages(np.array([0]))
    owned.fold_columns(warm.columns())
    owned.begin_publishing()
    owned.fold_columns(rows({1: 99.0}, merged=2))
    found = next_columns(owned.state)
    assert as_dict(found)[1][1] == 99.0
    # that of ours, and those that waited for the batch: not the eighty of before
    assert int(found.merged.sum()) < 10


def test_what_is_kept_warm_of_channels_that_went_or_moved_is_forgotten():
    warm = WarmShard(0)
    warm.follow({0: b"", 3: b""}, np.zeros(0, np.int64))
    warm.fold_columns(rows({1: 1.0, 2: 2.0, 3 * 256: 3.0}))
    warm.follow({0: b"other"}, np.array([2]))
    assert not warm.added.is_set()
    assert as_dict(warm.columns()).keys() == {1, 768}
    warm.fold_columns(rows({2: 4.0}))
    assert as_dict(warm.columns())[2][1] == 4.0
    assert warm.followed == {0: b"other", 3: b""}


def test_one_that_stood_still_does_not_trust_what_it_kept():
    warm = WarmShard(0)
    assert [warm.note_look(at) for at in (100.0, 100.5, 102.0, 105.0, 105.5)] == [
        *(False, False, False),
        True,
        False,
    ]
