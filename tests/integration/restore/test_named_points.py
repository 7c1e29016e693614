"""`kill -9` at each point of a run: nothing is sent again, and the verdicts say so."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from drey.restore.v1 import restore_pb2
from drey_testing.restore_world import RestoreSite

from .test_death import DIES_S, Relay, start

Verdict = restore_pb2.Verdict
KEY = 42
CHUNK = 8
PVS = 20


@dataclass(frozen=True)
class Point:
    """A statement at which the service stands still, and what is true of the run there.

    `first` is the verdict of what was announced by then, and `is_sent` whether it was sent.
    `whole`: all is announced, and not the first batch alone. `unheard`: the statement is done, and
    its answer does not reach the service. `at_commit`: it stands still where its transaction ends.
    """

    table: str
    event: str
    condition: str
    first: int
    is_sent: bool
    whole: bool = False
    unheard: bool = False
    at_commit: bool = False


POINTS = {
    "before the intent": Point(
        "journal", "BEFORE INSERT", "true", Verdict.VERDICT_NOT_SENT, is_sent=False
    ),
    "between the intent and the send": Point(
        *("journal", "BEFORE INSERT", "true", Verdict.VERDICT_UNKNOWN),
        is_sent=False,
        unheard=True,
    ),
    "after the send": Point(
        "journal", "BEFORE UPDATE", "true", Verdict.VERDICT_UNKNOWN, is_sent=True
    ),
    "after the result": Point(
        "restore",
        "BEFORE UPDATE",
        "EXISTS (SELECT FROM restore.journal WHERE restore_id = NEW.id AND codes IS NOT NULL)",
        Verdict.VERDICT_WRITTEN,
        is_sent=True,
    ),
    "before the verification": Point(
        "restore",
        "BEFORE UPDATE",
        f"NEW.state = {restore_pb2.RESTORE_STATE_VERIFYING}",
        Verdict.VERDICT_WRITTEN,
        is_sent=True,
        whole=True,
    ),
    "after the verification": Point(
        "restore",
        "BEFORE UPDATE",
        f"NEW.state = {restore_pb2.RESTORE_STATE_COMPLETED}",
        Verdict.VERDICT_WRITTEN,
        is_sent=True,
        whole=True,
    ),
}


@asynccontextmanager
async def standing_still(site: RestoreSite, point: Point) -> AsyncIterator[asyncpg.Connection]:
    """The statement of a point waits from now on until the body is over."""
    database = await asyncpg.connect(site.url)
    try:
        await database.execute(
            "CREATE FUNCTION stand_still() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {point.condition} THEN PERFORM pg_advisory_xact_lock_shared({KEY}); END IF;"
            " RETURN NEW; END $$"
        )
        # named so that it comes before the triggers that are there
        kind, when = (
            ("CONSTRAINT", "DEFERRABLE INITIALLY DEFERRED") if point.at_commit else ("", "")
        )
        await database.execute(
            f"CREATE {kind} TRIGGER a_stand_still {point.event} ON restore.{point.table}"
            f" {when} FOR EACH ROW EXECUTE FUNCTION stand_still()"
        )
        await database.execute(f"SELECT pg_advisory_lock({KEY})")
        yield database
        await database.execute("DROP FUNCTION stand_still CASCADE")
    finally:
        await database.close()


WAITING = f"FROM pg_locks WHERE locktype = 'advisory' AND objid = {KEY} AND NOT granted"


@pytest.mark.parametrize(("chunk", "job_lease"), [(CHUNK, DIES_S)])
@pytest.mark.parametrize("name", POINTS)
async def test_killed_at_a_point_it_sends_nothing_again(
    dead_site: RestoreSite, tmp_path: Path, name: str
) -> None:
    site, log, point = dead_site, tmp_path / "restore.log", POINTS[name]
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(PVS, seed=31)
    await site.world.publish()
    here = {pv: found["value"] for pv, found in (await site.machine.read_channels(moved)).items()}
    async with Relay(site.url) as relay:
        direct = site.settings
        site.settings = direct.model_copy(update={"postgres_url": SecretStr(relay.url)})
        process = await start(site, log)
        site.settings = direct
        plan = await site.plan(snapshot_id)
        async with standing_still(site, point) as database:
            restore = await site.execute(plan)
            async with asyncio.timeout(60):
                while not await database.fetchval(f"SELECT EXISTS (SELECT {WAITING})"):
                    await asyncio.sleep(0.02)
                if point.unheard:
                    relay.hold()
                    await database.execute(f"SELECT pg_advisory_unlock({KEY})")
                    while not await database.fetchval("SELECT count(*) FROM restore.journal"):
                        await asyncio.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            # the statement dies with its client
            while await database.fetchval(f"SELECT count(pg_terminate_backend(pid)) {WAITING}"):
                await asyncio.sleep(0.02)
    try:
        before = await site.machine.read_channels(moved)
        process = await start(site, log)
        ended = await site.ended(restore.id)
        assert ended.state == restore_pb2.RESTORE_STATE_INTERRUPTED, ended
        assert sum(v.pvs for v in ended.verdicts) == plan.pvs
        results = await site.items(restore.id)
        after = await site.machine.read_channels(moved)
        assert {pv: found["value"] for pv, found in after.items()} == {
            pv: found["value"] for pv, found in before.items()
        }
        announced = [pv for pv in moved if results[pv].verdict == point.first]
        rest = [pv for pv in moved if pv not in announced]
        if point.first == Verdict.VERDICT_NOT_SENT:
            assert len(announced) == PVS
        else:
            assert len(announced) == (PVS if point.whole else CHUNK)
        assert {results[pv].verdict for pv in rest} <= {Verdict.VERDICT_NOT_SENT}
        for pv in announced if point.is_sent else []:
            assert after[pv]["value"] == pytest.approx(results[pv].target.float64_value)
        for pv in rest if point.is_sent else moved:
            assert after[pv]["value"] == here[pv]
    finally:
        if process.returncode is None:
            process.terminate()
            assert await process.wait() == 0, log
