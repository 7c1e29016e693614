"""Comparing, labelling, listing, deleting, verifying, looking back."""

from __future__ import annotations

import asyncio
import math
import uuid
from dataclasses import replace
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
import pytest

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as catalog_rpc
from drey.common.v1 import form_pb2, selector_pb2, state_pb2, value_pb2
from drey.compare.v1 import compare_pb2, compare_service_pb2
from drey.snapshot.v1 import snapshot_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as rpc
from drey_core.values import Kind, Origin, State
from tests.integration.snapshot.conftest import state_of

EQUAL = compare_pb2.DIFFERENCE_CLASS_EQUAL
WITHIN = compare_pb2.DIFFERENCE_CLASS_WITHIN_TOLERANCE
DIFFERENT = compare_pb2.DIFFERENCE_CLASS_DIFFERENT


def counts(summary) -> dict[int, tuple[int, int]]:
    return {c.difference_class: (c.setpoints, c.readbacks) for c in summary.counts}


def cls(channel) -> int:
    return channel.difference_class


async def _move(site, columns, rows, by, *, role="setpoint") -> list[str]:
    directory = site.monitor.directory
    channels = getattr(directory, f"{role}_channel")[rows]
    at = np.searchsorted(columns.key, channels)
    moved = columns.take_rows(at)
    moved.data[:] = (moved.data.view(np.float64) + by).view(np.uint64)
    await site.monitor.publish(moved)
    return [directory.names[r] for r in rows]


@pytest.mark.parametrize("shards", [1, 3])
async def test_two_snapshots_and_the_live_machine(site) -> None:
    await site.add_pvs(1000)
    columns = await site.fill()
    before = await site.take()
    summary, found = await site.compare(before.id)
    assert (summary.pvs, summary.pvs_same) == (1000, 1000)
    assert found == []
    names = await _move(site, columns, [5, 700], 1.0)
    within = await _move(site, columns, [6], 0.0005)
    await _move(site, columns, [8], 0.01, role="readback")
    after = await site.take()
    for other in (after.id, None):
        summary, found = await site.compare(before.id, other)
        assert counts(summary) == {
            EQUAL: (997, 999),
            WITHIN: (1, 1),
            DIFFERENT: (2, 0),
        }
        assert (summary.pvs, summary.pvs_same, summary.pvs_different) == (1000, 998, 2)
        assert [d.name for d in found] == names
        assert math.isclose(found[0].cells[0].setpoint.delta, 1.0, rel_tol=1e-9)
        assert math.isclose(found[0].cells[0].setpoint.deviation, 1000.0, rel_tol=1e-6)
        assert found[0].cells[0].setpoint.other.float64_value != (
            found[0].reference_setpoint.float64_value
        )
        fresh = value_pb2.FRESHNESS_UNSPECIFIED if other else value_pb2.FRESHNESS_FRESH
        assert found[0].cells[0].setpoint.other.freshness == fresh
        assert cls(found[0].cells[0].readback) == EQUAL
    _, found = await site.compare(before.id, after.id, classes=[WITHIN])
    assert [d.name for d in found] == [*within, site.monitor.directory.names[8]]
    _, found, _ = await site.compare_all(before.id, after.id, classes=[EQUAL], size=3)
    assert [d.name for d in found] == sorted(site.monitor.directory.names)[:3]
    assert found[0].cells[0].setpoint.delta == 0
    exact = compare_pb2.TOLERANCE_SOURCE_EXACT
    summary, _ = await site.compare(before.id, after.id, tolerance_source=exact)
    assert summary.pvs_different == 4
    given = {
        "tolerance_source": compare_pb2.TOLERANCE_SOURCE_GIVEN,
        "setpoint_tolerance": value_pb2.Tolerance(absolute=2.0),
        "readback_tolerance": value_pb2.Tolerance(absolute=2.0),
    }
    summary, _ = await site.compare(before.id, after.id, **given)
    assert summary.pvs_same == 1000
    some = selector_pb2.Selector(names=[names[1], within[0]])
    summary, found = await site.compare(before.id, after.id, selector=some)
    assert (summary.pvs, [d.name for d in found]) == (2, [names[1]])
    _, found = await site.compare(
        before.id,
        after.id,
        classes=[WITHIN, DIFFERENT],
        order=compare_pb2.COMPARISON_ORDER_DEVIATION,
    )
    deviations = [max(d.cells[0].setpoint.deviation, d.cells[0].readback.deviation) for d in found]
    assert deviations == sorted(deviations, reverse=True)


