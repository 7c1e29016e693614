"""Forced reads of a real IOC, and what happens while a part is away."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from drey.common.v1 import selector_pb2
from drey.snapshot.v1 import snapshot_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as rpc
from drey_runtime.jobs import NewJob

EVERYTHING = selector_pb2.Selector(all=True)


async def test_without_postgres_it_is_unavailable_at_once_and_comes_back(own_site, refused) -> None:
    site = own_site
    await site.add_pvs(3)
    await site.fill()
    first = await site.take()
    parts = site.extra["parts"]
    await parts.postgres.kill()
    await site.monitor.beat()
    calls = (
        site.snapshots.TakeSnapshot(
            rpc.TakeSnapshotRequest(spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING))
        ),
        site.snapshots.GetSnapshot(rpc.GetSnapshotRequest(id=first.id)),
        site.snapshots.ListSnapshots(rpc.ListSnapshotsRequest()),
    )
    for call in calls:
        code, reason, _ = await refused(call)
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    await parts.postgres.start()
    async with asyncio.timeout(60):
        while True:
            try:
                again = await site.take()
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
                await asyncio.sleep(0.05)
    assert again.digest == first.digest


async def test_without_redis_the_image_is_unavailable(own_site, refused) -> None:
    site = own_site
    await site.add_pvs(3)
    await site.fill()
    first = await site.take()
    await site.extra["parts"].valkey.kill()
    code, reason, _ = await refused(
        site.snapshots.TakeSnapshot(
            rpc.TakeSnapshotRequest(spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING))
        )
    )
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "IMAGE_UNAVAILABLE")
    assert (await refused(site.compare(first.id)))[1] == "IMAGE_UNAVAILABLE"
    assert len(await site.rows(first.id)) == 3
    # a forced read needs no Redis; here nobody answers, and each channel costs the one deadline
    request = rpc.TakeSnapshotRequest(
        spec=snapshot_pb2.SnapshotSpec(
            selector=EVERYTHING,
            source=snapshot_pb2.SNAPSHOT_SOURCE_READ,
            gates=snapshot_pb2.Gates(any_missing={}),
        )
    )
    request.spec.read_timeout.FromMilliseconds(300)
    taken = (await site.snapshots.TakeSnapshot(request)).snapshot
    assert taken.counts.never_connected == 6


# as the first edition of the contracts queued it: a title, any number missing
FIRST_EDITION = bytes.fromhex("0a02080110011a0410031801220b7b6c6566747d206f766572")


@pytest.mark.parametrize("edition", [1, 2])
async def test_a_job_whose_maker_died_is_done_all_the_same(site, edition: int) -> None:
    """Its maker died between the commit and the start: the row remains, also over an upgrade."""
    from drey_runtime.database import Database
    from drey_runtime.jobs import JobStore

    await site.add_pvs(3)
    await site.fill()
    payload = FIRST_EDITION
    if edition == 2:
        payload = rpc.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(selector=EVERYTHING, title_template="{{left}} over")
        ).SerializeToString()
    async with Database(site.settings.postgres_url.get_secret_value()) as db:
        store = JobStore(db)
        async with db.begin_transaction() as conn:
            job = await store.create_job(
                conn, NewJob(kind="snapshot", principal="gone", role="operator", payload=payload)
            )
        ended = await store.wait(job.id, 60)
        # queued once more, as after a worker's death behind its last commit: no second one
        await db.pool.execute(
            "UPDATE jobs.job SET state = 'queued', end_time_ns = 0 WHERE id = $1", job.id
        )
        again = await store.wait(job.id, 60)
    assert ended.state == again.state == "succeeded"
    assert ended.result == again.result
    assert await site.count("snapshot.snapshot") == 1
    listed = await site.snapshots.ListSnapshots(rpc.ListSnapshotsRequest())
    assert [snapshot.title for snapshot in listed.snapshots] == ["{left} over"]
