"""The statement that announces writes does so for the holder of the job only."""

from __future__ import annotations

import asyncpg
import numpy as np
import pytest

from drey_restore.adapters.store import RestoreStore
from drey_runtime.database import Database
from drey_runtime.jobs import JobLost, JobStore
from drey_testing.restore_world import RestoreSite


@pytest.mark.parametrize("chunk", [2])
@pytest.mark.parametrize(
    "change",
    ["term = term + 1", "owner = 'another'", "lease_until_ns = 1", "state = 'interrupted'"],
)
async def test_who_has_lost_the_job_announces_nothing(site: RestoreSite, change: str) -> None:
    snapshot_id = await site.world.take()
    await site.machine.disturb_values(2, seed=51)
    restore = await site.execute(await site.plan(snapshot_id))
    await site.ended(restore.id)
    connection = await asyncpg.connect(site.url)
    async with Database(site.url) as database:
        store, jobs = RestoreStore(database), JobStore(database)
        try:
            # as if it were open: what the database says of the lease must be enough
            await connection.execute("ALTER TABLE restore.restore DISABLE TRIGGER USER")
            await connection.execute(
                "UPDATE restore.restore SET end_time_ns = 0 WHERE id = $1", restore.id
            )
            await connection.execute(
                "UPDATE jobs.job SET state = 'running', "
                " lease_until_ns = jobs.now_ns() + 60000000000"
                " WHERE id = $1",
                restore.job_id,
            )
            job = await jobs.get_job(restore.job_id)
            rows = np.arange(1)
            assert await store.journal_intent(restore.id, job, 100, rows, rows, 1)
            await connection.execute(f"UPDATE jobs.job SET {change} WHERE id = $1", restore.job_id)
            with pytest.raises(JobLost):
                await store.journal_intent(restore.id, job, 101, rows, rows, 1)
            batches = await connection.fetch("SELECT batch FROM restore.journal ORDER BY batch")
            assert [row["batch"] for row in batches][-1] == 100
        finally:
            await connection.close()