async def test_what_came_and_went_is_neither_equal_nor_lost(site) -> None:
    await site.add_pvs(4)
    await site.fill()
    before = await site.take()
    pv = (await site.catalog.GetPv(catalog_rpc.GetPvRequest(name="Q1:SP"))).pv
    await site.catalog.DeletePv(catalog_rpc.DeletePvRequest(id=pv.id))
    await site.add_pvs(1, first=100)
    columns = await site.fill()
    lost = columns.take_rows(columns.key == site.monitor.directory.readback_channel[0])
    lost.state[:] = State.DISCONNECTED
    await site.monitor.publish(lost)
    after = await site.take(gates=snapshot_pb2.Gates(any_missing={}))
    for other in (after.id, None):
        summary, _ = await site.compare(before.id, other)
        assert summary.pvs_outside_scope == 1
        either = compare_pb2.COMPARISON_SCOPE_ANY
        _, found = await site.compare(before.id, other, scope=either)
        by_name = {d.name: d.cells[0] for d in found}
        assert cls(by_name["Q1:SP"].setpoint) == compare_pb2.DIFFERENCE_CLASS_ONLY_IN_REFERENCE
        assert not by_name["Q1:SP"].setpoint.HasField("other")
        assert cls(by_name["Q100:SP"].setpoint) == compare_pb2.DIFFERENCE_CLASS_ONLY_IN_OTHER
        gone = by_name["Q0:SP"].readback
        assert cls(gone) == compare_pb2.DIFFERENCE_CLASS_DISCONNECTED_IN_OTHER
        assert gone.other.state == value_pb2.CONNECTION_STATE_DISCONNECTED


async def test_enums_compare_by_label_when_labels_moved(site) -> None:
    await site.add_pvs(2)
    columns = await site.fill()
    channels = site.monitor.directory.setpoint_channel
    enums = columns.take_rows(np.searchsorted(columns.key, channels))
    enums.kind[:], enums.data[:] = Kind.ENUM, [0, 1]
    labels = {int(c): [b"off", b"on"] for c in channels}
    await site.monitor.describe(labels=labels)
    await site.monitor.publish(enums)
    before = await site.take()
    await site.monitor.describe(labels={int(c): [b"on", b"off"] for c in channels})
    enums.data[:] = [1, 1]
    await site.monitor.publish(enums)
    summary, found = await site.compare(before.id)
    assert counts(summary)[EQUAL] == (1, 2)
    assert [d.name for d in found] == ["Q1:SP"]
    assert found[0].cells[0].setpoint.labels_moved
    assert found[0].reference_setpoint.enum_value.label == "on"
    assert found[0].cells[0].setpoint.other.enum_value.label == "off"


async def test_bad_comparisons_are_refused(site, refused) -> None:
    await site.add_pvs(1)
    await site.fill()
    one = (await site.take()).id
    nan = value_pb2.Tolerance(absolute=math.nan)
    unknown = str(uuid.uuid4())
    here, live, nothing = state_of(one), state_of(""), state_pb2.StateRef()
    instant = state_pb2.StateRef(instant_ns=5)
    run_end = state_pb2.StateRef(run_end=state_pb2.RunEnd(run_id="7"))
    cases = [
        ({"others": []}, "INVALID_FIELD", "spec.others"),
        ({"others": [here] * 17}, "TOO_MANY", "spec.others"),
        ({"others": [live, nothing]}, "INVALID_FIELD", "spec.others[1]"),
        ({"reference": nothing}, "INVALID_FIELD", "spec.reference"),
        ({"others": [here, state_of(unknown)]}, "NOT_FOUND", "spec.others[1].snapshot_id"),
        ({"reference": state_of(unknown)}, "NOT_FOUND", "spec.reference.snapshot_id"),
        ({"others": [instant]}, "NOT_IMPLEMENTED", "spec.others[0].instant_ns"),
        ({"reference": run_end}, "NOT_IMPLEMENTED", "spec.reference.run_end"),
        ({"form": form_pb2.VALUE_FORM_COLUMNS}, "NOT_IMPLEMENTED", "spec.form"),
        ({"selector": selector_pb2.Selector()}, "EMPTY_SELECTOR", "spec.selector"),
        (
            {"setpoint_tolerance": nan},
            "INVALID_FIELD",
            "spec.setpoint_tolerance.absolute",
        ),
    ]
    for more, reason, field in cases:
        spec = compare_pb2.ComparisonSpec(**{"reference": here, "others": [live], **more})
        request = compare_service_pb2.CompareRequest(spec=spec)
        _, found, metadata = await refused(site.comparisons.Compare(request))
        assert found == reason, request
        assert metadata.get("field", field) == field
    spec = compare_pb2.ComparisonSpec(reference=here, others=[live])
    request = compare_service_pb2.CompareRequest(spec=spec, page_size=-1)
    assert (await refused(site.comparisons.Compare(request)))[1] == "INVALID_FIELD"


