"""What a watch chooses after PVs were added and removed: as if each step had been applied alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.errors import InvalidArgument, Reason
from drey_core.selector import Selector, SelectorIndex
from drey_gateway.domain.terms import (
    MAX_TERMS,
    SelectorTerm,
    Terms,
    add_selector,
    remove_selector,
)

NAMES = [f"{letter}{digit}" for letter in "AB" for digit in range(4)]
INDEX = SelectorIndex(
    numbers=np.arange(1, len(NAMES) + 1),
    names=NAMES,
    setpoint_addresses=[""] * len(NAMES),
    readback_addresses=[""] * len(NAMES),
)
LISTS = st.lists(st.sampled_from([*NAMES, "LATER"]), min_size=1, max_size=3).map(
    lambda names: Selector(names=tuple(names))
)
GLOBS = st.sampled_from(["A*", "*1", "B[23]"]).map(lambda glob: Selector(globs=(glob,)))
STEPS = st.lists(st.tuples(st.booleans(), LISTS | GLOBS), max_size=12)


def chosen(terms: Terms) -> set[int]:
    mask = np.zeros(len(INDEX), bool)
    for term in terms:
        mask[INDEX.select_rows(term.selector, allow_unknown=True).rows] = term.added
    return set(np.flatnonzero(mask).tolist())


@given(LISTS | GLOBS, STEPS)
def test_terms_choose_what_the_steps_do(first, steps):
    terms: Terms = (SelectorTerm(True, first),)
    every = list(terms)
    for added, selector in steps:
        terms = (add_selector if added else remove_selector)(terms, selector)
        every.append(SelectorTerm(added, selector))
        assert chosen(terms) == chosen(tuple(every))
        assert len(terms) <= len(every)


def test_windows_that_open_and_close_leave_no_trace():
    terms: Terms = (SelectorTerm(True, Selector(names=("A0",))),)
    for n in range(10 * MAX_TERMS):
        window = Selector(names=(f"X{n}", f"Y{n}"))
        terms = add_selector(terms, window)
        terms = remove_selector(terms, Selector(names=(f"X{n}",)))
        terms = remove_selector(terms, Selector(names=(f"Y{n}",)))
    assert terms == (SelectorTerm(True, Selector(names=("A0",))),)


def test_a_selector_that_comes_again_and_again_is_one():
    terms: Terms = (SelectorTerm(True, Selector(globs=("A*",))),)
    for _ in range(5 * MAX_TERMS):
        terms = remove_selector(terms, Selector(globs=("*1",)))
        terms = add_selector(terms, Selector(globs=("*1",)))
    assert len(terms) == 2


def test_what_grows_too_much_is_refused():
    terms: Terms = ()
    with pytest.raises(InvalidArgument) as caught:
        for n in range(MAX_TERMS + 1):
            terms = add_selector(terms, Selector(globs=(f"A{n}*",)))
    assert caught.value.reason is Reason.TOO_MANY
    assert len(terms) == MAX_TERMS
