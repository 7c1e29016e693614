"""`kill -9` while somebody approves, executes or undoes: an act is done once, or not at all."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from pydantic import SecretStr

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import read, world_of
from .test_approval import approve, refusal
from .test_death import DIES_S, Relay, start
from .test_named_points import WAITING, Point, standing_still
from .test_resume import COUNTED, COUNTERS, counted_plan, writes_of

Verdict = restore_pb2.Verdict
Act = Callable[[], Awaitable[Any]]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, COUNTERS) as ioc:
        yield ioc


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    async with world_of({name: f"{name}:WRITES" for name in COUNTED}, parts) as found:
        yield found


POINTS = {
    "approve": ("approval", "UPDATE"),
    "execute": ("restore", "INSERT"),
    "plan the way back": ("plan", "INSERT"),
    "approve the way back": ("approval", "UPDATE"),
    "execute the way back": ("restore", "INSERT"),
}


@dataclass
class Killer:
    """A service behind a relay, which dies twice in one of the acts that are done with it."""

    site: RestoreSite
    relay: Relay
    log: Path
    dies_in: str
    process: asyncio.subprocess.Process

    async def do(self, name: str, act: Act, undone: Act) -> Any:
        """Do an act; where it is the one, first die in it before it is done, and after.

        `undone` checks that nothing has come of it.
        """
        if name == self.dies_in:
            table, event = POINTS[name]
            point = Point(table, f"BEFORE {event}", "true", Verdict.VERDICT_PENDING, is_sent=False)
            await self._die(point, act)
            await undone()
            point = Point(
                *(table, f"AFTER {event}", "true", Verdict.VERDICT_PENDING),
                is_sent=False,
                unheard=True,
                at_commit=True,
            )
            await self._die(point, act)
        return await act()

    async def _die(self, point: Point, act: Act) -> None:
        """Stand still at a point of the act; die there, or after its end before that is heard."""
        rows = f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM restore.{point.table} t"
        async with standing_still(self.site, point) as database:
            before = await database.fetchval(rows)
            doing = asyncio.ensure_future(act())
            async with asyncio.timeout(60):
                while not await database.fetchval(f"SELECT EXISTS (SELECT {WAITING})"):
                    assert not doing.done(), await doing
                    await asyncio.sleep(0.02)
                if point.unheard:
                    self.relay.hold()
                    await database.execute("SELECT pg_advisory_unlock_all()")
                    while await database.fetchval(rows) == before:
                        await asyncio.sleep(0.02)
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
            with pytest.raises(grpc.aio.AioRpcError):
                await doing
            while await database.fetchval(f"SELECT count(pg_terminate_backend(pid)) {WAITING}"):
                await asyncio.sleep(0.02)
            assert (await database.fetchval(rows) == before) != point.unheard
        self.relay.release()
        self.process = await start(self.site, self.log)


@pytest.mark.parametrize("job_lease", [DIES_S])
@pytest.mark.parametrize("name", POINTS)
async def test_killed_in_an_act_it_is_done_once_or_not_at_all(
    dead_site: RestoreSite, tmp_path: Path, name: str
) -> None:
    site, log, world = dead_site, tmp_path / "restore.log", dead_site.world
    async with Relay(site.url) as relay:
        site.settings = site.settings.model_copy(
            update={"postgres_url": SecretStr(relay.url), "approval_required": "*"}
        )
        killer = Killer(site, relay, log, name, await start(site, log))
        try:
            plan = await counted_plan(site)
            before = await writes_of(world)
            ended = await _done(killer, plan, "")
            assert await read(world, COUNTED) == dict.fromkeys(COUNTED, 1.0)
            assert (await writes_of(world) - before == 1).all()
            spec = restore_pb2.PlanSpec(undo=restore_pb2.UndoOf(restore_id=ended.id))
            request = pb.CreatePlanRequest(spec=spec, request_id=str(uuid4()))

            async def not_planned() -> None:
                plans = (await site.call("ListPlans", pb.ListPlansRequest())).plans
                assert [each.id for each in plans] == [plan.id]

            async def plan_back() -> restore_pb2.Plan:
                found: restore_pb2.Plan = (await site.call("CreatePlan", request)).plan
                return found

            back = await killer.do("plan the way back", plan_back, not_planned)
            assert back.writes == len(COUNTED)
            await _done(killer, back, " the way back")
            assert await read(world, COUNTED) == dict.fromkeys(COUNTED, 0.0)
            assert (await writes_of(world) - before == 2).all()
            plans = (await site.call("ListPlans", pb.ListPlansRequest())).plans
            restores = (await site.call("ListRestores", pb.ListRestoresRequest())).restores
            approvals = (await site.call("ListApprovals", pb.ListApprovalsRequest())).approvals
            assert (len(plans), len(restores), len(approvals)) == (2, 2, 2)
        finally:
            if killer.process.returncode is None:
                killer.process.terminate()
                assert await killer.process.wait() == 0, log


async def _done(killer: Killer, plan: restore_pb2.Plan, which: str) -> restore_pb2.Restore:
    """Approve and execute a plan; its restore at its end."""
    site = killer.site

    async def not_approved() -> None:
        assert (await refusal(site.execute(plan)))[0] == "APPROVAL_REQUIRED"

    async def not_executed() -> None:
        found = (await site.call("GetPlan", pb.GetPlanRequest(id=plan.id))).plan
        assert (found.state, found.restore_id) == (restore_pb2.PLAN_STATE_READY, "")

    yes, go = str(uuid4()), str(uuid4())
    await killer.do(f"approve{which}", lambda: approve(site, plan, request_id=yes), not_approved)
    restore = await killer.do(
        f"execute{which}", lambda: site.execute(plan, request_id=go), not_executed
    )
    ended = await site.ended(restore.id)
    assert ended.state == restore_pb2.RESTORE_STATE_COMPLETED, ended
    assert ended.all_verified, ended
    assert sum(v.pvs for v in ended.verdicts) == plan.pvs
    return ended