async def test_many_are_compared_with_one(site, refused) -> None:
    await site.add_pvs(300)
    columns = await site.fill()
    taken = [await site.take()]
    moved = []
    for row in (5, 250, 5):
        moved += await _move(site, columns, [row], 1.0 + len(moved))
        taken.append(await site.take())
    reference, *others = [snapshot.id for snapshot in taken]
    header, rows, token = await site.compare_all(reference, *reversed(others), "", reference)
    assert token == ""
    assert [o.snapshot_id for o in header.others] == [*reversed(others), "", reference]
    assert [s.pvs_different for s in header.summaries] == [2, 2, 1, 2, 0]
    assert [row.name for row in rows] == sorted(moved[:2])
    by_name = {row.name: row for row in rows}
    early, late = by_name[moved[0]], by_name[moved[1]]
    assert [cls(c.setpoint) for c in early.cells] == [DIFFERENT] * 4 + [EQUAL]
    assert [cls(c.setpoint) for c in late.cells] == [DIFFERENT, DIFFERENT, EQUAL, DIFFERENT, EQUAL]
    # by time, not by place: the first of those taken, although it stands third
    assert (early.first_different, late.first_different) == (2, 1)
    # each cell is what the two alone give
    for at, other in enumerate([*reversed(others), ""]):
        summary, alone = await site.compare(reference, other)
        assert summary == header.summaries[at]
        for row in alone:
            assert row.cells[0].setpoint.delta == by_name[row.name].cells[at].setpoint.delta
            assert row.reference_setpoint == by_name[row.name].reference_setpoint
    plain = (await site.compare_all(reference, *others, with_values=False))[1]
    assert not any(row.HasField("reference_setpoint") for row in plain)
    assert not any(cell.setpoint.HasField("other") for row in plain for cell in row.cells)
    # the live machine may be the reference as well
    header, rows, _ = await site.compare_all("", others[0])
    assert (header.reference.snapshot_id, header.summaries[0].pvs_different) == ("", 2)
    assert rows[0].reference_setpoint.freshness == value_pb2.FRESHNESS_FRESH


async def test_what_only_one_of_many_has_is_named_by_it(site) -> None:
    await site.add_pvs(4)
    await site.fill()
    parts = [
        (await site.take(selector=selector_pb2.Selector(names=[f"Q{i}:SP" for i in chosen]))).id
        for chosen in ((0, 1), (1, 2), (1, 3))
    ]
    header, rows, _ = await site.compare_all(*parts)
    assert [row.name for row in rows] == ["Q0:SP"]
    assert [s.pvs_outside_scope for s in header.summaries] == [1, 1]
    scope = compare_pb2.COMPARISON_SCOPE_ANY
    header, rows, _ = await site.compare_all(*parts, scope=scope, classes=[EQUAL])
    assert ([r.name for r in rows], header.total_rows) == (["Q1:SP"], 1)
    _, rows, _ = await site.compare_all(*parts, scope=scope)
    assert [row.name for row in rows] == ["Q0:SP", "Q2:SP", "Q3:SP"]
    only = compare_pb2.DIFFERENCE_CLASS_ONLY_IN_OTHER
    assert [cls(c.setpoint) for c in rows[1].cells] == [only, 0]
    assert [cls(c.setpoint) for c in rows[2].cells] == [0, only]
    scope = compare_pb2.COMPARISON_SCOPE_COMMON
    header, rows, _ = await site.compare_all(*parts, scope=scope)
    assert ([s.pvs for s in header.summaries], rows) == ([1, 1], [])


