"""What tags and devices say of how PVs are restored, in a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from drey_core.pv_table import CompletionMode, Policy
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.planning import make_plan
from drey_restore.domain.policy import (
    NOTHING,
    PartSource,
    PolicyOrigin,
    PolicyRows,
    PolicyTable,
    SaidPolicy,
    sources_bytes,
    sources_of_bytes,
)

from .test_planning import known

OF_TAG = PartSource("stage", PolicyOrigin.TAG, "weak", "Kind")
OF_DEVICE = PartSource("allowed", PolicyOrigin.DEVICE, "PS:µ")
BUILT_IN = PartSource("completion", PolicyOrigin.BUILT_IN)


def test_items_say_where_each_part_of_their_policy_came_from() -> None:
    said = SaidPolicy(Policy(stage=3, allowed_high=9.0), (OF_TAG, OF_DEVICE))
    given = replace(
        known([1.0, 1.0, 10.0], [0.0, 0.0, 0.0]),
        policies=PolicyRows(np.array([1, 0, 1]), [NOTHING, said]),
    )
    plan = make_plan(given)
    assert plan.skip.tolist() == [Skip.NONE, Skip.NONE, Skip.OUT_OF_RANGE]
    assert plan.stage.tolist() == [3, 0, 3]
    sources = [plan.policy_sources[index] for index in plan.policy_of.tolist()]
    assert sources == [(BUILT_IN, OF_TAG, OF_DEVICE), (BUILT_IN,), (BUILT_IN, OF_TAG, OF_DEVICE)]
    again = PlanItems.decode_items(plan.encode_items())
    assert again.policy_sources == plan.policy_sources


def test_what_contradicts_itself_leaves_its_pvs_out_and_says_why() -> None:
    said = SaidPolicy(Policy(stage=1), (OF_TAG,), ("Kind=weak and Kind=odd say different things",))
    given = replace(
        known([1.0, 1.0, 1.0], [0.0, 0.0, 1.0]),
        policies=PolicyRows(np.array([1, 0, 1]), [NOTHING, said]),
    )
    plan = make_plan(given)
    assert plan.skip.tolist() == [Skip.POLICY, Skip.NONE, Skip.EQUAL]
    assert plan.warnings == {0: ("Kind=weak and Kind=odd say different things",)}


def test_a_done_channel_may_be_a_field_of_the_record_that_is_written() -> None:
    by_done = SaidPolicy(Policy(CompletionMode.DONE_CHANNEL, done_channel=".DMOV"))
    given = replace(
        known([1.0] * 3, [0.0] * 3),
        addresses=["M:1", "M:2.VAL", "M:3$"],
        policies=PolicyRows(np.array([1, 1, 1]), [NOTHING, by_done]),
        done=frozenset(range(3)),
    )
    plan = make_plan(given)
    assert [plan.done_address(row) for row in range(3)] == ["M:1.DMOV", "M:2.DMOV", "M:3.DMOV"]


def test_policies_are_found_by_number() -> None:
    listed = [SaidPolicy(Policy(stage=1)), SaidPolicy(Policy(stage=2))]
    table = PolicyTable(np.array([3, 7, 9]), np.array([1, 0, 1]), listed)
    rows = table.rows(np.array([1, 3, 7, 8, 9, 10]))
    assert [rows.listed[i].policy.stage for i in rows.index] == [None, 2, 1, None, 2, None]
    groups = {s.policy.stage: r.tolist() for s, r in rows.rows_by_policy(np.arange(6) != 4)}
    assert groups == {1: [2], 2: [1]}
    nothing = PolicyTable(np.zeros(0, np.int64), np.zeros(0, np.int64), [])
    assert nothing.rows(np.array([1])).index.tolist() == [0]


def test_sources_survive_the_database() -> None:
    sources = (OF_TAG, OF_DEVICE, BUILT_IN, PartSource("settle", PolicyOrigin.PV))
    assert sources_of_bytes(sources_bytes(sources)) == sources
