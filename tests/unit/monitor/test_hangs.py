"""Which channels are suspected to hang, and that no healthy one ever is."""

import numpy as np
import pytest

from drey_ca.interface import Connections
from drey_monitor.domain.hangs import (
    HUNG_AFTER_NS,
    LATE_NS,
    LONGEST_NS,
    LOOK_AGAIN_NS,
    HangBook,
    hanging_channels,
)

SECOND = 10**9
LONG = HUNG_AFTER_NS
CHANNELS = np.arange(100, 106)


def connections(unheard, server=(0, 0, 0, 1, 1, 1), connected=(True,) * 6):
    n = len(unheard)
    return Connections(
        ["a:1", "b:1"],
        np.array(server[:n], np.int32),
        np.array(connected[:n]),
        np.ones(n, bool),
        np.array(unheard, np.int64),
    )


def suspects(book, unheard, now, channel=CHANNELS, **more):
    found = connections(unheard, **more)
    return book.next_suspects(found, channel[: len(unheard)], now).tolist()


def test_only_what_was_never_heard_for_long_is_suspected():
    book = HangBook()
    assert suspects(book, [0, 0, 0, 0, 0, 0], 0) == []
    assert suspects(book, [LONG - 1, LONG, 0, 0, LONG + 5, LATE_NS], SECOND) == [1, 4]
    # a slot that is nobody's is not looked at
    nobody = np.array([-1] * 6)
    assert suspects(HangBook(), [LONG] * 6, 0, channel=nobody) == []


def test_an_ioc_that_is_slow_and_gets_on_is_left_alone():
    book = HangBook()
    # each second one that was late is heard, and others of its IOC wait on
    assert suspects(book, [LATE_NS, LATE_NS, LATE_NS, LONG, 0, 0], 0) == [3]
    for second, waiting in ((1, [0, LONG, LONG]), (2, [0, 0, 2 * LONG])):
        assert suspects(book, [*waiting, LONG, 0, 0], second * SECOND) == [3]
    # when nothing has come for long, it hangs
    later = 2 * SECOND + HUNG_AFTER_NS
    assert suspects(book, [0, 0, 3 * LONG, LONG, 0, 0], later - 1) == [3]
    assert suspects(book, [0, 0, 3 * LONG, LONG, 0, 0], later) == [2, 3]


def test_a_lost_channel_and_one_that_was_removed_are_no_progress():
    book = HangBook()
    late = [LONG, LONG, LONG]
    assert suspects(book, late, 0) == [0, 1, 2]
    # the first was disconnected, the second removed
    assert suspects(
        book, [0, 0, LONG], SECOND, server=(0, -1, 0), connected=(False, False, True)
    ) == [2]


def test_what_hangs_again_is_looked_at_ever_more_seldom_until_it_is_heard():
    book, now, pauses = HangBook(), 0, []
    for _ in range(8):
        began = now
        while suspects(book, [LONG], now) != [0]:
            now += SECOND
        pauses.append(now - began)
        book.note_read(100, now, hangs=True)
    assert pauses[:4] == [0, LOOK_AGAIN_NS, 2 * LOOK_AGAIN_NS, 4 * LOOK_AGAIN_NS]
    assert pauses[-1] == LONGEST_NS
    assert book.count_hung(connections([LONG]), CHANNELS[:1]) == {"a:1": 1}
    # connected anew it is not heard yet
    assert suspects(book, [SECOND], now) == []
    assert book.count_hung(connections([SECOND]), CHANNELS[:1]) == {"a:1": 1}
    assert suspects(book, [0], now) == []
    assert book.count_hung(connections([0]), CHANNELS[:1]) == {}
    assert suspects(book, [LONG], now + HUNG_AFTER_NS) == [0]


def test_one_that_does_not_hang_is_not_counted_and_looked_at_again():
    book = HangBook()
    assert suspects(book, [LONG], 0) == [0]
    book.note_read(100, 0, hangs=False)
    assert book.count_hung(connections([LONG]), CHANNELS[:1]) == {}
    assert suspects(book, [LONG], LOOK_AGAIN_NS - 1) == []
    assert suspects(book, [LONG], LOOK_AGAIN_NS) == [0]


def test_thousands_are_read_at_once():
    n = 5000
    found = Connections(
        ["a:1"], np.zeros(n, np.int32), np.ones(n, bool), np.ones(n, bool), np.full(n, LONG)
    )
    assert len(HangBook().next_suspects(found, np.arange(n), 0)) == 2000


@pytest.mark.parametrize(
    ("answered", "silent", "alive", "hangs"),
    [
        (True, False, False, True),
        (False, True, True, True),
        # the IOC is silent altogether
        (False, True, False, False),
        # it says by an error that it cannot be read
        (False, False, True, False),
    ],
)
def test_a_channel_hangs_where_its_ioc_lives(answered, silent, alive, hangs):
    found = hanging_channels(
        np.array([7], np.int32), np.array([answered]), np.array([silent]), {7} if alive else {3}
    )
    assert found.tolist() == [hangs]