async def test_rows_come_in_pages_in_every_order(site, refused) -> None:
    await site.add_pvs(40)
    columns = await site.fill()
    before = (await site.take()).id
    for row in range(0, 30, 2):
        await _move(site, columns, [row], 1.0 + row % 7)
    after = (await site.take()).id
    every = [EQUAL, DIFFERENT]
    for order in compare_pb2.ComparisonOrder.values():
        more = {"order": order, "classes": every}
        header, whole, _ = await site.compare_all(before, after, **more)
        assert (len(whole), header.total_rows) == (40, 40)
        assert header.order == (order or compare_pb2.COMPARISON_ORDER_NAME)
        paged, token = [], ""
        while token or not paged:
            header, rows, token = await site.compare_all(before, after, size=7, token=token, **more)
            assert header.total_rows == 40 and len(rows) <= 7
            paged += rows
        assert paged == whole
    _, _, token = await site.compare_all(before, after, size=7)
    request = compare_service_pb2.CompareRequest(
        spec=compare_pb2.ComparisonSpec(reference=state_of(before), others=[state_of("")]),
        page_token=token,
    )
    assert (await refused(site.comparisons.Compare(request)))[1] == "MALFORMED_PAGE_TOKEN"


async def test_lists_are_paged_and_filtered(site, refused) -> None:
    await site.add_pvs(1)
    await site.fill()
    made = [
        await site.take(title_template=f"run {i} 100%", labels=["night"] if i % 2 else ["day"])
        for i in range(7)
    ]
    found, token = [], ""
    while True:
        request = rpc.ListSnapshotsRequest(page_size=3, page_token=token)
        page = await site.snapshots.ListSnapshots(request)
        assert page.total_size == (0 if found else 7)
        found += page.snapshots
        token = page.next_page_token
        if not token:
            break
        other = rpc.ListSnapshotsRequest(page_size=3, page_token=token, search="x")
        assert (await refused(site.snapshots.ListSnapshots(other)))[1] == "MALFORMED_PAGE_TOKEN"
    assert [s.id for s in found] == [s.id for s in reversed(made)]

    async def ids(**query) -> list[str]:
        page = await site.snapshots.ListSnapshots(rpc.ListSnapshotsRequest(**query))
        return [s.id for s in page.snapshots]

    assert await ids(search="RUN 3") == [made[3].id]
    assert len(await ids(search="0%")) == 7
    assert await ids(search="_") == []
    assert await ids(labels=["night"]) == [made[i].id for i in (5, 3, 1)]
    assert await ids(golden_only=True) == []
    assert await ids(digest=made[2].digest.upper()) == [s.id for s in reversed(made)]
    assert await ids(digest="0" * 64) == []
    assert len(await ids(principal="tester")) == 7
    assert await ids(principal="nobody") == []
    assert await ids(scope="injector@3") == []
    page = await site.snapshots.ListSnapshots(
        rpc.ListSnapshotsRequest(page_size=2, labels=["night"])
    )
    assert (len(page.snapshots), page.total_size) == (2, 3)
    wrong = rpc.ListSnapshotsRequest(digest="xyz")
    assert (await refused(site.snapshots.ListSnapshots(wrong)))[1] == "INVALID_FIELD"
    assert await ids(from_time=made[5].take_time) == [made[6].id, made[5].id]
    assert await ids(to_time=made[1].take_time) == [made[0].id]


