"""What holds of every plan, whatever the machine, the source, the policies and the names are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given as having
from hypothesis import strategies as st

from drey_core.pv_table import CompletionMode, Policy
from drey_core.values import Kind, Severity, as_float64, encode_value
from drey_restore.domain.digest import plan_digest
from drey_restore.domain.edits import Given, Linear
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import SKIPS, Skip
from drey_restore.domain.planning import (
    PlanInput,
    make_plan,
)
from drey_restore.domain.policy import NOTHING, PartSource, PolicyOrigin, PolicyRows, SaidPolicy
from drey_restore.domain.problems import PlanProblem
from drey_restore.domain.record_facts import RecordFacts, refuse_records
from drey_restore.domain.records import PlanRecord
from drey_restore.domain.waiting import stage_waits

from .test_planning import known

RECORDS = ("R", "S")
ALIASES = {"A": "R", "B": "R", "T": "S"}
"""By alias the record that it is another name of."""
ADDRESSES = st.tuples(
    st.sampled_from(["R", "R", "A", "B", "S", "T"]),
    st.sampled_from(["", "", ".VAL", "$", ".RVAL", ".DRVH", ".DRVH", ".DRVL", ".DISP", ".EGU$"]),
).map("".join)
SMALL = st.sampled_from([-2.0, -0.0, 0.0, 1.0, 2.5, 7.0, float("nan"), float("inf")])
FINITE = st.none() | st.sampled_from([-1.0, 0.0, 2.0, 5.0])
POLICIES = st.builds(
    Policy,
    completion=st.sampled_from(CompletionMode),
    timeout_s=st.none() | st.sampled_from([1.0, 60.0]),
    settle_s=st.none() | st.sampled_from([0.0, 0.5]),
    stage=st.none() | st.integers(-2, 2),
    done_channel=st.sampled_from(["", "D", ".DMOV"]),
    ramp_rate=st.none() | st.sampled_from([0.5, 2.0]),
    ramp_step=st.none() | st.sampled_from([0.25, 3.0]),
    allowed_low=FINITE,
    allowed_high=FINITE,
)
SAID = st.builds(
    SaidPolicy,
    POLICIES,
    st.sampled_from([(), (PartSource("stage", PolicyOrigin.TAG, "µ", "Kind"),)]),
    st.sampled_from([(), (), ("two tags contradict each other",)]),
)
ONE_IN_FOUR = st.sampled_from([0, 0, 0, 1])
CHANGES = st.builds(Linear, st.sampled_from([1.0, 2.0]), st.sampled_from([0.0, 0.5])) | st.builds(
    lambda value: Given(*encode_value(value)), SMALL | st.just("on")
)


@dataclass(frozen=True)
class Case:
    """What a plan is made of, and what records say afterwards: aliases by row, those disabled."""

    given: PlanInput
    exact: bool
    aliases: Mapping[int, str]
    disp: frozenset[str]


NUMBERS = st.sampled_from([-2.0, 0.0, 1.0, 2.5, 7.0])
"""Most are numbers that differ, so that most rows are written, and come in each other's way."""
STRANGE = SMALL | st.integers(-3, 3) | st.sampled_from(["", "on", "x" * 40]) | st.none()
TROUBLES = ("deleted", "read_only", "stale", "refused", "no setpoint", "invalid", "source", "live")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n = draw(st.sampled_from([1, 3, 4, 5, 6, 7, 8]))

    def column(strategy: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(strategy, min_size=n, max_size=n))

    trouble = np.array(column(st.sampled_from(["none"] * 24 + list(TROUBLES))), object)
    stored, live = column(NUMBERS), column(st.sampled_from([-0.5, -0.5, -0.5, 1.0]))
    for row in range(n):
        if trouble[row] == "source":
            stored[row] = draw(STRANGE)
        if trouble[row] == "live":
            live[row] = draw(STRANGE)
    addresses = column(ADDRESSES)
    base = known(stored, live)
    base.stored.severity[trouble == "invalid"] = Severity.INVALID
    base.setpoint_channel[trouble == "no setpoint"] = 0
    rows = st.lists(st.integers(0, n - 1), unique=True, max_size=2)
    values = column(NUMBERS) if draw(st.integers(0, 3)) == 0 else []
    low, high = draw(st.sampled_from([(np.nan, np.nan), (-9.0, 9.0), (-9.0, 9.0), (-1.0, 2.0)]))
    policies = [NOTHING, draw(SAID), draw(SAID)]
    found = replace(
        base,
        addresses=addresses,
        readback_addresses=column(st.sampled_from(["", "RB"])),
        deleted=trouble == "deleted",
        read_only=trouble == "read_only",
        stale=trouble == "stale",
        writable=trouble != "refused",
        control_low=np.full(n, low),
        control_high=np.full(n, high),
        policies=PolicyRows(np.array(column(st.sampled_from([0] * 6 + [1, 2]))), policies),
        done=frozenset(draw(rows)),
        given={row: Given(*encode_value(value)) for row, value in enumerate(values)},
        edits=[(np.array(draw(rows), np.int64), draw(CHANGES)) for _ in range(draw(ONE_IN_FOUR))],
        refused=frozenset(draw(st.sets(st.sampled_from(PlanProblem)))),
    )
    aliases = {
        row: ALIASES[name]
        for row, address in enumerate(addresses)
        if (name := address.partition(".")[0].removesuffix("$")) in ALIASES
    }
    disp = frozenset(draw(st.sets(st.sampled_from(RECORDS), max_size=1)))
    return Case(found, draw(st.booleans()), aliases, disp)


