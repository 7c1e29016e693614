"""What a monitor knows of IOCs, and which of them are asked and told when."""

import numpy as np

from drey_core.iocs import IocState, IocTurns
from drey_monitor.domain.iocs import ECHO_EACH_NS, IocBook

SECOND = 10**9


def book_of(counts: dict[str, tuple[int, int]]) -> IocBook:
    book = IocBook()
    count_again(book, counts)
    return book


def count_again(book: IocBook, counts: dict[str, tuple[int, int]]) -> None:
    names = list(counts)
    server = np.repeat(np.arange(len(names), dtype=np.int32), [n for n, _ in counts.values()])
    up = np.concatenate([np.arange(n) < k for n, k in counts.values()] or [np.zeros(0, bool)])
    # two that are nowhere
    book.count(names, np.append(server, [-1, -1]).astype(np.int32), np.append(up, [False, True]))


def test_channels_are_counted_by_ioc_and_what_is_known_stays():
    book = book_of({"a:1": (5, 4), "b:1": (3, 0)})
    book.note_silent("a:1", 77)
    book.note_silent("a:1", 99)
    count_again(book, {"b:1": (3, 3), "a:1": (6, 6), "c:1": (0, 0)})
    states = {state.address: state for state in book.ioc_states}
    assert states.keys() == {"a:1", "b:1"}
    assert states["a:1"] == IocState("a:1", 6, 6, 2, silent_since_ns=77)
    assert states["b:1"] == IocState("b:1", 3, 3)
    book.note_answered("a:1", 0)
    assert (book.ioc_states[1].echo_ns, book.ioc_states[1].silent_since_ns) == (1, 0)


def test_echoes_are_spread_and_each_ioc_has_its_turn():
    names = [f"ioc{n:03}:5064" for n in range(100)]
    book = book_of({name: (10, 10) for name in names} | {"down:1": (10, 0)})
    asked: dict[str, list[int]] = {}
    for second in range(60):
        due = book.next_echoes(second * SECOND, 500)
        # a fifth of them a second
        assert len(due) <= 25
        for name in due:
            asked.setdefault(name, []).append(second)
    assert sorted(asked) == names
    for seconds in asked.values():
        assert (np.diff(seconds) >= ECHO_EACH_NS // SECOND).all()
        assert (np.diff(seconds) <= ECHO_EACH_NS // SECOND + 1).all()


def test_echoes_are_bounded():
    book = book_of({f"i{n}": (1, 1) for n in range(50)})
    assert len(book.next_echoes(0, 10)) <= 10
    assert len(book.next_echoes(10 * SECOND, 10)) == 10


def test_double_names_last_as_long_as_a_search_finds_them():
    book = IocBook()
    book.note_doubles([("A", "x:1", "y:1"), ("B", "x:1", "z:1")], 5)
    book.begin_search(["A", "B"])
    book.note_doubles([("A", "y:1", "x:1"), ("C", "x:1", "y:1")], 9)
    book.end_search()
    assert {(d.name, d.taken, d.since_ns) for d in book.double_names} == {
        ("A", "y:1", 5),
        ("C", "x:1", 9),
    }
    book.note_doubles([(str(n), "x", "y") for n in range(1000)], 9)
    assert len(book.double_names) == 64


def test_all_iocs_come_in_turn_and_news_first():
    turns = IocTurns(10)
    states = [IocState(f"i{n:02}") for n in range(25)]
    told = [[s.address for s in turns.next_states(states)] for _ in range(6)]
    assert all(len(each) == 10 for each in told)
    assert {a for each in told[:3] for a in each} == {s.address for s in states}
    assert {a for each in told[3:] for a in each} == {s.address for s in states}
    states[7] = IocState("i07", timeouts=1)
    assert turns.next_states(states)[0] == states[7]
    # an echo's time alone is no news
    states[8] = IocState("i08", echo_ns=5)
    assert turns.next_states(states[:9])[0].address != "i08" or len(states[:9]) < 10
    assert turns.next_states(states[:3]) and len(turns.next_states(states[:3])) == 3