async def test_snapshots_are_listed_by_a_pv_that_they_hold(site, refused) -> None:
    """Two PVs share a page, and a snapshot has the page where it has only one of them."""
    await site.add_pvs(2)
    await site.fill()
    first, second = (selector_pb2.Selector(names=[f"Q{i}:SP"]) for i in (0, 1))
    both = selector_pb2.Selector(all=True)
    taken = [(await site.take(selector=chosen)).id for chosen in (first, second, both, first)]
    await site.snapshots.DeleteSnapshot(rpc.DeleteSnapshotRequest(id=taken[3]))
    pvs = (await site.catalog.ListPvs(catalog_rpc.ListPvsRequest())).pvs
    id_of = {pv.name: pv.id for pv in pvs}

    async def ids(pv: str, **more: Any) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            request = rpc.ListSnapshotsRequest(pv=pv, page_size=1, page_token=token, **more)
            page = await site.snapshots.ListSnapshots(request)
            assert token or page.total_size == (2 + more.get("include_deleted", False))
            found += [snapshot.id for snapshot in page.snapshots]
            token = page.next_page_token
            if not token:
                return found

    assert await ids("Q0:SP") == [taken[2], taken[0]]
    assert await ids("Q0:SP", include_deleted=True) == [taken[3], taken[2], taken[0]]
    assert await ids(id_of["Q1:SP"]) == [taken[2], taken[1]]
    unknown = rpc.ListSnapshotsRequest(pv="NEVER:WAS")
    assert (await refused(site.snapshots.ListSnapshots(unknown)))[1] == "NOT_FOUND"


