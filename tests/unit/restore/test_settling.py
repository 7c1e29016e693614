"""A write that is waited for is settled or late, once, and only by what was seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drey_restore.domain.settling import SettlingRows

LOOKS = st.lists(
    st.tuples(st.floats(0, 3, allow_nan=False), st.lists(st.booleans(), min_size=3, max_size=3)),
    max_size=30,
)


@given(
    LOOKS,
    st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=3, max_size=3),
    st.lists(st.sampled_from([1.0, 5.0, 30.0]), min_size=3, max_size=3),
)
def test_settled_is_what_held_for_its_time_and_late_what_did_not(
    looks: list[tuple[float, list[bool]]], settle: list[float], deadline: list[float]
) -> None:
    settling = SettlingRows(np.array(settle), np.array(deadline))
    now, seen = 0.0, []
    for step, holds in looks:
        now += step
        seen.append((now, holds))
        before = settling.settled.copy(), settling.late.copy()
        settling.note_readbacks(np.array(holds)[settling.waiting_rows], now)
        assert not (settling.settled & settling.late).any()
        assert (settling.settled >= before[0]).all()
        assert (settling.late >= before[1]).all()
    for row in range(3):
        # by hand: the first look at which it had held, at every look, for its time
        since, expected = None, "waiting"
        for at, holds in seen:
            since = (at if since is None else since) if holds[row] else None
            if since is not None and at - since >= settle[row]:
                expected = "settled"
            elif at >= deadline[row]:
                expected = "late"
            if expected != "waiting":
                break
        assert settling.settled[row] == (expected == "settled")
        assert settling.late[row] == (expected == "late")
    settling.give_up()
    assert (settling.settled ^ settling.late).all()


def test_where_nothing_is_known_a_row_keeps_its_time_and_may_be_late() -> None:
    settling = SettlingRows(np.array([2.0, 2.0]), np.array([5.0, 5.0]))
    settling.note_readbacks(np.array([True, True]), 0.0)
    settling.note_readbacks(np.array([False, True]), 1.0, known=np.array([False, True]))
    settling.note_readbacks(np.array([True, True]), 3.0, known=np.array([True, False]))
    assert settling.settled.tolist() == [True, False]
    settling.note_readbacks(np.array([True]), 6.0, known=np.array([False]))
    assert settling.late.tolist() == [False, True]
