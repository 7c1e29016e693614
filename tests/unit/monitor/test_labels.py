"""A number of an enum goes out when the image has the labels that it had."""

from __future__ import annotations

import numpy as np
import pytest

from drey_core.values import Columns, Kind, State
from drey_monitor.owned import Owned
from drey_runtime.lease import Term
from tests.unit.monitor.test_directory import info, next_cut

OLD, NEW = (b"off", b"on"), (b"on", b"off")
SECOND = 1_000_000_000


class News:
    """Labels by channel that a table has told and nobody has taken."""

    def __init__(self) -> None:
        self.labels: dict[int, tuple[bytes, ...]] = {}

    def take(self, shard: int, channels):
        taken = [c for c in channels.tolist() if c in self.labels]
        if not taken:
            return None
        told = info(len(taken))
        told.labels[:] = [self.labels.pop(c) for c in taken]
        return np.array(taken, np.int64), told


def enums(values: dict[int, int]) -> Columns:
    out = Columns.from_values(
        np.array(list(values), np.int64), list(values.values()), [Kind.ENUM] * len(values)
    )
    out.state[:] = State.CONNECTED
    return out


@pytest.fixture
def news() -> News:
    return News()


@pytest.fixture
def owned(news: News) -> Owned:
    """With a page whose channel 1 is an enum, written with its labels, and read as 0."""
    owned = Owned(0, 2, SECOND, Term("shard-0", 2), news.take)
    owned.state.grow_pages(np.arange(1))
    owned.state.add_channels(np.array([1, 2]))
    owned.directory.set_catalog(1, {0: b"page"})
    news.labels[1] = OLD
    owned.begin_publishing()
    owned.fold_columns(enums({1: 0}))
    write(owned)
    assert told(owned) == {1: 0, 2: None}
    return owned


def write(owned: Owned) -> None:
    owned.note_directory_written(next_cut(owned.directory), owned.state.epoch)


def told(owned: Owned) -> dict[int, object]:
    cut = owned.state.cut_batch()
    if cut is None:
        return {}
    rows = cut.columns
    return {int(c): rows.value(i) for i, c in enumerate(rows.key.tolist())}


def test_it_waits_for_new_labels_to_be_written(owned, news):
    news.labels[1] = NEW
    owned.directory_wake.clear()
    owned.fold_columns(enums({1: 1}))
    assert told(owned) == {}
    assert owned.directory_wake.is_set()
    cut = next_cut(owned.directory)
    assert cut.metadata[0].labels == {1: NEW}
    owned.fold_columns(enums({1: 0}))  # while they are being written
    assert told(owned) == {}
    owned.note_directory_written(cut, owned.state.epoch)
    assert told(owned) == {1: 0}


def test_others_do_not_wait(owned, news):
    news.labels[1] = NEW
    owned.fold_columns(enums({1: 1, 2: 5}))
    assert told(owned) == {2: 5}


def test_the_same_labels_again_hold_nothing_up(owned, news):
    news.labels[1] = OLD
    owned.fold_columns(enums({1: 1}))
    assert told(owned) == {1: 1}


def test_labels_that_could_not_be_written_are_waited_for(owned, news):
    news.labels[1] = NEW
    owned.fold_columns(enums({1: 1}))
    owned.directory.put_back(next_cut(owned.directory))
    owned.fold_columns(enums({1: 1}))
    assert told(owned) == {}
    write(owned)
    assert told(owned) == {1: 1}


def test_labels_that_change_while_others_are_written(owned, news):
    news.labels[1] = NEW
    owned.fold_columns(enums({1: 1}))
    cut = next_cut(owned.directory)
    news.labels[1] = OLD
    owned.fold_columns(enums({1: 0}))
    owned.note_directory_written(cut, owned.state.epoch)
    assert told(owned) == {}
    write(owned)
    assert told(owned) == {1: 0}


def test_a_number_is_told_again_under_its_new_labels(owned, news):
    """Of an IOC that runs on. A watcher that was away is told what changed since: this has."""
    sequence = owned.state.sequence
    owned.directory.update_channels(np.array([1, 2]), relabeled(NEW, ()))
    write(owned)
    assert told(owned) == {1: 0}
    assert owned.state.sequence == sequence + 1
    owned.directory.update_channels(np.array([1]), relabeled(OLD))
    owned.fold_columns(enums({1: 1}))
    write(owned)
    cut = owned.state.cut_batch()
    assert cut is not None
    assert (cut.columns.key.tolist(), cut.columns.merged.tolist()) == ([1], [0])


def test_numbers_of_a_past_owner_and_of_what_is_gone_are_not_told_again(owned, news):
    owned.directory.update_channels(np.array([1]), relabeled(NEW))
    cut = next_cut(owned.directory)
    gone = np.array([1])
    owned.state.remove_channels(gone)
    owned.forget_channels(gone)
    assert told(owned) == {1: None}
    owned.note_directory_written(cut, owned.state.epoch)
    assert told(owned) == {}


def relabeled(*labels: tuple[bytes, ...]):
    told = info(len(labels))
    told.labels[:] = labels
    return told


def test_loss_of_what_waits_waits_behind_it(owned, news):
    news.labels[1] = NEW
    owned.fold_columns(enums({1: 1}))
    lost = enums({1: 1})
    lost.state[:] = State.DISCONNECTED
    owned.fold_columns(lost)
    assert told(owned) == {}
    write(owned)
    cut = owned.state.cut_batch()
    assert cut is not None
    assert cut.columns.state.tolist() == [State.DISCONNECTED]


def test_what_waits_for_a_removed_channel_is_dropped(owned, news):
    news.labels[1] = NEW
    owned.fold_columns(enums({1: 1}))
    gone = np.array([1])
    owned.state.remove_channels(gone)
    owned.forget_channels(gone)
    assert told(owned) == {1: None}
    write(owned)
    assert told(owned) == {}


def test_batches_name_a_directory_that_can_be_read(owned, news):
    written = owned.directory.written_version
    assert written == owned.directory.version > 0
    news.labels[1] = NEW
    owned.fold_columns(enums({1: 1}))
    cut = next_cut(owned.directory)
    assert owned.directory.written_version == written
    owned.note_directory_written(cut, owned.state.epoch)
    assert owned.directory.written_version == cut.version > written
    owned.begin_epoch(5)
    assert owned.directory.written_version == 0
    owned.note_directory_written(cut, 2)  # its write was under way
    assert owned.directory.written_version == 0
