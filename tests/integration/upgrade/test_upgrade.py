"""A catalog and snapshots made by the first landed state are opened, read and added to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drey.catalog.v1 import catalog_service_pb2 as catalog_rpc
from drey.common.v1 import state_pb2, value_pb2
from drey.compare.v1 import compare_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as rpc

FACTS: dict[str, Any] = json.loads(Path(__file__).with_name("first_state.json").read_text())
SNAPSHOTS: list[dict[str, Any]] = FACTS["snapshots"]


async def test_snapshots_are_as_they_were(upgraded) -> None:
    listed = (await upgraded.snapshots.ListSnapshots(rpc.ListSnapshotsRequest())).snapshots
    assert [s.id for s in listed] == [known["id"] for known in reversed(SNAPSHOTS)]
    for known in SNAPSHOTS:
        found = await upgraded.snapshots.GetSnapshot(rpc.GetSnapshotRequest(id=known["id"]))
        snapshot = found.snapshot
        assert (snapshot.title, snapshot.digest) == (known["title"], known["digest"])
        assert snapshot.pv_count == known["pvs"]
        assert not snapshot.HasField("selector")
        rows = await upgraded.rows(known["id"])
        assert len(rows) == known["rows"]
        check = await upgraded.snapshots.VerifySnapshot(rpc.VerifySnapshotRequest(id=known["id"]))
        assert check.intact, check.findings
    whole = await upgraded.rows(SNAPSHOTS[0]["id"], with_metadata=True)
    labels = [row.setpoint.enum_value.label for row in whole[:2]]
    assert labels == ["off", "on"]
    deleted = await upgraded.snapshots.GetSnapshot(rpc.GetSnapshotRequest(id=FACTS["deleted"]))
    assert deleted.snapshot.HasField("delete_time")


async def test_flags_became_marks(upgraded, refused) -> None:
    golden = rpc.ListSnapshotsRequest(golden_only=True)
    listed = (await upgraded.snapshots.ListSnapshots(golden)).snapshots
    # three were golden: two of one title, and one without a title
    assert {s.id: [m.label for m in s.golden_marks] for s in listed} == {
        known["id"]: [known["id"]] for known in SNAPSHOTS[1:]
    }
    assert not any(s.golden_marks[0].HasField("mark_time") for s in listed)
    delete = rpc.DeleteSnapshotRequest(id=SNAPSHOTS[1]["id"])
    assert (await refused(upgraded.snapshots.DeleteSnapshot(delete)))[1] == "PROTECTED"
    label = state_pb2.GoldenRef(label=SNAPSHOTS[1]["id"])
    reference = state_pb2.StateRef(golden=label)
    header, _, _ = await upgraded.compare_all("", SNAPSHOTS[0]["id"], reference=reference)
    assert header.reference.snapshot_id == SNAPSHOTS[1]["id"]


async def test_snapshots_are_compared(upgraded) -> None:
    first, second, third, part = (known["id"] for known in SNAPSHOTS)
    header, rows, _ = await upgraded.compare_all(first, second, third, part)
    assert [s.pvs_different for s in header.summaries][:2] == [2, 1]
    by_name = {row.name: row for row in rows}
    moved = [row for row in rows if row.HasField("first_different")]
    assert len(moved) == 2 and all(row.first_different == 0 for row in moved)
    assert all(abs(row.cells[0].setpoint.delta - 1.0) < 1e-9 for row in moved)
    only_here = compare_pb2.DIFFERENCE_CLASS_ONLY_IN_REFERENCE
    assert by_name["Q9:SP"].cells[1].setpoint.difference_class == only_here
    states = {row.cells[1].setpoint.other.state for row in moved}
    assert value_pb2.CONNECTION_STATE_DISCONNECTED in states


async def test_the_catalog_is_listed_and_goes_on(upgraded) -> None:
    pvs = (await upgraded.catalog.ListPvs(catalog_rpc.ListPvsRequest(page_size=1000))).pvs
    assert len(pvs) == 39
    assert "Q9:SP" not in [pv.name for pv in pvs]
    await upgraded.follow()
    await upgraded.fill()
    taken = await upgraded.take(title_template="after the upgrade")
    assert taken.pv_count == 39
    summary, _ = await upgraded.compare(SNAPSHOTS[2]["id"], taken.id)
    assert summary.pvs == 39
    points = []
    request = rpc.GetPvHistoryRequest(name="Q1:SP")
    async for part in upgraded.snapshots.GetPvHistory(request):
        points += part.points
    assert [p.snapshot_id for p in points] == [
        taken.id,
        *(known["id"] for known in reversed(SNAPSHOTS)),
    ]
