"""Own writes, and what a record makes of them, are no interference; what others write is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.values import Columns, Kind, State
from drey_restore.domain.execution import Execution
from drey_restore.domain.explaining import explain_rows
from drey_restore.domain.interference import Interference
from drey_restore.domain.items import Outcome, PlanItems
from drey_restore.domain.kinds import Verdict
from drey_restore.domain.planning import make_plan

from .test_planning import known

BEFORE, TARGET, TOLERANCE = 100.0, 1.0, 0.5
ROW = np.array([1])


def items_of(n: int = 3) -> PlanItems:
    """n PVs from 100 to 1, with half a unit of tolerance."""
    items = make_plan(known([TARGET] * n, [BEFORE] * n))
    return replace(items, absolute=np.full(n, TOLERANCE))


def values(*found: Any, state: State = State.CONNECTED) -> Columns:
    columns = Columns.from_values(np.zeros(len(found), np.int64), found, [None] * len(found))
    columns.state[:] = state
    return columns


def seen(story: list[Any], *, items: PlanItems | None = None) -> tuple[int, Any]:
    """(changes that were not its own, the first of them) of one row that is written at `WRITE`."""
    items = items or items_of()
    watch = Interference(items, items.current)
    for value in story:
        if value == "write":
            watch.expect_values(ROW)
        elif isinstance(value, tuple):
            watch.expect_values(ROW, values(*value))
        else:
            watch.note_values(ROW, values(value))
    first = watch.first.value(1) if watch.first.kind[1] else None
    assert watch.interfered_count == (1 if first is not None else 0)
    return int(watch.count[1]), first


@pytest.mark.parametrize(
    ("story", "count", "first"),
    [
        (["write", 100.0, 1.0], 0, None),
        ([50.0, "write", 1.0], 0, None),
        (["write", 100.2, 99.8, 1.3, 0.7, 1.0], 0, None),
        (["write", 1.0, 100.0], 1, 100.0),
        (["write", 1.0, 7.0], 1, 7.0),
        (["write", 1.0, 7.0, 1.0], 1, 7.0),
        (["write", 1.0, 7.0, 7.0, 8.0, 7.0], 3, 7.0),
        # the record clips what is written: no change of somebody else, as long as it stays
        (["write", 100.0, 10.0, 10.2], 0, None),
        (["write", 10.0, 1.0], 1, 10.0),
        (["write", 10.0, 20.0], 1, 20.0),
        (["write", 10.0, 100.0], 1, 100.0),
        # a ramp: each step counts as own, and the one before it as the value before
        ([(70.0,), 70.0, (40.0,), 70.0, 40.0, (1.0,), 40.0, 1.0], 0, None),
        ([(70.0,), 70.0, 100.0], 1, 100.0),
        ([(70.0,), 70.0, 55.0, (40.0,), 40.0], 1, 55.0),
    ],
)
def test_what_is_interference(story: list[Any], count: int, first: float | None) -> None:
    assert seen(story) == (count, first)


def test_what_is_not_written_or_not_there_is_nobodys() -> None:
    items = items_of()
    watch = Interference(items, items.current)
    watch.expect_values(np.array([0, 1]))
    both = np.array([0, 1])
    watch.note_values(both, values(1.0, 1.0))
    watch.note_values(both, values(5.0, 5.0, state=State.DISCONNECTED))
    watch.note_values(np.array([2]), values(5.0))
    assert watch.interfered_count == 0
    watch.mark_unsent(np.array([1]))
    assert watch.note_values(both, values(5.0, 5.0))
    assert watch.count.tolist() == [1, 0, 0]
    assert watch.rows_off.tolist() == [0]
    assert not watch.note_values(both, values(1.0, 1.0))
    assert watch.rows_off.tolist() == []
    assert watch.count.tolist() == [1, 0, 0]


@pytest.mark.parametrize("complete", [True, False])
def test_an_ioc_that_restarts_before_a_write_has_shown_has_changed_it(complete: bool) -> None:
    """The IOC answered, and died before it posted the value; what it has now is not that."""
    watch = Interference(items_of(), items_of().current)
    watch.expect_values(ROW)
    watch.note_values(ROW, values(BEFORE))
    if complete:
        watch.mark_complete(ROW)
    watch.note_values(ROW, values(BEFORE))
    assert watch.interfered_count == 0, (
        "what the IOC posted before the write may come after its answer"
    )
    watch.note_values(ROW, values(BEFORE, state=State.DISCONNECTED))
    watch.note_values(ROW, values(BEFORE))
    assert watch.interfered_count == complete
    # a write that nobody answered may still be on its way, and so may the next one
    watch.expect_values(ROW)
    watch.note_values(ROW, values(BEFORE, state=State.DISCONNECTED))
    watch.note_values(ROW, values(BEFORE))
    assert watch.interfered_count == complete
    watch.note_values(ROW, values(TARGET))
    assert watch.rows_off.tolist() == []


def test_arrays_and_texts_are_watched_too() -> None:
    items = items_of(2)
    kinds = [Kind.FLOAT64 | 64, Kind.STRING]
    own = Columns.from_values(np.zeros(2, np.int64), [[1.0, 2.0], b"run"], kinds)
    before = Columns.from_values(np.zeros(2, np.int64), [[0.0, 0.0], b"off"], kinds)
    for columns in (own, before):
        columns.state[:] = State.CONNECTED
    watch = Interference(replace(items, target=own), before)
    rows = np.array([0, 1])
    watch.expect_values(rows)
    for story, count in (
        (([0.0, 0.0], b"off"), 0),
        (([1.0, 2.1], b"run"), 0),
        (([1.0, 3.0], b"stop"), 1),
    ):
        found = Columns.from_values(np.zeros(2, np.int64), story, kinds)
        found.state[:] = State.CONNECTED
        watch.note_values(rows, found)
        assert watch.count.tolist() == [count, count]
    assert watch.first.value(0).tolist() == [1.0, 3.0]
    assert watch.first.value(1) == b"stop"


@given(st.lists(st.floats(-TOLERANCE / 2, TOLERANCE / 2), max_size=8), st.data())
def test_noise_within_the_tolerance_is_never_interference(
    noise: list[float], data: st.DataObject
) -> None:
    """Before the write around the value before, after it around the target."""
    cut = data.draw(st.integers(0, len(noise)))
    story = [*(BEFORE + each for each in noise[:cut]), *(TARGET + each for each in noise[cut:])]
    assert seen(["write", *story]) == (0, None)
    # and whatever else comes after the target is
    other = data.draw(st.floats(-1e3, 1e3).filter(lambda x: abs(x - TARGET) > 2 * TOLERANCE))
    assert seen(["write", *story, TARGET, other]) == (1, other)


def test_it_is_said_with_its_time_and_value() -> None:
    items = items_of()
    watch = Interference(items, items.current)
    watch.expect_values(ROW)
    watch.note_values(ROW, values(1.0))
    found = values(7.0)
    found.receive_time[:] = 1_700_000_000_500_000_000
    watch.note_values(ROW, found)
    outcome = replace(
        Outcome.fresh_outcome(items, Execution(items).verdict),
        verdict=np.full(3, Verdict.VERIFIED, np.uint8),
        interference=watch.first,
        interferences=watch.count,
    )
    again = Outcome.decode_outcome(outcome.encode_outcome())
    texts = explain_rows(items, again, np.arange(3), ())
    assert "changed it to 7.0" in texts[1]
    assert "22:13:20.500000 UTC" in texts[1]
    assert not any("Interference" in texts[row] for row in (0, 2))
