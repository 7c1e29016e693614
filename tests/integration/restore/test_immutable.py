"""What is immutable is so in the database, and is looked at again before anything is written."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import grpc
import numpy as np
import pytest

from drey.common.v1 import errors_pb2
from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_restore.domain import blob
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import Skip
from drey_runtime import status
from drey_testing.restore_world import RestoreSite

CHANGES = {
    "plan": "comment = 'other'",
    "plan_data": "items = ''",
    "plan_item": "target = 0",
    "restore": "comment = 'other'",
    "restore_data": "outcome = ''",
    "restore_item": "verdict = 4",
    "journal": "intent_time_ns = 0",
    "unanswered": "name = 'other'",
    "approval": "pvs = 0",
}


@asynccontextmanager
async def connected(site: RestoreSite) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(site.url)
    try:
        yield connection
    finally:
        await connection.close()


async def replace_items(site: RestoreSite, plan_id: str) -> None:
    """What somebody who owns the database can do: other targets under the same digest."""
    async with connected(site) as conn:
        packed = await conn.fetchval(
            "SELECT items FROM restore.plan_data WHERE plan_id = $1", plan_id
        )
        items = PlanItems.decode_items(blob.decompress_blob(packed))
        data = items.target.data.copy()
        data[items.skip == Skip.NONE] = np.float64(77.0).view(np.uint64)
        object.__setattr__(items.target, "data", data)
        await conn.execute("ALTER TABLE restore.plan_data DISABLE TRIGGER USER")
        await conn.execute(
            "UPDATE restore.plan_data SET items = $2 WHERE plan_id = $1",
            plan_id,
            blob.compress_blob(items.encode_items()),
        )
        await conn.execute("ALTER TABLE restore.plan_data ENABLE TRIGGER USER")


async def test_nothing_of_a_plan_or_a_journal_is_changed_or_deleted(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    await site.machine.disturb_values(3, seed=41)
    plan = await site.plan(snapshot_id)
    restore = await site.execute(plan)
    await site.ended(restore.id)
    async with connected(site) as conn:
        await conn.execute(
            "INSERT INTO restore.unanswered VALUES ($1, 1, 'X', 'X', '', 1, 0, 'X')", restore.id
        )
        await conn.execute(
            "INSERT INTO restore.approval (id, plan_id, digest, requester, requester_role, pvs,"
            " first_pv, create_time_ns, expire_time_ns)"
            " VALUES ($1, $1, $2, 'ann', '', 1, 'X', 1, 2)",
            *(plan.id, plan.digest),
        )
        for table, change in CHANGES.items():
            assert await conn.fetchval(f"SELECT count(*) FROM restore.{table}") > 0, table
            for statement in (
                f"UPDATE restore.{table} SET {change}",
                f"DELETE FROM restore.{table}",
                f"TRUNCATE restore.{table} CASCADE",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.execute(statement)
        result = "UPDATE restore.journal SET codes = codes, result_time_ns = 1"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(result)


async def test_a_plan_of_the_recipe_before_is_read_and_not_executed(site: RestoreSite) -> None:
    """Its digest is over the stored bytes; nobody else can compute it."""
    snapshot_id = await site.world.take()
    await site.machine.disturb_values(3, seed=44)
    plan = await site.plan(snapshot_id)
    items = await site.plan_items(plan.id)
    async with connected(site) as conn:
        packed = await conn.fetchval(
            "SELECT items FROM restore.plan_data WHERE plan_id = $1", plan.id
        )
        sections = blob.decode_sections(blob.decompress_blob(packed))
        first = {
            name: section
            for name, section in sections.items()
            if name not in ("policies", "policy_of", "stored_label_of")
            and not name.startswith("stored.")
        }
        raw = blob.encode_sections(first | {"completion": np.full(len(items), 2, np.uint8)})
        digest = hashlib.blake2b(raw, digest_size=32).hexdigest()
        for table in ("plan", "plan_data"):
            await conn.execute(f"ALTER TABLE restore.{table} DISABLE TRIGGER USER")
        await conn.execute(
            "UPDATE restore.plan_data SET items = $2 WHERE plan_id = $1",
            *(plan.id, blob.compress_blob(raw)),
        )
        await conn.execute(
            "UPDATE restore.plan SET recipe = 1, spec = '', digest = $2 WHERE id = $1",
            *(plan.id, digest),
        )
        for table in ("plan", "plan_data"):
            await conn.execute(f"ALTER TABLE restore.{table} ENABLE TRIGGER USER")
    found = (await site.call("GetPlan", pb.GetPlanRequest(id=plan.id))).plan
    assert (found.digest_recipe, found.state) == (1, restore_pb2.PLAN_STATE_EXPIRED)
    read = await site.plan_items(plan.id)
    for name, item in items.items():
        item.ClearField("stored")
        assert read[name] == item, name
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await site.execute(found)
    assert status.reason_of(refused.value)[0] == "PLAN_EXPIRED"


async def test_items_that_were_replaced_are_not_begun_nor_shown(site: RestoreSite) -> None:
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(3, seed=42)
    here = await site.machine.read_channels(moved)
    plan = await site.plan(snapshot_id)
    await replace_items(site, plan.id)
    for act in (site.execute(plan), site.plan_items(plan.id)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await act
        assert status.reason_of(refused.value)[0] == "PLAN_DIGEST_MISMATCH"
    assert await site.machine.read_channels(moved) == here


async def test_items_that_were_replaced_after_it_was_asked_for_are_not_written(
    site: RestoreSite,
) -> None:
    """They are looked at when the restore begins, and it ends with what its journal says."""
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(3, seed=43)
    here = await site.machine.read_channels(moved)
    plan = await site.plan(snapshot_id)
    async with connected(site) as conn, conn.transaction():
        # whoever begins it waits for the row of its job
        await conn.execute("LOCK TABLE jobs.job IN SHARE MODE")
        asked = asyncio.create_task(site.execute(plan))
        async with connected(site) as other:
            while not await other.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND query LIKE '%jobs.job%')"
            ):
                await asyncio.sleep(0.02)
        await replace_items(site, plan.id)
    restore = await asked
    ended = await site.ended(restore.id)
    assert ended.state == restore_pb2.RESTORE_STATE_FAILED
    assert errors_pb2.ErrorReason.Name(ended.error.reason) == "ERROR_REASON_PLAN_DIGEST_MISMATCH"
    counts = {v.verdict: v.pvs for v in ended.verdicts}
    assert counts[restore_pb2.VERDICT_NOT_SENT] == 3
    assert sum(counts.values()) == plan.pvs
    assert await site.machine.read_channels(moved) == here
