"""The digest of a plan: three programs compute the same one, and it does not change.

Ours (numpy columns), that of `drey` and that of a client in Go (messages as they are read). The
golden files are the canonical bytes of recipes 2 and 3: never replace one, a new recipe has new
files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import zstandard

from drey.restore.v1 import restore_pb2, restore_service_pb2_grpc
from drey.restore.v1 import restore_service_pb2 as pb
from drey_client import plan_digest as digests
from drey_client.parts import whole_rows
from drey_core.values import Columns
from drey_restore.domain.digest import canonical_bytes, plan_digest
from drey_restore.domain.items import PlanItems
from tests.contract.restore.plans import SPEC, empty_items, hostile_items, large_items, made, record
from tests.go import GO_DIGEST, built_client, require_go, run

GOLDEN = Path(__file__).parent / "golden"
SPECS = {
    "rules": SPEC,
    "plain": restore_pb2.PlanSpec(state={"snapshot_id": SPEC.state.snapshot_id}),
}


def cases() -> Iterator[tuple[str, PlanItems, restore_pb2.PlanSpec]]:
    yield "hostile", hostile_items(), SPECS["rules"]
    yield "empty", empty_items(), SPECS["plain"]
    yield "large", large_items(), SPECS["plain"]


@pytest.mark.parametrize("name", ["hostile", "empty"])
def test_canonical_bytes_are_those_of_the_golden_files(name: str) -> None:
    items, spec = next((items, spec) for case, items, spec in cases() if case == name)
    for recipe in (2, 3):
        file = GOLDEN / f"plan-{recipe}-{name}.zst"
        raw = zstandard.ZstdDecompressor().decompress(file.read_bytes())
        plan = replace(record(spec, len(items)), recipe=recipe)
        assert b"".join(canonical_bytes(plan, items)) == raw
        assert plan_digest(plan, items) == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("name", ["hostile", "empty", "large"])
def test_drey_computes_the_same_from_what_it_reads(name: str) -> None:
    items, spec = next((items, spec) for case, items, spec in cases() if case == name)
    plan, chunks = made(items, spec)
    read = list(whole_rows(item for chunk in chunks for item in chunk.items))
    assert len(read) == len(items)
    assert digests.plan_digest(plan, read) == plan.digest


class _Server(restore_service_pb2_grpc.RestoreServiceServicer):
    def __init__(self, plans: dict[str, tuple[restore_pb2.Plan, list[pb.ReadPlanResponse]]]):
        self.plans = plans

    def GetPlan(self, request: Any, context: Any) -> pb.GetPlanResponse:
        return pb.GetPlanResponse(plan=self.plans[request.id][0])

    def ReadPlan(self, request: Any, context: Any) -> Iterator[pb.ReadPlanResponse]:
        yield from self.plans[request.id][1]


def test_a_client_in_go_computes_the_same(tmp_path: Path) -> None:
    go = require_go()
    program = built_client(go, tmp_path, GO_DIGEST)
    server = grpc.server(ThreadPoolExecutor(4))
    plans = {name: made(items, spec) for name, items, spec in cases()}
    restore_service_pb2_grpc.add_RestoreServiceServicer_to_server(_Server(plans), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        for name, (plan, _) in plans.items():
            found = run([str(program), f"127.0.0.1:{port}", "key", name])
            assert found.split() == [plan.digest, "as", "the", "server", "says"]
    finally:
        server.stop(None)


def _changed(items: PlanItems) -> Iterator[tuple[str, PlanItems]]:
    """The items with one thing changed, for each field that there is."""
    for field in fields(items):
        value = getattr(items, field.name)
        match value:
            case Columns():
                for part in ("state", "origin", "severity", "status", "source_time"):
                    column = getattr(value, part).copy()
                    column[10] += 1
                    yield (
                        f"{field.name}.{part}",
                        replace(items, **{field.name: replace(value, **{part: column})}),
                    )
            case np.ndarray():
                column = value.copy()
                column[10] = 7
                if field.name.endswith("_of"):
                    column = np.roll(value, 1)
                yield field.name, replace(items, **{field.name: column})
            case list():
                entry = value[0]
                other = "other" if isinstance(entry, str) else value[1]
                yield field.name, replace(items, **{field.name: [other, *value[1:]]})
            case dict():
                yield field.name, replace(items, **{field.name: {}})


def test_nothing_of_a_plan_can_change_under_its_digest() -> None:
    items = replace(hostile_items(), ramps={3: (1.0, 2.5)})
    plan = record(SPEC, len(items))
    digest = plan_digest(plan, items)
    for what, changed in _changed(items):
        assert plan_digest(plan, changed) != digest, what
    for name in ("id", "snapshot_id", "undoes_restore_id", "principal", "comment"):
        assert plan_digest(replace(plan, **{name: "other"}), items) != digest, name
    for name in ("create_time_ns", "expire_time_ns"):
        assert plan_digest(replace(plan, **{name: 1}), items) != digest, name
    for rule in ("guards", "gates", "rollback"):
        less = restore_pb2.PlanSpec()
        less.CopyFrom(SPEC)
        less.ClearField(rule)
        assert plan_digest(record(less, len(items)), items) != digest, rule


def test_what_the_recipe_leaves_out_is_refused() -> None:
    plan, chunks = made(hostile_items())
    item = chunks[0].items[0]
    item.current.user_tag = 0
    with pytest.raises(ValueError, match="user tag"):
        digests.plan_digest(plan, [item])


def test_stored_items_keep_their_digest() -> None:
    items = hostile_items()
    plan = record(SPEC, len(items))
    assert plan_digest(plan, PlanItems.decode_items(items.encode_items())) == plan_digest(
        plan, items
    )