async def test_labels_change_and_deleted_ones_stay(site, refused) -> None:
    await site.add_pvs(1)
    await site.fill()
    taken = await site.take(title_template="a")
    change = snapshot_pb2.Snapshot(id=taken.id, title="b", etag=taken.etag)
    request = rpc.UpdateSnapshotRequest(
        snapshot=change, update_mask={"paths": ["title"]}, request_id=str(uuid.uuid4())
    )
    changed = (await site.snapshots.UpdateSnapshot(request)).snapshot
    assert (changed.title, changed.digest) == ("b", taken.digest)
    assert changed.etag != taken.etag
    assert (await site.snapshots.UpdateSnapshot(request)).snapshot == changed
    request.request_id = str(uuid.uuid4())
    code, reason, metadata = await refused(site.snapshots.UpdateSnapshot(request))
    assert (code, reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert metadata["etag"] == changed.etag
    for paths in ([], ["digest"], ["golden_marks"]):
        wrong = rpc.UpdateSnapshotRequest(snapshot=change, update_mask={"paths": paths})
        assert (await refused(site.snapshots.UpdateSnapshot(wrong)))[2]["field"] == "update_mask"
    delete = rpc.DeleteSnapshotRequest(id=taken.id)
    async with site.stub("somebody else", "operator") as other:
        code, reason, metadata = await refused(other.DeleteSnapshot(delete))
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert metadata["permission"] == "snapshot.snapshots.delete_any"
        assert metadata["roles"] == "operator"
    gone = (await site.snapshots.DeleteSnapshot(delete)).snapshot
    assert gone.HasField("delete_time")
    listed = await site.snapshots.ListSnapshots(rpc.ListSnapshotsRequest())
    assert not listed.snapshots
    assert (await refused(site.snapshots.DeleteSnapshot(delete)))[1] == "NOT_FOUND"
    read = rpc.ReadSnapshotRequest(id=taken.id)
    assert (await refused(site.snapshots.ReadSnapshot(read)))[1] == "NOT_FOUND"
    kept = await site.snapshots.GetSnapshot(rpc.GetSnapshotRequest(id=taken.id))
    assert kept.snapshot.delete_time == gone.delete_time


def marked(snapshot) -> list[tuple[str, str, str]]:
    return [(m.label, m.reason, m.actor.principal) for m in snapshot.golden_marks]


async def test_a_golden_mark_is_the_keepers(site, refused) -> None:
    await site.add_pvs(2)
    await site.fill()
    taken = await site.take(title_template="a")
    mark = rpc.SetGoldenRequest(snapshot_id=taken.id, reason="tuned")
    clear = rpc.ClearGoldenRequest(snapshot_id=taken.id)
    delete = rpc.DeleteSnapshotRequest(id=taken.id)
    async with site.stub("op", "operator") as operator, site.stub("kate", "keeper") as keeper:
        code, reason, metadata = await refused(operator.SetGolden(mark))
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert metadata["permission"] == "snapshot.golden.set"
        snapshot = (await keeper.SetGolden(mark)).snapshot
        assert marked(snapshot) == [("", "tuned", "kate")]
        assert snapshot.golden_marks[0].mark_time.seconds > taken.take_time.seconds - 1
        assert snapshot.etag != taken.etag
        assert (await refused(operator.ClearGolden(clear)))[1] == reason
        assert (await refused(keeper.DeleteSnapshot(delete)))[1] == "PROTECTED"
        assert (await keeper.ClearGolden(clear)).snapshot.golden_marks == []
        assert (await refused(keeper.ClearGolden(clear)))[1] == "NOT_FOUND"
        assert (await keeper.DeleteSnapshot(delete)).snapshot
        assert (await refused(keeper.SetGolden(mark)))[1] == "NOT_FOUND"


async def test_there_is_one_golden_for_each_label(site, refused) -> None:
    await site.add_pvs(3)
    columns = await site.fill()
    one = await site.take(title_template="one")
    await _move(site, columns, [1], 1.0)
    two = await site.take(title_template="two")

    async with site.stub("kate", "keeper") as keeper:

        async def mark(snapshot_id: str, label: str = "", **more: str):
            return await keeper.SetGolden(
                rpc.SetGoldenRequest(snapshot_id=snapshot_id, label=label, **more)
            )

        repeated = str(uuid.uuid4())
        first = await mark(one.id, request_id=repeated)
        assert (await mark(one.id, "injector")).moved_from_id == ""
        moved = await mark(two.id, reason="better")
        assert moved.moved_from_id == one.id
        assert marked(moved.snapshot) == [("", "better", "kate")]
        left = (await site.snapshots.GetSnapshot(rpc.GetSnapshotRequest(id=one.id))).snapshot
        assert marked(left) == [("injector", "", "kate")]
        # losing a mark is a change: who read it before does not overwrite it unseen
        wrong = mark(one.id, etag=first.snapshot.etag)
        assert (await refused(wrong))[1] == "ETAG_MISMATCH"
        assert (await mark(one.id, request_id=repeated)) == first
        golden = rpc.ListSnapshotsRequest(golden_only=True)
        listed = (await site.snapshots.ListSnapshots(golden)).snapshots
        assert [s.id for s in listed] == [two.id, one.id]
        assert marked(listed[1]) == marked(left)
        for call in (
            keeper.SetGolden(rpc.SetGoldenRequest(snapshot_id=one.id, scope="x")),
            keeper.ClearGolden(rpc.ClearGoldenRequest(snapshot_id=one.id, scope="x")),
        ):
            assert (await refused(call))[1] == "NOT_IMPLEMENTED"
    reference = state_pb2.StateRef(golden=state_pb2.GoldenRef(label="injector"))
    header, rows, _ = await site.compare_all(
        "", reference=reference, others=[state_pb2.StateRef(golden=state_pb2.GoldenRef())]
    )
    assert (header.reference.snapshot_id, header.others[0].snapshot_id) == (one.id, two.id)
    assert header.reference.state == reference and len(rows) == 1
    nobody = state_pb2.StateRef(golden=state_pb2.GoldenRef(label="nobody"))
    assert (await refused(site.compare_all("", one.id, reference=nobody)))[1] == "NOT_FOUND"
    connection = await site.database()
    acts = await connection.fetch(
        "SELECT action, object FROM audit.entry WHERE action LIKE 'snapshot.golden.%' ORDER BY seq"
    )
    await connection.close()
    assert [tuple(act) for act in acts] == [
        ("snapshot.golden.set", f"snapshots/{each}") for each in (one.id, one.id, two.id)
    ]


async def test_deleting_and_marking_at_once_keep_the_law(site, refused) -> None:
    """Whichever is first, no deleted snapshot is golden."""
    await site.add_pvs(1)
    await site.fill()
    async with site.stub("kate", "keeper") as keeper:
        for _ in range(10):
            taken = await site.take()
            await asyncio.gather(
                keeper.SetGolden(rpc.SetGoldenRequest(snapshot_id=taken.id, label=taken.id)),
                keeper.DeleteSnapshot(rpc.DeleteSnapshotRequest(id=taken.id)),
                return_exceptions=True,
            )
            found = (await keeper.GetSnapshot(rpc.GetSnapshotRequest(id=taken.id))).snapshot
            assert found.HasField("delete_time") != bool(found.golden_marks)


async def test_tampering_shows(site) -> None:
    await site.add_pvs(200)
    await site.fill()
    snapshot = await site.take()
    request = rpc.VerifySnapshotRequest(id=snapshot.id)
    check = await site.snapshots.VerifySnapshot(request)
    assert check.intact, check.findings
    assert check.pages > 4
    connection = await site.database()
    await connection.execute("ALTER TABLE snapshot.page DISABLE TRIGGER immutable")
    await connection.execute(
        "UPDATE snapshot.page SET data = (SELECT data FROM snapshot.page WHERE hash ="
        " (SELECT value_hash FROM snapshot.manifest WHERE page_no = 1)) WHERE hash ="
        " (SELECT value_hash FROM snapshot.manifest WHERE page_no = 2)"
    )
    await connection.close()
    check = await site.snapshots.VerifySnapshot(request)
    assert not check.intact
    assert len(check.findings) == 1
    assert "another content" in check.findings[0]


async def test_a_pv_is_seen_through_all_snapshots(site, refused) -> None:
    await site.add_pvs(300)
    columns = await site.fill()
    taken = []
    for _ in range(4):
        await _move(site, columns, [150], 1.0)
        columns.data[:] = site.monitor.table.columns_of_channels(columns.key).data
        taken.append(await site.take())
    pv = (await site.catalog.GetPv(catalog_rpc.GetPvRequest(name="Q150:SP"))).pv
    changed = catalog_pb2.Pv(id=pv.id, setpoint={"address": "Q150:NEW"})
    await site.catalog.UpdatePv(
        catalog_rpc.UpdatePvRequest(pv=changed, update_mask={"paths": ["setpoint.address"]})
    )
    await site.follow()
    await site.fill(7)
    taken.append(await site.take())
    points = []
    async for part in site.snapshots.GetPvHistory(rpc.GetPvHistoryRequest(number=pv.number)):
        points += part.points
    assert [p.snapshot_id for p in points] == [s.id for s in reversed(taken)]
    values = [p.row.setpoint.float64_value for p in points]
    assert all(math.isclose(a - b, 1.0) for a, b in pairwise(values[1:]))
    assert all(p.row.HasField("readback") for p in points)
    nobody = rpc.GetPvHistoryRequest(name="NOBODY")
    assert (await refused(site.snapshots.GetPvHistory(nobody)))[1] == "NOT_FOUND"


async def test_a_part_is_compared_within_its_scope(site, refused) -> None:
    await site.add_pvs(20)
    await site.fill()
    part = await site.take(selector=selector_pb2.Selector(names=["Q1:SP", "Q2:SP"]))
    whole = await site.take()
    for other in (whole.id, None):
        summary, differences = await site.compare(part.id, other)
        assert (summary.pvs, summary.pvs_same, differences) == (2, 2, [])
        assert summary.pvs_outside_scope == 18
        summary, differences = await site.compare(
            part.id, other, scope=compare_pb2.COMPARISON_SCOPE_ANY
        )
        assert (summary.pvs, len(differences), summary.pvs_outside_scope) == (20, 18, 0)
    # what the reference has and the other lacks is missing, and missing is not equal
    summary, differences = await site.compare(whole.id, part.id)
    assert (summary.pvs, len(differences), summary.pvs_outside_scope) == (20, 18, 0)
    summary, differences = await site.compare(
        whole.id, part.id, scope=compare_pb2.COMPARISON_SCOPE_COMMON
    )
    assert (summary.pvs, differences, summary.pvs_outside_scope) == (2, [], 18)
    selector = selector_pb2.Selector(names=["Q1:SP", "Q3:SP"])
    request = compare_service_pb2.CompareRequest(
        spec=compare_pb2.ComparisonSpec(
            reference=state_of(part.id), others=[state_of(whole.id)], selector=selector
        )
    )
    assert (await refused(site.comparisons.Compare(request)))[1] == "NOT_FOUND"
    summary, differences = await site.compare(
        part.id, whole.id, selector=selector, scope=compare_pb2.COMPARISON_SCOPE_ANY
    )
    assert (summary.pvs, [d.name for d in differences]) == (2, ["Q3:SP"])


async def test_it_is_said_what_a_dead_band_may_hide(site) -> None:
    await site.add_pvs(3)
    columns = await site.fill()
    snapshot = await site.take()
    assert snapshot.counts.by_monitor == 6
    read = replace(columns.take_rows(np.arange(2)), origin=np.full(2, Origin.READ, np.uint8))
    await site.monitor.publish(read)
    other = await site.take()
    assert other.counts.by_monitor == 4
    header, differences, _ = await site.compare_all(
        snapshot.id, other.id, classes=[compare_pb2.DIFFERENCE_CLASS_EQUAL]
    )
    assert (header.reference.by_monitor, header.others[0].by_monitor) == (6, 4)
    origins = {
        channel.other.origin
        for d in differences
        for channel in (d.cells[0].setpoint, d.cells[0].readback)
    }
    assert origins == {value_pb2.VALUE_ORIGIN_MONITOR, value_pb2.VALUE_ORIGIN_READ}
    header, _, _ = await site.compare_all(snapshot.id, "")
    assert header.others[0].by_monitor == 4


async def test_a_snapshot_shows_what_was_chosen(site) -> None:
    await site.add_pvs(12)
    await site.fill()
    selector = selector_pb2.Selector(
        globs=["Q1*"], devices=["D0"], tags=[selector_pb2.TagFilter(group="Region", tags=["R1"])]
    )
    selector.excluding.names.append("Q9:SP")
    taken = await site.take(selector=selector)
    assert taken.selector == selector
    found = (await site.snapshots.GetSnapshot(rpc.GetSnapshotRequest(id=taken.id))).snapshot
    assert found.selector == selector
    assert not found.selector_shortened
    (listed,) = (await site.snapshots.ListSnapshots(rpc.ListSnapshotsRequest())).snapshots
    assert not listed.HasField("selector")
    answer = await site.snapshots.VerifySnapshot(rpc.VerifySnapshotRequest(id=taken.id))
    assert answer.intact
    # one page for all that choose the same
    again = await site.take(selector=selector)
    connection = await site.database()
    hashes = await connection.fetch("SELECT selector_hash FROM snapshot.snapshot")
    await connection.close()
    assert len({row[0] for row in hashes}) == 1
    assert again.selector == selector


async def test_a_long_selector_is_shown_by_its_beginning(site) -> None:
    await site.add_pvs(1100)
    await site.fill()
    names = [f"Q{i}:SP" for i in range(1100)]
    taken = await site.take(selector=selector_pb2.Selector(names=names))
    assert (list(taken.selector.names), taken.selector_shortened) == (names[:1000], True)
    assert taken.pv_count == 1100


async def test_a_deleted_snapshot_comes_back(site, refused) -> None:
    await site.add_pvs(3)
    await site.fill()
    snapshot = await site.take(title_template="kept")
    deleted = await site.snapshots.DeleteSnapshot(rpc.DeleteSnapshotRequest(id=snapshot.id))
    assert deleted.snapshot.HasField("delete_time")
    listed = await site.snapshots.ListSnapshots(rpc.ListSnapshotsRequest())
    assert not listed.snapshots
    listed = await site.snapshots.ListSnapshots(rpc.ListSnapshotsRequest(include_deleted=True))
    assert [s.delete_time for s in listed.snapshots] == [deleted.snapshot.delete_time]
    request = rpc.UndeleteSnapshotRequest(id=snapshot.id, request_id=str(uuid.uuid4()))
    for _ in range(2):
        answer = (await site.snapshots.UndeleteSnapshot(request)).snapshot
        assert (answer.id, answer.title, answer.HasField("delete_time")) == (
            snapshot.id,
            "kept",
            False,
        )
        assert answer.etag not in {snapshot.etag, deleted.snapshot.etag}
    assert len(await site.rows(snapshot.id)) == 3
    connection = await site.database()
    found = await connection.fetchval(
        "SELECT count(*) FROM audit.entry WHERE action = 'snapshot.undelete'"
    )
    await connection.close()
    assert found == 1
    unknown = rpc.UndeleteSnapshotRequest(id=str(uuid.uuid4()))
    assert (await refused(site.snapshots.UndeleteSnapshot(unknown)))[1] == "NOT_FOUND"