def planned(case: Case) -> PlanItems:
    """As CreatePlan makes it: planned, then held against what the records say."""
    items = make_plan(case.given, exact=case.exact)
    rows = np.sort(items.writes)
    names = [case.aliases.get(row, items.addresses[row][0]) for row in rows.tolist()]
    disp = np.array([name in case.disp for name in names], bool)
    aliases = {row: case.aliases[row] for row in rows.tolist() if row in case.aliases}
    facts = RecordFacts(rows, disp, np.zeros(len(rows), bool), aliases)
    return refuse_records(items, facts, case.given.refused)


def record_of(items: PlanItems) -> PlanRecord:
    skips = np.bincount(items.skip, minlength=SKIPS)
    return PlanRecord(
        id="p",
        digest="",
        snapshot_id="",
        pvs=len(items),
        writes=int(skips[0]),
        skips=(0, *skips[1:].tolist()),
        exact=False,
        principal="ann",
        role="operator",
        comment="",
        create_time_ns=1,
        expire_time_ns=2,
    )


@having(cases())
def test_every_pv_is_written_or_left_out_for_one_reason(case: Case) -> None:
    items = planned(case)
    writes = items.writes.tolist()
    assert sorted(writes) == np.flatnonzero(items.skip == Skip.NONE).tolist()
    assert all(Skip(reason) for reason in items.skip[items.skip != Skip.NONE].tolist())
    assert (items.target.kind == Kind.NONE).tolist() == (items.skip != Skip.NONE).tolist()
    assert [row for stage in items.rows_by_stage for row in stage.tolist()] == writes
    assert items.ramps.keys() <= set(writes)
    record = record_of(items)
    assert sum(record.first_verdicts) == record.pvs == record.writes + sum(record.skips)
    # a reason that nobody can see is told in words
    for row in np.flatnonzero(items.skip == Skip.POLICY).tolist():
        assert items.warnings[row]
    waits = stage_waits(items)
    assert [sum(n for _, n in w.completions) for w in waits] == list(map(len, items.rows_by_stage))
    assert all(w.most_ns is None or w.least_ns <= w.most_ns for w in waits)


@having(cases())
def test_no_field_is_written_twice_whatever_it_is_called(case: Case) -> None:
    items = planned(case)
    fields = [items.field_written(row) for row in items.writes.tolist()]
    assert len(set(fields)) == len(fields)


@having(cases())
def test_limits_are_written_before_the_values_that_they_allow(case: Case) -> None:
    items = planned(case)
    writes = items.writes.tolist()
    rows = {items.field_written(row): row for row in writes}
    numbers = as_float64(items.target.kind, items.target.data)
    for name, row in rows.items():
        earlier: dict[bool, float] = {}
        for is_high, field in ((False, "DRVL"), (True, "DRVH")):
            limit = rows.get(f"{name}.{field}")
            if limit is not None and items.stage[limit] <= items.stage[row]:
                assert writes.index(limit) < writes.index(row)
                earlier[is_high] = numbers[limit]
        low = earlier.get(False, case.given.control_low[row])
        high = earlier.get(True, case.given.control_high[row])
        if low < high:  # else they limit nothing
            assert False not in earlier or not numbers[row] < low
            assert True not in earlier or not numbers[row] > high


@having(cases())
def test_steps_of_ramps_lead_to_the_target_and_none_is_too_large(case: Case) -> None:
    items = planned(case)
    now, target = (as_float64(c.kind, c.data) for c in (items.current, items.target))
    for row, steps in items.ramps.items():
        policy = items.policies[int(items.policy_of[row])]
        way = np.diff([now[row], *steps, target[row]])
        assert (way > 0).all() or (way < 0).all()
        rate = np.inf if policy.ramp_rate is None else policy.ramp_rate
        size = min(rate, np.inf if policy.ramp_step is None else policy.ramp_step)
        assert np.abs(way).max() <= size * (1 + 1e-9)


@having(cases())
def test_the_digest_is_that_of_the_stored_items(case: Case) -> None:
    items = planned(case)
    record = record_of(items)
    again = PlanItems.decode_items(items.encode_items())
    assert plan_digest(record, again) == plan_digest(record, items)
    assert again.encode_items() == items.encode_items()
