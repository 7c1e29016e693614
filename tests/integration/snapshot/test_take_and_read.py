"""Snapshots from the image: bit for bit, gated, shared, immutable."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import asyncpg
import grpc
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as catalog_rpc
from drey.common.v1 import form_pb2, selector_pb2, value_pb2
from drey.compare.v1 import compare_pb2
from drey.job.v1 import job_pb2
from drey.snapshot.v1 import snapshot_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as rpc
from drey_core.values import ARRAY, Kind, State
from drey_restore.adapters.snapshots import SnapshotClient
from drey_runtime.auth import TokenSigner
from drey_runtime.signed import SignedChannel
from drey_runtime.status import reason_of
from drey_testing.corpus import hostile_columns
from drey_testing.fixtures_gateway import eventually
from drey_testing.value_messages import to_proto

EVERYTHING = selector_pb2.Selector(all=True)


@pytest.mark.parametrize("shards", [1, 3])
async def test_the_hostile_corpus_comes_back_bit_for_bit(site) -> None:
    corpus = hostile_columns()
    await site.add_pvs((len(corpus) + 1) // 2)
    channels = site.monitor.directory.channels[: len(corpus)]
    await site.monitor.publish(corpus.with_key(channels))
    snapshot = await site.take(gates=snapshot_pb2.Gates(any_missing={}))
    directory = site.monitor.directory
    expected = site.monitor.table.columns_of_channels(channels)
    by_number = {row.number: row for row in await site.rows(snapshot.id)}
    rows = directory.pv_rows_of_channels(channels).tolist()
    for at, (channel, row) in enumerate(zip(channels.tolist(), rows, strict=True)):
        found = by_number[int(directory.pv_number[row])]
        is_setpoint = int(directory.setpoint_channel[row]) == channel
        value = found.setpoint if is_setpoint else found.readback
        if expected.state[at] == State.ABSENT:  # in the scope, so the least it can be is this
            assert value.state == State.NEVER_CONNECTED
            continue
        wanted = to_proto(expected, at)
        wanted.ClearField("freshness")
        assert value.SerializeToString(deterministic=True) == wanted.SerializeToString(
            deterministic=True
        ), corpus.kind[at]


async def test_columns_and_rows_say_the_same(site) -> None:
    await site.add_pvs(300)
    wanted = await site.fill()
    snapshot = await site.take()
    request = rpc.ReadSnapshotRequest(id=snapshot.id, form=form_pb2.VALUE_FORM_COLUMNS)
    numbers, data = [], b""
    async for part in site.snapshots.ReadSnapshot(request):
        numbers += np.frombuffer(part.columns.pv_numbers, "<i8").tolist()
        data += part.columns.data
    rows = await site.rows(snapshot.id)
    assert numbers == [row.number for row in rows for _ in range(2)]
    flat = [v.float64_value for row in rows for v in (row.setpoint, row.readback)]
    assert np.array_equal(np.frombuffer(data, np.float64), flat)
    assert sorted(flat) == sorted(wanted.data.view(np.float64).tolist())


@pytest.mark.parametrize("shards", [1, 3])
async def test_it_says_of_itself_what_it_is(site) -> None:
    await site.add_pvs(10)
    await site.fill()
    snapshot = await site.take(
        title_template="before", comment="two\nlines", labels=["a", "b", "a"]
    )
    assert (snapshot.title, snapshot.comment, list(snapshot.labels)) == (
        "before",
        "two\nlines",
        ["a", "b"],
    )
    assert snapshot.pv_count == 10
    assert snapshot.counts.channels == snapshot.counts.connected == 20
    assert snapshot.source == snapshot_pb2.SNAPSHOT_SOURCE_IMAGE
    assert snapshot.actor.principal == "tester"
    assert snapshot.skew.newest_source_time_ns > 0
    assert len(snapshot.digest) == 64
    assert [s.shard for s in snapshot.shards] == [0]  # all of its pages lie there
    same = (await site.snapshots.GetSnapshot(rpc.GetSnapshotRequest(id=snapshot.id))).snapshot
    assert same == snapshot


@pytest.mark.parametrize("shards", [3])
async def test_it_names_the_shards_that_it_was_taken_from(site) -> None:
    await site.add_pvs(600)
    await site.fill()
    assert [s.shard for s in (await site.take()).shards] == [0, 1, 2]


@pytest.mark.parametrize("shards", [1, 3])
async def test_equal_content_costs_nothing_and_has_an_equal_digest(site) -> None:
    await site.add_pvs(600)
    columns = await site.fill()
    first = await site.take()
    pages = await site.count("snapshot.page")
    second = await site.take()
    assert second.digest == first.digest
    assert second.id != first.id
    assert await site.count("snapshot.page") == pages
    # a fail-over: everything is received anew, nothing has another value
    columns.receive_time[:] += 5_000_000_000 + np.arange(len(columns))
    site.monitor.epoch = 2
    await site.monitor.publish(columns)
    third = await site.take()
    assert third.digest == first.digest
    new = await site.count("snapshot.page") - pages
    assert new == len(site.monitor.table.page_numbers)  # times pages only
    changed = columns.take_rows(np.array([0]))
    changed.data[0] += np.uint64(1)
    await site.monitor.publish(changed)
    assert (await site.take()).digest != first.digest
    assert await site.count("snapshot.page") == pages + new + 1


async def test_the_database_refuses_to_change_it(site) -> None:
    await site.add_pvs(3)
    await site.fill()
    await site.take()
    connection = await site.database()
    for statement in (
        "UPDATE snapshot.page SET data = ''",
        "DELETE FROM snapshot.page",
        "TRUNCATE snapshot.page",
        "UPDATE snapshot.manifest SET page_no = 0",
        "DELETE FROM snapshot.manifest",
        "UPDATE snapshot.snapshot SET time_ns = 0",
        "DELETE FROM snapshot.snapshot",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize("shards", [1, 3])
async def test_an_image_that_is_not_fresh_is_refused(site, refused) -> None:
    await site.add_pvs(3)
    await site.fill()
    request = rpc.TakeSnapshotRequest(spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING))
    # the clock of the monitor's host says nothing, be it years ahead or behind
    for age_s in (-(10**8), 10**8):
        site.monitor.ahead_ns = -age_s * 10**9
        await site.monitor.beat()
        await site.snapshots.TakeSnapshot(request)
    await site.monitor.beat(image_failing=True)
    await site.monitor.fall_silent()
    await site.monitor.beat(image_failing=True)
    assert (await refused(site.snapshots.TakeSnapshot(request)))[1] == "IMAGE_NOT_FRESH"
    await site.monitor.beat()

    async def not_fresh() -> bool:
        try:
            await site.snapshots.TakeSnapshot(request)
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
            reason, metadata = reason_of(error)
            assert (reason, metadata["shards"]) == ("IMAGE_NOT_FRESH", "0")
            assert int(metadata["oldest_age_ms"]) >= 2000
            return True
        return False

    await eventually(not_fresh, "a silent monitor is not believed")
    request.spec.gates.max_age.FromSeconds(600)
    assert (await site.snapshots.TakeSnapshot(request)).HasField("snapshot")


@pytest.mark.parametrize("shards", [1, 3])
async def test_gaps_are_refused_or_recorded_by_name(site, refused) -> None:
    await site.add_pvs(20)
    await site.fill()
    channels = site.monitor.directory.setpoint_channel[[3, 7]]
    lost = site.monitor.floats(channels, np.zeros(2))
    lost.state[:] = State.DISCONNECTED
    await site.monitor.publish(lost)
    request = rpc.TakeSnapshotRequest(spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING))
    with pytest.raises(grpc.aio.AioRpcError, match=r"gates\.max_missing"):  # the remedy
        await site.snapshots.TakeSnapshot(request)
    code, reason, metadata = await refused(site.snapshots.TakeSnapshot(request))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "COVERAGE_TOO_SMALL")
    assert (metadata["missing"], metadata["allowed"]) == ("2", "0")
    names = [site.monitor.directory.names[i] for i in (3, 7)]
    assert metadata["first_missing"] == names[0]
    snapshot = await site.take(gates=snapshot_pb2.Gates(max_missing=2))
    assert snapshot.counts.disconnected == 2
    assert [r.name for r in await site.rows(snapshot.id, only_missing=True)] == names
    gates = snapshot_pb2.Gates(any_missing={}, required={"names": [names[1]]})
    request = rpc.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING, gates=gates)
    )
    assert (await refused(site.snapshots.TakeSnapshot(request)))[1] == "COVERAGE_TOO_SMALL"


def refusal_in(error: grpc.RpcError) -> snapshot_pb2.CoverageRefusal:
    """The detail that says what is missing; the whole status is what a client may receive."""
    trailing: dict[str, bytes] = dict(error.trailing_metadata())
    assert sum(len(key) + len(value) for key, value in trailing.items()) < 6000
    found = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    detail = snapshot_pb2.CoverageRefusal()
    assert any(each.Unpack(detail) for each in found.details)
    return detail


async def refusal_of(site, request) -> snapshot_pb2.CoverageRefusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await site.snapshots.TakeSnapshot(request)
    assert reason_of(caught.value)[0] == "COVERAGE_TOO_SMALL"
    return refusal_in(caught.value)


async def read_refusal(site, refusal_id: str) -> list[snapshot_pb2.MissingPv]:
    request = rpc.ReadRefusalRequest(id=refusal_id)
    return [pv async for part in site.snapshots.ReadRefusal(request) for pv in part.missing]


def coverage_request(
    source: int = 0, gates: dict[str, Any] | None = None, **more
) -> rpc.TakeSnapshotRequest:
    """Of everything; how fresh is fresh enough is not in question."""
    spec = snapshot_pb2.SnapshotSpec(selector=EVERYTHING, source=source, gates=gates or {})
    spec.gates.max_age.FromSeconds(600)
    return rpc.TakeSnapshotRequest(spec=spec, **more)


async def test_a_refusal_says_all_that_is_missing(site, refused) -> None:
    """By name, channel and reason, also 5,000; the same request is taken once they are there."""
    await site.add_pvs(5000)
    columns = await site.fill()
    directory = site.monitor.directory
    lost = site.monitor.floats(directory.setpoint_channel, np.zeros(5000))
    lost.state[:] = State.DISCONNECTED
    await site.monitor.publish(lost)
    request = coverage_request(request_id=str(uuid.uuid4()))
    detail = await refusal_of(site, request)
    assert detail.missing_count == 5000
    assert [pv.name for pv in detail.first_missing] == list(directory.names[:10])
    missing = await read_refusal(site, detail.refusal_id)
    assert [pv.name for pv in missing] == list(directory.names)
    assert [pv.number for pv in missing] == directory.pv_number.tolist()
    for pv in missing:
        (channel,) = pv.channels
        assert channel.role == value_pb2.CHANNEL_ROLE_SETPOINT
        assert channel.reason == snapshot_pb2.MISSING_REASON_DISCONNECTED
    assert await site.count("snapshot.snapshot") == await site.count("jobs.job") - 1 == 0
    await site.monitor.publish(columns)
    taken = await site.snapshots.TakeSnapshot(request)
    assert (await site.snapshots.TakeSnapshot(request)).snapshot.id == taken.snapshot.id
    unknown = rpc.ReadRefusalRequest(id=str(uuid.uuid4()))
    assert (await refused(site.snapshots.ReadRefusal(unknown).read()))[1] == "NOT_FOUND"


@pytest.mark.parametrize("source", [1, 2, 3])
async def test_what_is_required_must_be_there(site, refused, source: int) -> None:
    """Whatever else may be missing, from the image and by a read, which nobody answers here."""
    await site.add_pvs(4)
    await site.fill()
    directory = site.monitor.directory
    names = list(directory.names)
    if source == 1:
        lost = site.monitor.floats(directory.readback_channel[[2]], np.zeros(1))
        lost.state[:] = State.DISCONNECTED
        await site.monitor.publish(lost)
        there, channels = names[1], {value_pb2.CHANNEL_ROLE_READBACK}
    else:
        lost = site.monitor.floats(directory.channels, np.zeros(8))
        lost.state[:] = State.DISCONNECTED
        await site.monitor.publish(lost)
        there, channels = "", {value_pb2.CHANNEL_ROLE_SETPOINT, value_pb2.CHANNEL_ROLE_READBACK}

    def request(**gates: object) -> rpc.TakeSnapshotRequest:
        made = coverage_request(source, gates, request_id=str(uuid.uuid4()))
        made.spec.read_timeout.FromMilliseconds(300)
        made.wait.FromSeconds(20)
        return made

    for allowed in ({"any_missing": {}}, {"max_missing": 4}):
        bad = request(required={"globs": [names[2]]}, **allowed)
        for _ in range(2):  # and again by the same request id
            detail = await refusal_of(site, bad)
            missing = {pv.name: pv for pv in await read_refusal(site, detail.refusal_id)}
            assert [pv.name for pv in missing.values() if pv.required] == [names[2]]
            assert {c.role for c in missing[names[2]].channels} == channels
            assert len(missing) == detail.missing_count == (1 if source == 1 else 4)
    if there:
        good = request(required={"names": [there]}, any_missing={})
        assert (await site.snapshots.TakeSnapshot(good)).HasField("snapshot")
    outside = request(required={"names": [names[3]]}, any_missing={})
    outside.spec.selector.CopyFrom(selector_pb2.Selector(names=names[:1]))
    detail = await refusal_of(site, outside)
    (pv,) = [pv for pv in detail.first_missing if pv.required]
    assert {c.reason for c in pv.channels} == {snapshot_pb2.MISSING_REASON_NOT_SELECTED}
    for required, expected in (
        ({"names": ["nobody"]}, "NOT_FOUND"),
        ({"globs": ["nobody*"]}, "INVALID_FIELD"),
        ({}, "EMPTY_SELECTOR"),
    ):
        call = site.snapshots.TakeSnapshot(request(required=required))
        _, reason, metadata = await refused(call)
        assert (reason, metadata["field"][:19]) == (expected, "spec.gates.required")


async def test_an_image_that_is_not_fresh_says_when_to_try_again(site) -> None:
    await site.add_pvs(1)
    await site.fill()
    await site.monitor.fall_silent()
    await site.monitor.beat(image_failing=True)
    request = rpc.TakeSnapshotRequest(spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING))

    async def not_fresh() -> bool:
        try:
            await site.snapshots.TakeSnapshot(request)
        except grpc.aio.AioRpcError as error:
            raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
            retry = error_details_pb2.RetryInfo()
            details = status_pb2.Status.FromString(raw).details
            assert any(detail.Unpack(retry) for detail in details)
            return 0 < retry.retry_delay.ToSeconds() <= 10
        return False

    await eventually(not_fresh, "refused, with the time after which it may be asked for again")


async def test_titles_are_filled_in(site) -> None:
    await site.add_pvs(3)
    await site.fill()
    snapshot = await site.take(title_template="{date}: {pv_count} by {source}, {{plain}}")
    day = snapshot.take_time.ToDatetime().date().isoformat()
    assert snapshot.title == f"{day}: 3 by image, {{plain}}"


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_part_is_only_that_part(site, refused) -> None:
    await site.add_pvs(400)
    await site.fill()
    names = [f"Q{i}:SP" for i in (1, 399)]
    snapshot = await site.take(selector=selector_pb2.Selector(names=names))
    assert snapshot.pv_count == 2
    assert snapshot.counts.channels == 4
    assert [r.name for r in await site.rows(snapshot.id)] == names
    some = selector_pb2.Selector(names=["Q1:RB"])
    assert [r.name for r in await site.rows(snapshot.id, selector=some)] == ["Q1:SP"]
    other = rpc.ReadSnapshotRequest(id=snapshot.id, selector=selector_pb2.Selector(names=["Q2:SP"]))
    assert (await refused(site.snapshots.ReadSnapshot(other)))[1] == "NOT_FOUND"


async def test_selectors_are_read_by_the_catalog_as_of_the_snapshot(site) -> None:
    await site.add_pvs(30)
    await site.fill()
    snapshot = await site.take()

    async def names(**selector) -> set[str]:
        chosen = selector_pb2.Selector(**selector)
        return {r.name for r in await site.rows(snapshot.id, selector=chosen)}

    assert await names(globs=["Q1?:SP"]) == {f"Q1{i}:SP" for i in range(10)}
    assert await names(devices=["D0"]) == {f"Q{i}:SP" for i in range(4)}
    tagged = selector_pb2.TagFilter(group="Region", tags=["R1"])
    assert await names(tags=[tagged]) == {f"Q{i}:SP" for i in range(1, 30, 3)}
    but = {"excluding": selector_pb2.Selector(tags=[tagged])}
    assert await names(devices=["D0"], **but) == {"Q0:SP", "Q2:SP", "Q3:SP"}
    from drey.catalog.v1 import catalog_service_pb2 as catalog_rpc

    pv = (await site.catalog.GetPv(catalog_rpc.GetPvRequest(name="Q5:SP"))).pv
    assert await names(ids=[pv.id]) == {"Q5:SP"}
    assert await names(numbers=[pv.number]) == {"Q5:SP"}
    # what happens to the catalog afterwards does not touch it
    request = catalog_rpc.DeletePvRequest(id=pv.id)
    await site.catalog.DeletePv(request)
    assert await names(names=["Q5:SP"]) == {"Q5:SP"}
    assert len(await site.rows(snapshot.id)) == 30


@pytest.mark.parametrize("shards", [1, 3])
async def test_metadata_comes_as_of_the_snapshot(site) -> None:
    await site.add_pvs(5)
    await site.fill()
    setpoint = int(site.monitor.directory.setpoint_channel[2])
    enum = site.monitor.floats(np.array([setpoint]), np.zeros(1))
    enum.kind[:], enum.data[:] = Kind.ENUM, 1
    await site.monitor.describe(labels={setpoint: [b"off", b"on"]})
    await site.monitor.publish(enum)
    snapshot = await site.take()
    await site.monitor.describe(labels={setpoint: [b"zero", b"one"]}, units=b"mm")
    request = rpc.ReadSnapshotRequest(id=snapshot.id, with_metadata=True)
    metadata, rows = [], []
    async for part in site.snapshots.ReadSnapshot(request):
        assert not (part.HasField("metadata") and rows)
        metadata += part.metadata.pvs
        rows += part.rows.rows
    assert list(metadata[2].setpoint.enum_labels) == ["off", "on"]
    assert metadata[0].setpoint.units == "A"
    assert (metadata[0].setpoint.control.low, metadata[0].setpoint.control.high) == (-100, 100)
    assert not metadata[0].setpoint.HasField("display")
    assert metadata[0].setpoint.address == "Q0:SP"
    assert (rows[2].setpoint.enum_value.index, rows[2].setpoint.enum_value.label) == (1, "on")


async def test_a_repeat_of_a_request_makes_no_second_snapshot(site, refused) -> None:
    await site.add_pvs(3)
    await site.fill()
    request = rpc.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING), request_id=str(uuid.uuid4())
    )
    await site.monitor.beat()
    answers = await asyncio.gather(*(site.snapshots.TakeSnapshot(request) for _ in range(5)))
    assert len({a.snapshot.id for a in answers}) == 1
    assert await site.count("snapshot.snapshot") == 1
    request.spec.title_template = "another"
    assert (await refused(site.snapshots.TakeSnapshot(request)))[1] == "REQUEST_ID_REUSED"
    bad = rpc.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING), request_id=str(uuid.uuid4())
    )
    await site.monitor.fall_silent()
    await site.monitor.beat(image_failing=True)
    for _ in range(2):
        assert (await refused(site.snapshots.TakeSnapshot(bad)))[1] == "IMAGE_NOT_FRESH"


@pytest.mark.parametrize("wait_s", [0, 10])
async def test_from_the_image_job_and_snapshot_are_made_at_once(site, wait_s: int) -> None:
    await site.add_pvs(3)
    await site.fill()
    request = rpc.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING), request_id=str(uuid.uuid4())
    )
    request.wait.FromSeconds(wait_s)
    response = await site.snapshots.TakeSnapshot(request)
    job = response.job
    assert (job.kind, job.state) == (job_pb2.JOB_KIND_SNAPSHOT, job_pb2.JOB_STATE_SUCCEEDED)
    assert job.snapshot_id == response.snapshot.id
    assert response.snapshot.job_id == job.id
    assert (job.done, job.total) == (3, 3)
    repeated = await site.snapshots.TakeSnapshot(request)
    assert (repeated.job, repeated.snapshot.id) == (job, response.snapshot.id)
    assert await site.count("jobs.job WHERE kind = 'snapshot'") == 1


async def test_without_waiting_the_job_is_the_answer(site) -> None:
    await site.add_pvs(3)
    await site.fill()
    request = rpc.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(
            selector=EVERYTHING,
            source=snapshot_pb2.SNAPSHOT_SOURCE_IMAGE_THEN_READ,
            gates=snapshot_pb2.Gates(any_missing={}),
        ),
        request_id=str(uuid.uuid4()),
    )
    request.spec.read_timeout.FromMilliseconds(300)
    request.wait.FromSeconds(0)
    response = await site.snapshots.TakeSnapshot(request)
    assert response.job.kind == job_pb2.JOB_KIND_SNAPSHOT
    request.wait.FromSeconds(20)
    response = await site.snapshots.TakeSnapshot(request)
    assert response.job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert response.job.snapshot_id == response.snapshot.id


async def test_what_is_refused_or_ends_before_its_commit_leaves_nothing(site, refused) -> None:
    await site.add_pvs(3)
    await site.fill()
    request = rpc.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING), request_id=str(uuid.uuid4())
    )
    connection = await site.database()
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE jobs.job IN EXCLUSIVE MODE")
            call = site.snapshots.TakeSnapshot(request)
            await until_waits(connection)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    finally:
        await connection.close()
    await site.monitor.fall_silent()
    await site.monitor.beat(image_failing=True)
    assert (await refused(site.snapshots.TakeSnapshot(request)))[1] == "IMAGE_NOT_FRESH"
    assert await site.count("jobs.job WHERE kind = 'snapshot'") == 0
    assert await site.count("snapshot.snapshot") == 0
    await site.monitor.beat()
    assert (await site.snapshots.TakeSnapshot(request)).snapshot.id


async def until_waits(connection) -> None:
    """Until another session waits for a lock of this one."""
    async with asyncio.timeout(60):
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'jobs.job'::regclass"
        ):
            await asyncio.sleep(0.01)


async def test_bad_requests_are_refused_with_the_field(site, refused) -> None:
    await site.add_pvs(3)
    await site.fill()

    def S(**spec: object) -> rpc.TakeSnapshotRequest:
        return rpc.TakeSnapshotRequest(spec=snapshot_pb2.SnapshotSpec(**spec))

    some = selector_pb2.Selector(names=["nobody"])
    cases = {
        "EMPTY_SELECTOR": S(selector=selector_pb2.Selector()),
        "NOT_FOUND": S(selector=some),
        "NOT_IMPLEMENTED": S(selector=EVERYTHING, source=snapshot_pb2.SNAPSHOT_SOURCE_IMPORT),
    }
    for reason, request in cases.items():
        assert (await refused(site.snapshots.TakeSnapshot(request)))[1] == reason
    past = S(selector=EVERYTHING, instant_ns=1)
    code, _, metadata = await refused(site.snapshots.TakeSnapshot(past))
    assert (code, metadata["field"]) == (grpc.StatusCode.UNIMPLEMENTED, "spec.instant_ns")
    request = S(selector=EVERYTHING)
    request.wait.seconds = -1
    assert (await refused(site.snapshots.TakeSnapshot(request)))[1:] == (
        "INVALID_FIELD",
        {"field": "wait"},
    )
    request = S(selector=EVERYTHING, labels=[" "])
    assert (await refused(site.snapshots.TakeSnapshot(request)))[2]["field"] == "spec.labels[0]"
    unknown = str(uuid.uuid4())
    for call in (
        site.snapshots.GetSnapshot(rpc.GetSnapshotRequest(id=unknown)),
        site.snapshots.ReadSnapshot(rpc.ReadSnapshotRequest(id=unknown)),
        site.snapshots.VerifySnapshot(rpc.VerifySnapshotRequest(id=unknown)),
        site.snapshots.DeleteSnapshot(rpc.DeleteSnapshotRequest(id=unknown)),
    ):
        assert (await refused(call))[1] == "NOT_FOUND"
    assert await site.count("snapshot.snapshot") == 0


async def test_a_large_array_comes_in_parts(site) -> None:
    await site.add_pvs(2)
    await site.fill()
    channel = site.monitor.directory.setpoint_channel[:1]
    raw = np.arange(300_000, dtype=np.float64).tobytes()
    large = site.monitor.floats(channel, np.zeros(1))
    large.kind[:], large.data[:] = Kind.FLOAT64 | ARRAY, len(raw) << 32
    await site.monitor.publish(replace(large, heap=raw))
    snapshot = await site.take()
    rows = [r for r in await site.rows(snapshot.id) if r.name == "Q0:SP"]
    assert len(rows) > 1
    elements = [e for r in rows for e in r.setpoint.float64_array.elements]
    assert np.array_equal(elements, np.arange(300_000))
    found = rpc.GetPvHistoryRequest(name="Q0:SP", role=value_pb2.CHANNEL_ROLE_SETPOINT)
    parts = [p async for answer in site.snapshots.GetPvHistory(found) for p in answer.points]
    assert {p.snapshot_id for p in parts} == {snapshot.id}
    elements = [e for p in parts for e in p.row.setpoint.float64_array.elements]
    assert np.array_equal(elements, np.arange(300_000))
    _, differences = await site.compare(snapshot.id, classes=[compare_pb2.DIFFERENCE_CLASS_EQUAL])
    assert len(differences) == 2


async def test_pages_that_the_database_lost_are_stored_again(site) -> None:
    """A database restored from a backup has fewer pages than the service stored in it."""
    await site.add_pvs(300)
    await site.fill()
    first = await site.take()
    connection = await site.database()
    await connection.execute("ALTER TABLE snapshot.page DISABLE TRIGGER immutable")
    await connection.execute("DELETE FROM snapshot.page")
    await connection.execute("ALTER TABLE snapshot.page ENABLE TRIGGER immutable")
    await connection.close()
    request = rpc.VerifySnapshotRequest(id=first.id)
    assert not (await site.snapshots.VerifySnapshot(request)).intact
    second = await site.take()
    assert second.digest == first.digest
    for snapshot in (first, second):
        request = rpc.VerifySnapshotRequest(id=snapshot.id)
        found = await site.snapshots.VerifySnapshot(request)
        assert found.intact, found.findings
    assert len(await site.rows(second.id)) == 300


async def test_a_lost_page_among_kept_ones_is_stored_again(site) -> None:
    await site.add_pvs(300)
    await site.fill()
    await site.take()
    connection = await site.database()
    lost = await connection.fetchval("SELECT directory_hash FROM snapshot.snapshot")
    await connection.execute("ALTER TABLE snapshot.page DISABLE TRIGGER immutable")
    await connection.execute("DELETE FROM snapshot.page WHERE hash = $1", lost)
    value = await connection.fetchval("SELECT value_hash FROM snapshot.manifest LIMIT 1")
    await connection.execute("DELETE FROM snapshot.page WHERE hash = $1", value)
    await connection.execute("ALTER TABLE snapshot.page ENABLE TRIGGER immutable")
    await connection.close()
    await site.fill(seed=2)
    second = await site.take()
    found = await site.snapshots.VerifySnapshot(rpc.VerifySnapshotRequest(id=second.id))
    assert found.intact, found.findings


async def test_what_was_readdressed_since_is_known_from_the_snapshot(site) -> None:
    await site.add_pvs(4)
    await site.fill()
    snapshot = await site.take()
    pv = (await site.catalog.GetPv(catalog_rpc.GetPvRequest(name="Q1:SP"))).pv
    update = catalog_rpc.UpdatePvRequest(
        pv=catalog_pb2.Pv(id=pv.id, setpoint={"address": "MOVED:SP"}),
        update_mask=FieldMask(paths=["setpoint.address"]),
    )
    await site.catalog.UpdatePv(update)
    await site.follow()
    today = site.monitor.directory
    now = {
        (number, role): int(channel)
        for role, column in ((1, today.setpoint_channel), (2, today.readback_channel))
        for number, channel in zip(today.pv_number.tolist(), column.tolist(), strict=True)
    }
    request = rpc.ReadSnapshotRequest(id=snapshot.id, form=form_pb2.VALUE_FORM_COLUMNS)
    moved = set()
    async for part in site.snapshots.ReadSnapshot(request):
        columns = part.columns
        channels = np.frombuffer(columns.channels, "<i8").tolist()
        numbers = np.frombuffer(columns.pv_numbers, "<i8").tolist()
        for number, role, channel in zip(numbers, columns.roles, channels, strict=True):
            if now[number, role] != channel:
                moved.add((number, role))
    assert moved == {(pv.number, value_pb2.CHANNEL_ROLE_SETPOINT)}
    signer = TokenSigner.from_file("snapshot", site.keys.folder / "snapshot.pem")
    async with grpc.aio.insecure_channel(site.settings.listen) as channel:
        client = SnapshotClient(SignedChannel.channel_signed_by(channel, signer, "snapshot"))
        names = await client.names(snapshot.id, np.array([pv.number]))
    stored = names[pv.number]
    assert (stored.setpoint_address, stored.readback_address) == ("Q1:SP", "Q1:RB")
