"""The way back of a restore, as a source of values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from drey_core.pv_table import Policy
from drey_core.values import Columns
from drey_restore.domain.items import Outcome
from drey_restore.domain.planning import make_plan
from drey_restore.domain.policy import PolicyRows
from drey_restore.usecases.sources import way_back

from .test_planning import known

LOWEST, HIGHEST = -(2**31), 2**31 - 1


async def test_stages_come_back_in_reverse_whatever_their_numbers() -> None:
    stages = [LOWEST, -1, 0, HIGHEST]
    n = len(stages)
    policies = PolicyRows.same_for_rows(
        n, {row: Policy(stage=stage) for row, stage in enumerate(stages)}
    )
    items = make_plan(replace(known([2.0] * n, [1.0] * n), policies=policies))
    outcome = Outcome.fresh_outcome(items, np.zeros(n, np.uint8))
    rows = np.arange(1, n)
    source = way_back(items, outcome, Columns.empty_columns(n), rows)
    assert source.back is not None
    assert source.back.stage.tolist() == [1, 0, -HIGHEST]
    assert list(await source.names(items.number[2:3])) == [int(items.number[2])]
    source = way_back(items, outcome, Columns.empty_columns(n), np.arange(n))
    assert source.back is not None
    assert np.argsort(source.back.stage, kind="stable").tolist() == [3, 2, 1, 0]
