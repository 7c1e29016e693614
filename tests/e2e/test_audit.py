"""The audit as people use it: a restore shown, exported and replayed from what was recorded."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from typing import Any
from uuid import uuid4

import pytest

from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey_client import BlockingClient
from tests.e2e.conftest import PVS, Running

LOOPBACK = "127.0.0.1"


def drey(running: Running, *words: str) -> str:
    """What the command writes to its standard output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DREY_")}
    environment |= {"DREY_SERVER": running.stack.server, "DREY_KEY": running.stack.key}
    done = subprocess.run(
        [sys.executable, "-m", "drey_cli.main", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def restored(running: Running) -> restore_pb2.Restore:
    """A restore of a disturbed machine, by the administrator, that has ended."""
    before = running.take("before the audit")
    running.do(running.machine.run("disturb", "--count", "10", "--seed", "11"))
    restores = restore_service_pb2_grpc.RestoreServiceStub(running.channel)

    def planned() -> restore_pb2.Plan:
        spec = restore_pb2.PlanSpec(comment="for the audit")
        spec.state.snapshot_id = before.id
        create = restore_service_pb2.CreatePlanRequest(spec=spec, request_id=str(uuid4()))
        return restores.CreatePlan(create, **running.call()).plan

    plan = planned()
    assert plan.writes >= 10
    execute = restore_service_pb2.ExecutePlanRequest(
        plan_id=plan.id, digest=plan.digest, request_id=str(uuid4())
    )
    restore = restores.ExecutePlan(execute, **running.call()).restore
    watch = restore_service_pb2.WatchRestoreRequest(id=restore.id)
    for response in restores.WatchRestore(watch, **running.call(timeout=400)):
        restore = response.restore
    assert restore.state == restore_pb2.RESTORE_STATE_COMPLETED
    return restore


def sent_items(document: Any) -> dict[str, Any]:
    return {item["name"]: item for item in document["items"] if "send_time" in item}


def test_a_restore_is_shown_with_who_from_where_and_each_value(
    running: Running, restored: restore_pb2.Restore
) -> None:
    shown = json.loads(drey(running, "audit", "show", restored.id, "--json"))
    assert shown["restore"]["plan_digest"] == shown["plan"]["digest"] == restored.plan_digest
    actions = [act["action"] for act in shown["acts"]]
    assert actions == ["plan.create", "restore.execute", "restore.completed"]
    # the end is nobody's call
    assert [act.get("address", "") for act in shown["acts"]] == [LOOPBACK, LOOPBACK, ""]
    items = sent_items(shown)
    assert len(items) >= 10
    verified = [item for item in items.values() if item["verdict"] == "VERDICT_VERIFIED"]
    assert verified and all("seen" in item for item in verified)
    for item in items.values():
        assert {"before", "target", "verdict"} <= set(item), item
    text = drey(running, "audit", "show", restored.id)
    for word in (restored.plan_digest, LOOPBACK, "none needed", "restore.completed", *items):
        assert word in text


def test_a_program_reads_the_same_record(running: Running, restored: restore_pb2.Restore) -> None:
    shown = json.loads(drey(running, "audit", "show", restored.id, "--json"))
    with BlockingClient(running.stack.server, running.stack.key) as client:
        record = client.read_record(restored.id)
        (newest,) = client.acts(1, target=f"restores/{restored.id}")
    assert [act.action for act in record.acts] == [act["action"] for act in shown["acts"]]
    assert [item.name for item in record.items] == [item["name"] for item in shown["items"]]
    assert all(item.HasField("target") for item in record.items)
    assert (record.plan.digest, record.executed_from) == (restored.plan_digest, LOOPBACK)
    assert newest.action == "restore.completed"


def test_an_act_is_shown_in_full(running: Running, restored: restore_pb2.Restore) -> None:
    target = f"restores/{restored.id}"
    listed = json.loads(drey(running, "audit", "list", "--object", target, "--json"))["events"]
    execute = next(act for act in listed if act["action"] == "restore.execute")
    shown = json.loads(drey(running, "audit", "show", execute["sequence"], "--json"))["act"]
    assert shown == execute
    text = drey(running, "audit", "show", execute["sequence"])
    for word in ("restore.execute", LOOPBACK, target, "after: "):
        assert word in text


def test_the_trail_is_exported(running: Running, restored: restore_pb2.Restore) -> None:
    target = f"restores/{restored.id}"
    lines = drey(running, "audit", "export", "--object", target).splitlines()
    acts = [json.loads(line) for line in lines]
    assert [act["action"] for act in acts] == ["restore.completed", "restore.execute"]
    written = drey(running, "audit", "export", "--object", target, "--output", "csv")
    rows = list(csv.DictReader(io.StringIO(written)))
    assert [row["number"] for row in rows] == [act["sequence"] for act in acts]
    assert [row["from"] for row in rows] == ["", LOOPBACK]
    assert rows[0]["after"] == acts[0]["after_json"]


def test_a_restore_is_exported_with_a_row_for_each_pv(
    running: Running, restored: restore_pb2.Restore
) -> None:
    words = ("audit", "export", "--restore", restored.id)
    documents = [json.loads(line) for line in drey(running, *words).splitlines()]
    rows = list(csv.DictReader(io.StringIO(drey(running, *words, "--output", "csv"))))
    assert len(rows) == len(documents) <= PVS
    for row, document in zip(rows, documents, strict=True):
        assert (row["PV"], row["from"]) == (document["item"]["name"], LOOPBACK)
        assert row["plan digest"] == document["plan_digest"] == restored.plan_digest
        assert bool(row["sent"]) == bool(row["send time"]) == ("send_time" in document["item"])
    assert sum(bool(row["sent"]) for row in rows) >= 10


def test_a_restore_is_replayed_in_its_order(
    running: Running, restored: restore_pb2.Restore
) -> None:
    words = ("audit", "replay", restored.id, "--speed", "0")
    course = [json.loads(line) for line in drey(running, *words, "--json").splitlines()]
    times = [entry["after_s"] for entry in course]
    assert times == sorted(times) and times[0] == 0
    assert [e["act"]["action"] for e in course if "act" in e] == [
        "plan.create",
        "restore.execute",
        "restore.completed",
    ]
    shown = json.loads(drey(running, "audit", "show", restored.id, "--json"))
    sent = [e["item"]["name"] for e in course if "item" in e and ": sent " in e["what"]]
    assert sorted(sent) == sorted(sent_items(shown))
    complete = [n for n, item in sent_items(shown).items() if "complete_time" in item]
    text = drey(running, *words)
    assert complete
    for name in complete:
        assert f"complete {name}: " in text
    brief = drey(running, *words, "--brief", "--json").splitlines()
    assert len(brief) <= len(course)
    assert sum(json.loads(line).get("items", 0) for line in brief) == sum(
        "item" in entry for entry in course
    )


def test_the_chain_is_whole_with_addresses_in_it(
    running: Running, restored: restore_pb2.Restore
) -> None:
    verified = json.loads(drey(running, "audit", "verify", "--json"))
    assert not verified.get("findings")
    assert int(verified["last_sequence"]) > 0
