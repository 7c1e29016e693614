"""A restore and its job end in one transaction, and say the same; however it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_core.errors import Reason
from drey_testing.restore_world import RestoreSite

BOTH_OR_NEITHER = """
CREATE FUNCTION both_or_neither() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM restore.restore r JOIN jobs.job j ON j.id = r.job_id
        WHERE (r.end_time_ns <> 0) <> (j.state NOT IN ('queued', 'running')))
    THEN
        RAISE EXCEPTION 'a restore and its job did not end together';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER both_or_neither AFTER UPDATE ON restore.restore
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION both_or_neither();
CREATE CONSTRAINT TRIGGER both_or_neither AFTER UPDATE ON jobs.job
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION both_or_neither();
"""


@pytest.fixture
async def database(site: RestoreSite) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(site.url)
    await connection.execute(BOTH_OR_NEITHER)
    try:
        yield connection
    finally:
        await connection.close()


async def job_of(database: asyncpg.Connection, restore: restore_pb2.Restore) -> tuple[str, str]:
    """(state, reason) of the job of a restore."""
    row = await database.fetchrow(
        "SELECT state, error_reason, error_message FROM jobs.job WHERE id = $1", restore.job_id
    )
    assert row is not None
    assert row["error_reason"] == restore.error.reason
    assert row["error_message"] == restore.error.message
    return row["state"], Reason(row["error_reason"]).name


async def test_all_verified_has_succeeded(site: RestoreSite, database: asyncpg.Connection) -> None:
    snapshot_id = await site.world.take()
    await site.machine.disturb_values(3, seed=31)
    ended = await site.ended((await site.execute(await site.plan(snapshot_id))).id)
    assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED
    assert await job_of(database, ended) == ("succeeded", "UNSPECIFIED")


async def test_what_is_not_all_verified_has_not_succeeded(
    site: RestoreSite, database: asyncpg.Connection
) -> None:
    world = site.world
    pull = next(r for r in world.rows if r.kind == "pull_back")
    snapshot_id = await world.take()
    stored = world.snapshots[snapshot_id].setpoint
    stored.data.view("f8")[world.number(pull) - 1] = 50.0
    plan = await site.plan(snapshot_id, selector={"names": [pull.setpoint]})
    ended = await site.ended((await site.execute(plan)).id)
    await site.machine.write_channels({pull.setpoint: 1.0})
    assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED
    assert await job_of(database, ended) == ("failed", "NOT_ALL_VERIFIED")


async def test_what_was_not_sent_in_time_is_interrupted_in_both(
    site: RestoreSite, database: asyncpg.Connection
) -> None:
    snapshot_id = await site.world.take()
    await site.machine.disturb_values(3, seed=32)
    plan = await site.plan(snapshot_id)
    ended = await site.ended((await site.execute(plan, write_timeout={"nanos": 1})).id)
    assert ended.state == restore_pb2.RESTORE_STATE_INTERRUPTED
    assert await job_of(database, ended) == ("interrupted", "DEADLINE_EXCEEDED")


async def test_what_waited_too_long_has_failed_in_both(
    site: RestoreSite, database: asyncpg.Connection
) -> None:
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(3, seed=33)
    here = await site.machine.read_channels(moved)
    plan = await site.plan(snapshot_id)
    ended = await site.ended((await site.execute(plan, start_deadline={"nanos": 1})).id)
    assert ended.state == restore_pb2.RESTORE_STATE_FAILED
    assert await job_of(database, ended) == ("failed", "DEADLINE_EXCEEDED")
    assert await site.machine.read_channels(moved) == here


async def set_on_insert(database: asyncpg.Connection, assignment: str) -> None:
    """Make every new job another than it was asked for."""
    await database.execute(
        "CREATE FUNCTION change_job() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN NEW.{assignment}; RETURN NEW; END $$"
    )
    await database.execute(
        "CREATE TRIGGER change_job BEFORE INSERT ON jobs.job"
        " FOR EACH ROW EXECUTE FUNCTION change_job()"
    )


async def test_aborted_before_a_worker_began_it_ends_at_once(
    site: RestoreSite, database: asyncpg.Connection
) -> None:
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(3, seed=34)
    here = await site.machine.read_channels(moved)
    plan = await site.plan(snapshot_id)
    await set_on_insert(database, "kind := 'one that no worker takes'")
    restore = await site.execute(plan)
    request = pb.AbortRestoreRequest(id=restore.id, reason="no")
    ended = (await site.call("AbortRestore", request)).restore
    assert ended.state == restore_pb2.RESTORE_STATE_ABORTED
    assert await job_of(database, ended) == ("cancelled", "UNSPECIFIED")
    assert {v.verdict for v in ended.verdicts} >= {restore_pb2.VERDICT_NOT_SENT}
    assert await site.machine.read_channels(moved) == here


async def test_a_job_cancelled_in_the_queue_is_ended_by_the_restore(
    site: RestoreSite, database: asyncpg.Connection
) -> None:
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(3, seed=35)
    here = await site.machine.read_channels(moved)
    plan = await site.plan(snapshot_id)
    await set_on_insert(database, "cancel_requested := true")
    ended = await site.ended((await site.execute(plan)).id)
    assert ended.state == restore_pb2.RESTORE_STATE_ABORTED
    assert await job_of(database, ended) == ("cancelled", "UNSPECIFIED")
    assert await site.machine.read_channels(moved) == here
