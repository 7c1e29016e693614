"""Postgres is killed in the middle of writing: nothing more is sent, and nothing again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_runtime.migrate import apply_migrations
from drey_stack import Nats, Postgres, Valkey
from drey_testing.restore_world import RestoreSite

from .conftest import database

Verdict = restore_pb2.Verdict


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[tuple[Postgres, Nats, Valkey]]:
    """Parts of this test's own event loop: one started in another cannot be killed from here."""
    found = (
        Postgres(tmp_path / "pg", fsync=False),
        Nats(tmp_path / "nats"),
        Valkey(tmp_path / "valkey"),
    )
    await asyncio.gather(*(p.start() for p in found))
    connection = await asyncpg.connect(found[0].url)
    await connection.execute("CREATE DATABASE drey_template")
    await connection.close()
    await apply_migrations(
        database(found[0].url, "drey_template"), ["drey_runtime", "drey_restore"]
    )
    yield found
    await asyncio.gather(*(p.stop() for p in found))


AT_TARGET = (Verdict.VERDICT_WRITTEN, Verdict.VERDICT_VERIFIED)


async def until_written(site: RestoreSite, restore_id: str, least: int) -> None:
    watch = site.stub.WatchRestore(
        pb.WatchRestoreRequest(id=restore_id), timeout=300, metadata=site.metadata()
    )
    async for message in watch:
        counts = {v.verdict: v.pvs for v in message.restore.verdicts}
        if counts.get(Verdict.VERDICT_WRITTEN, 0) >= least:
            watch.cancel()
            return


async def at_rest(site: RestoreSite, names: list[str]) -> dict[str, Any]:
    """The machine's values once nothing writes to it any more."""
    last: dict[str, Any] = {}
    async with asyncio.timeout(300):
        while True:
            now = {n: v["value"] for n, v in (await site.machine.read_channels(names)).items()}
            if now == last:
                return now
            last = now
            await asyncio.sleep(0.5)


async def ended(site: RestoreSite, restore_id: str) -> restore_pb2.Restore:
    """Its end, asked for until Postgres answers again."""
    async with asyncio.timeout(300):
        while True:
            try:
                return await site.ended(restore_id)
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                await asyncio.sleep(0.1)


@pytest.mark.parametrize(("chunk", "job_lease"), [(2, 3.0)])
@pytest.mark.parametrize("longer_than_lease", [False, True])
async def test_killed_while_writing_the_restore_is_interrupted_and_sends_nothing_again(
    site: RestoreSite, parts: tuple[Postgres, Nats, Valkey], longer_than_lease: bool
) -> None:
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(150, seed=31 + longer_than_lease)
    await site.world.publish()
    plan = await site.plan(snapshot_id)
    restore = await site.execute(plan)
    try:
        await until_written(site, restore.id, 10)
        await parts[0].kill()
        before = await at_rest(site, moved)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await site.call("GetRestore", pb.GetRestoreRequest(id=restore.id))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        if longer_than_lease:
            await asyncio.sleep(2 * site.settings.job_lease)
    finally:
        await parts[0].start()
    found = await ended(site, restore.id)
    assert found.state == restore_pb2.RESTORE_STATE_INTERRUPTED, found
    counts = {v.verdict: v.pvs for v in found.verdicts}
    assert sum(counts.values()) == plan.pvs
    assert sum(counts.get(v, 0) for v in AT_TARGET) >= 10
    assert counts[Verdict.VERDICT_NOT_SENT] > 0
    assert not found.all_verified
    results = await site.items(restore.id)
    after = await at_rest(site, moved)
    assert after == before
    for name in moved:
        item = results[name]
        if item.verdict in AT_TARGET:
            assert after[name] == pytest.approx(item.target.float64_value)
        elif item.verdict == Verdict.VERDICT_NOT_SENT:
            assert after[name] == pytest.approx(item.before.float64_value)
    await site.world.publish()
    again = await site.plan(snapshot_id)
    # two at a time, on a machine of any pace
    restore = await site.execute(again, write_timeout={"seconds": 300})
    found = await ended(site, restore.id)
    assert found.state == restore_pb2.RESTORE_STATE_COMPLETED, found
