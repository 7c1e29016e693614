"""Batches: in order, bounded, none for an IOC that has enough on its way."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drey_restore.domain.lanes import next_rows


@given(
    st.lists(st.integers(0, 4), max_size=60),
    st.sets(st.integers(0, 4)),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_a_batch_is_bounded_and_takes_the_first_of_each_ioc(
    lanes: list[int], closed: set[int], batch: int, per_lane: int
) -> None:
    found = next_rows(
        np.array(lanes, np.int64),
        np.array(sorted(closed), np.int64),
        batch=batch,
        per_lane=per_lane,
    ).tolist()
    assert found == sorted(set(found))
    assert len(found) <= batch
    taken: dict[int, list[int]] = {}
    for row in found:
        taken.setdefault(lanes[row], []).append(row)
    for lane, rows in taken.items():
        assert lane not in closed
        assert len(rows) <= per_lane
        assert rows == [row for row, each in enumerate(lanes) if each == lane][: len(rows)]
    assert found or all(lane in closed for lane in lanes)


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(1, 20), st.integers(1, 20))
def test_all_are_sent_once(lanes: list[int], batch: int, per_lane: int) -> None:
    left, sent = np.arange(len(lanes)), []
    while len(left):
        taken = next_rows(
            np.array(lanes, np.int64)[left], np.zeros(0, np.int64), batch=batch, per_lane=per_lane
        )
        sent += left[taken].tolist()
        left = np.delete(left, taken)
    assert sorted(sent) == list(range(len(lanes)))
