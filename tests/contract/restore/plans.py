"""A plan with every kind of value and rule, for the tests of its digest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_core.pv_table import CompletionMode, Policy
from drey_core.values import ARRAY, Columns, Kind
from drey_restore import item_rows, mapping
from drey_restore.adapters.specs import rules_of
from drey_restore.domain.digest import plan_digest
from drey_restore.domain.items import PlanItems
from drey_restore.domain.policy import DEFAULT, DEFAULT_SOURCES, PartSource, PolicyOrigin
from drey_restore.domain.records import RECIPE, PlanRecord
from drey_testing.corpus import hostile_columns

SPEC = restore_pb2.PlanSpec(
    state={"snapshot_id": "01920000-0000-7000-8000-000000000001"},
    comment="back to Monday, µ",
    guards=[{"expression": "SR:CURRENT < 0.1", "description": "no beam"}, {"expression": "A == 1"}],
    gates=[
        {"after_stage": -1, "max_failed": 0},
        {"after_stage": 2, "must_hold": {"expression": "B > 2", "description": "µ"}},
        {"after_stage": 3},
    ],
    rollback={"max_failed": 3, "on_guard": True},
)


def record(spec: restore_pb2.PlanSpec = SPEC, n: int = 0) -> PlanRecord:
    return PlanRecord(
        id="01920000-0000-7000-8000-000000000002",
        digest="",
        snapshot_id=spec.state.snapshot_id,
        pvs=n,
        writes=n,
        skips=(0,) * 18,
        exact=False,
        principal="ann",
        role="restorer",
        comment=spec.comment,
        create_time_ns=1_790_000_000_123_456_789,
        expire_time_ns=1_790_000_900_123_456_789,
        recipe=RECIPE,
        spec=spec.SerializeToString(deterministic=True),
        rules=rules_of(spec),
    )


def hostile_items() -> PlanItems:
    """The hostile corpus as the values of a plan, now, stored and to write, at different PVs."""
    values = hostile_columns()
    n = len(values)
    nan = float("nan")
    return PlanItems(
        number=np.arange(1, n + 1) + 2**40,
        names=[f"PV:{n - i}" if i % 7 else f"PV:µ{i}" for i in range(n)],
        addresses=[f"SP:{i}" for i in range(n)],
        readback_addresses=["" if i % 3 else f"RB:{i}" for i in range(n)],
        current=values,
        stored=values.take_rows((np.arange(n) + 5) % n),
        target=values.take_rows((np.arange(n) + 17) % n),
        stored_readback=values.take_rows((np.arange(n) + 31) % n),
        absolute=np.linspace(0, 1, n),
        relative=np.linspace(1, 2, n),
        readback_absolute=np.linspace(2, 3, n),
        readback_relative=np.linspace(3, 4, n),
        delta=np.where(np.arange(n) % 2, nan, -0.0),
        deviation=np.where(np.arange(n) % 2, np.inf, nan),
        stage=(np.arange(n) % 5 - 2).astype(np.int32),
        policy_of=(np.arange(n) % 3).astype(np.int32),
        skip=(np.arange(n) % 18).astype(np.uint8),
        label_of=(np.arange(n) % 3 - 1).astype(np.int32),
        stored_label_of=(np.arange(n) % 2).astype(np.int32),
        policies=[
            DEFAULT,
            Policy(CompletionMode.DONE_CHANNEL, 1.5, 0.25, 0, "DONE", 2.0, 0.5, 0.1, -1.0, 1.0),
            Policy(CompletionMode.READBACK, stage=-4, allowed_high=3.0),
        ],
        policy_sources=[
            DEFAULT_SOURCES,
            (
                PartSource("completion", PolicyOrigin.PV),
                PartSource("timeout", PolicyOrigin.DEVICE, "PS:µ"),
                PartSource("allowed", PolicyOrigin.TAG, "weak", "Magnets"),
            ),
            (),
        ],
        label_sets=[(b"off", b"on", b"tripped"), ("µ".encode(), b"", b"c")],
        warnings={0: ("one", "two µ"), n - 1: ("last",)},
        records={0: "REAL:0", 9: "REAL:µ"},
    )


def large_items() -> PlanItems:
    """Values of every kind that is sent in parts."""
    texts = [f"µ{i:05d}".encode() for i in range(50_000)]
    listed = [
        *(np.arange(200_000.0), np.arange(400_000, dtype=np.int16), "µ".encode() * 300_000),
        *(b"\xff" * 600_000, np.arange(600_000, dtype=np.uint8), texts, 1.0),
    ]
    n = len(listed)
    kinds = [None, None, None, None, None, Kind.STRING | ARRAY, None]
    values = Columns.from_values(np.arange(n), listed, kinds)
    values.state[:] = 3
    zeros, none = np.zeros(n), np.full(n, -1, np.int32)
    return PlanItems(
        number=np.arange(1, n + 1),
        names=[f"L:{i}" for i in range(n)],
        addresses=[f"L:{i}" for i in range(n)],
        readback_addresses=[""] * n,
        current=values,
        stored=values,
        target=values,
        stored_readback=Columns.empty_columns(n),
        absolute=zeros,
        relative=zeros,
        readback_absolute=zeros,
        readback_relative=zeros,
        delta=zeros,
        deviation=zeros,
        stage=np.zeros(n, np.int32),
        policy_of=np.zeros(n, np.int32),
        skip=np.zeros(n, np.uint8),
        label_of=none,
        stored_label_of=none,
    )


def empty_items() -> PlanItems:
    n, zeros, numbers = 0, np.zeros(0), np.zeros(0, np.int32)
    nothing = Columns.empty_columns(n)
    return PlanItems(
        *(np.zeros(0, np.int64), [], [], [], nothing, nothing, nothing, nothing),
        *(zeros, zeros, zeros, zeros, zeros, zeros, numbers, numbers, np.zeros(0, np.uint8)),
        *(numbers, numbers),
    )


def made(
    items: PlanItems, spec: restore_pb2.PlanSpec = SPEC
) -> tuple[restore_pb2.Plan, list[pb.ReadPlanResponse]]:
    """A plan as GetPlan and ReadPlan give it, by the code that serves them."""
    plan = record(spec, len(items))
    plan = replace(plan, digest=plan_digest(plan, items))
    chunks = item_rows.plan_chunks(items, writes_only=False, skips=[])
    return mapping.plan_message(plan, 0), [pb.ReadPlanResponse.FromString(raw) for raw in chunks]
