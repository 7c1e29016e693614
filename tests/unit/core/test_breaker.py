"""When an IOC is asked: the rules of its circuit breaker."""

from hypothesis import given
from hypothesis import strategies as st

from drey_core.breaker import (
    AUTOMATIC,
    FAILURES,
    FIRST_PAUSE_NS,
    HELD_CLOSED,
    HELD_OPEN,
    LONGEST_PAUSE_NS,
    BreakerBook,
)
from drey_core.iocs import CLOSED, OPEN, PROBING

WALL = 1_700_000_000 * 10**9
A, B = "a:5064", "b:5064"


def opened() -> BreakerBook:
    book = BreakerBook()
    for _ in range(FAILURES):
        assert not book.refused_addresses
        book.note_unanswered(A, 0)
    assert book.next_probes(0) == [A] and not book.refused_addresses
    assert book.end_probe(A, answered=False, now=0, wall_ns=WALL)
    assert book.refused_addresses == {A}
    return book


def test_it_opens_after_failures_and_a_probe_and_says_why():
    book = opened()
    why = book.why_refused([A, B])
    assert A in why and "since 2023-11-14T22:13:20Z" in why and "at 2023-11-14T22:13:21Z" in why
    (state,) = book.ioc_states
    assert (state.breaker, state.timeouts, state.breaker_since_ns) == (OPEN, FAILURES + 1, WALL)
    assert book.why_refused([B]) == ""


def test_a_probe_that_is_answered_keeps_a_suspected_ioc_closed():
    """Slow devices time out, and their IOC answers."""
    book = BreakerBook()
    for _ in range(10):
        for _ in range(FAILURES):
            book.note_unanswered(A, 0)
        assert book.next_probes(0) == [A]
        assert not book.end_probe(A, answered=True, now=0, wall_ns=WALL)
        assert not book.refused_addresses
    assert book.ioc_states[0].timeouts == 10 * FAILURES and book.ioc_states[0].breaker == CLOSED


def test_failures_have_to_be_in_a_row():
    book = BreakerBook()
    for _ in range(20):
        for _ in range(FAILURES - 1):
            book.note_unanswered(A, 0)
        book.note_answered(A)
    assert book.next_probes(0) == []


def test_it_is_probed_with_growing_pauses_and_closes_when_answered():
    book, now, pauses = opened(), 0, []
    for _ in range(8):
        before = now
        while not book.next_probes(now):
            now += FIRST_PAUSE_NS // 4
        assert book.ioc_states[0].breaker == PROBING and book.next_probes(now) == []
        pauses.append(now - before)
        assert not book.end_probe(A, answered=False, now=now, wall_ns=WALL + now)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (FIRST_PAUSE_NS, LONGEST_PAUSE_NS)
    # it was away, and is there again
    book.note_connected(A, now)
    assert book.next_probes(now) == [A]
    assert book.end_probe(A, answered=True, now=now, wall_ns=WALL)
    assert not book.refused_addresses and not book.has_watched


def test_what_an_administrator_holds_is_held():
    book = opened()
    book.hold_modes({A: HELD_CLOSED, B: HELD_OPEN}, WALL)
    assert book.refused_addresses == {B}
    assert "administrator" in book.why_refused([B])
    for _ in range(2 * FAILURES):
        book.note_unanswered(A, 0)
    assert book.next_probes(10**12) == [] and book.refused_addresses == {B}
    book.hold_modes({}, WALL)
    assert not book.refused_addresses and book.next_probes(10**12) == []
    assert AUTOMATIC not in (HELD_CLOSED, HELD_OPEN)


@given(st.lists(st.sampled_from(["unanswered", "answered", "probe", "heal", "break", "wait"])))
def test_one_that_answers_is_asked_in_the_end_and_never_refused_for_long(steps):
    """Whatever happened: once it answers, one probe closes it."""
    book, now, healthy = BreakerBook(), 0, True
    for step in steps:
        if step == "unanswered":
            book.note_unanswered(A, now)
        elif step == "answered" and A not in book.refused_addresses:
            book.note_answered(A)
        elif step == "wait":
            now += LONGEST_PAUSE_NS
        elif step in ("heal", "break"):
            healthy = step == "heal"
        else:
            for address in book.next_probes(now):
                book.end_probe(address, answered=healthy, now=now, wall_ns=now)
                assert (address in book.refused_addresses) is not healthy
    now += LONGEST_PAUSE_NS
    for address in book.next_probes(now):
        book.end_probe(address, answered=True, now=now, wall_ns=now)
    assert not book.refused_addresses
