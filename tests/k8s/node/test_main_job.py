"""The main job, through the gateway's Service: by the command, and by grpcurl."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.k8s.node.site import Site, until
from tests.k8s.node.watching import Watcher

pytestmark = pytest.mark.node
DISTURBED = 20
EVERYTHING = {"selector": {"all": True}, "gates": {"anyMissing": {}}}


def disturb(site: Site, seed: int) -> list[str]:
    """Somebody moves magnets: their setpoints."""
    told = site.in_machine(
        *("python", "-m", "drey_machine", "disturb", "--folder", "/work"),
        *("--count", str(DISTURBED), "--seed", str(seed)),
    )
    moved = told.split()
    assert len(moved) == DISTURBED
    return moved


def test_the_main_job_by_the_command(site: Site) -> None:
    with Watcher(site) as watcher:
        taken = site.drey("snapshot", "take", "--all", "--allow-missing", "--title", "before")
        before = taken["snapshot"]["id"]
        names = disturb(site, 3)
        moved = site.read_machine(names)

        def differing() -> int:
            compared = site.drey("snapshot", "compare", before, "live", "--summary", ok=(0, 4))
            counts = compared["header"]["summaries"][0]["counts"]
            different = [c for c in counts if c["difference_class"] == "DIFFERENCE_CLASS_DIFFERENT"]
            return sum(count["setpoints"] for count in different)

        until(lambda: differing() >= DISTURBED, "the changes show")
        plan = site.drey("restore", "plan", before)["plan"]
        assert int(plan["writes"]) >= DISTURBED
        done = site.drey("restore", "run", plan["id"], "--yes", ok=(0, 4))
        print({verdict["verdict"]: verdict["pvs"] for verdict in done["restore"]["verdicts"]})
        back = site.read_machine(names)
        assert all(back[name] != moved[name] for name in names)
        watcher.check("main job by the command")


def test_the_main_job_by_grpcurl(site: Site) -> None:
    services = site.list_services()
    assert {"drey.snapshot.v1.SnapshotService", "drey.restore.v1.RestoreService"} <= services
    request = {"spec": EVERYTHING, "requestId": str(uuid.uuid4())}
    (taken,) = site.grpcurl("drey.snapshot.v1.SnapshotService/TakeSnapshot", request)
    before = taken["snapshot"]["id"]
    names = disturb(site, 4)
    moved = site.read_machine(names)
    until(lambda: writes(site, before) >= DISTURBED, "the changes show in a plan")
    (made,) = site.grpcurl("drey.restore.v1.RestoreService/CreatePlan", plan_request(before))
    plan = made["plan"]
    execution = {"planId": plan["id"], "digest": plan["digest"], "requestId": str(uuid.uuid4())}
    (begun,) = site.grpcurl("drey.restore.v1.RestoreService/ExecutePlan", execution)
    watch = {"id": begun["restore"]["id"]}
    *_, last = site.grpcurl("drey.restore.v1.RestoreService/WatchRestore", watch)
    assert last["restore"]["state"] == "RESTORE_STATE_COMPLETED", last
    back = site.read_machine(names)
    assert all(back[name] != moved[name] for name in names)


def plan_request(snapshot_id: str) -> dict[str, Any]:
    return {"spec": {"state": {"snapshotId": snapshot_id}}, "requestId": str(uuid.uuid4())}


def writes(site: Site, snapshot_id: str) -> int:
    """How many PVs a plan would write."""
    (made,) = site.grpcurl("drey.restore.v1.RestoreService/CreatePlan", plan_request(snapshot_id))
    return int(made["plan"].get("writes", 0))
