"""What an interrupted execution left, for the one that continues it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from drey_core.values import Columns, Kind
from drey_restore.domain.execution import Execution
from drey_restore.domain.items import I4, Outcome, PlanItems, scatter_rows
from drey_restore.domain.ramping import step_columns


def values_left(items: PlanItems, earlier: Outcome, execution: Execution) -> Iterator[Columns]:
    """Values at one of which each setpoint has not moved, one after the other; shapes (n,).

    What was not sent is as it was before; a ramp stands at its last step. What may have been sent
    is at the one or the other. `execution` has just carried on `earlier`.
    """
    at_last = _at_steps(items, earlier.before, execution.steps)
    yield at_last
    doubtful = np.flatnonzero(execution.doubt)
    if len(doubtful):
        following = _at_steps(items, earlier.before, execution.steps + execution.doubt)
        yield following
        yield scatter_rows(at_last, doubtful, items.target.take_rows(doubtful))


def _at_steps(items: PlanItems, before: Columns, steps: I4) -> Columns:
    """`before`, with ramps at the steps of these numbers, from 1; 0: before the first."""
    at_steps = before.take_rows(np.arange(len(before)))
    for row, ramp in items.ramps.items():
        number = min(int(steps[row]), len(ramp))
        if number > 0 and items.target.kind[row] != Kind.NONE:
            step = step_columns(
                np.array(ramp[number - 1 : number]), items.target.kind[row : row + 1]
            )
            at_steps.kind[row], at_steps.data[row] = step.kind[0], step.data[0]
    return at_steps
