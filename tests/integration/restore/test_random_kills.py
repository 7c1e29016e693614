"""`kill -9` at random moments, resumed, killed again: nothing is written twice on its own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_runtime import status
from drey_stack import Nats, Postgres, Valkey
from drey_testing.ca.ioc import Ioc
from drey_testing.restore_world import RestoreSite, RestoreWorld

from .acts import seconds, set_policies, world_of
from .test_death import DIES_S, start
from .test_resume import COUNTED, COUNTERS, counted_plan, resume, writes_of

Verdict = restore_pb2.Verdict
State = restore_pb2.RestoreState
FEW, MANY = 5, 100
MANY_KILLS = "DREY_TEST_MANY_KILLS"
STAGES = 5
TAKES_S = 1.5
"""About how long a restore takes: each stage waits for a part of it."""
PATIENT: dict[str, Any] = {"start_deadline": seconds(3600)}
_NOT_SENT = (Verdict.VERDICT_NOT_SENT, Verdict.VERDICT_DISCONNECTED)
_SENT = (Verdict.VERDICT_WRITTEN, Verdict.VERDICT_VERIFIED)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Ioc]:
    with Ioc(tmp_path, COUNTERS) as ioc:
        yield ioc


@pytest.fixture
async def world(parts: tuple[Postgres, Nats, Valkey], machine: Ioc) -> AsyncIterator[RestoreWorld]:
    async with world_of({name: f"{name}:WRITES" for name in COUNTED}, parts) as found:
        slow = {"settle": seconds(TAKES_S / STAGES)}
        set_policies(
            found,
            **{
                name.partition(":")[2]: {**slow, "stage": i % STAGES}
                for i, name in enumerate(COUNTED)
            },
        )
        yield found


async def resumed(site: RestoreSite, restore_id: str) -> restore_pb2.Restore | None:
    """The one that continues, as soon as the IOC has answered for what nobody knows.

    None where nothing is left.
    """
    async with asyncio.timeout(120):
        while True:
            try:
                return await resume(site, restore_id, **PATIENT)
            except grpc.aio.AioRpcError as error:
                if status.reason_of(error)[0] == "PLAN_EMPTY":
                    return None
                assert status.reason_of(error)[0] == "CHANNELS_HELD", error
                await asyncio.sleep(0.2)


async def check(site: RestoreSite, ended: restore_pb2.Restore, written: np.ndarray) -> None:
    """The verdicts add up to the plan, and are what the IOC counted."""
    assert sum(v.pvs for v in ended.verdicts) == len(COUNTED), ended
    results = await site.items(ended.id)
    for name, times in zip(COUNTED, written.tolist(), strict=True):
        verdict = results[name].verdict
        if verdict in _NOT_SENT:
            assert times == 0, (name, results[name])
        elif verdict in _SENT:
            assert times == 1, (name, results[name])
        else:
            assert verdict == Verdict.VERDICT_UNKNOWN, results[name]
            assert times <= 1, (name, results[name])


async def way_back_plan(site: RestoreSite) -> restore_pb2.Plan:
    """The way back of all counted setpoints, from 1 to 0."""
    while True:
        restore = await site.execute(await counted_plan(site), **PATIENT)
        ended = await site.ended(restore.id)
        if ended.state == State.RESTORE_STATE_COMPLETED:
            break  # on a busy machine the short lease of these tests may be over in between
    spec = restore_pb2.PlanSpec(undo=restore_pb2.UndoOf(restore_id=ended.id))
    plan: restore_pb2.Plan = (await site.call("CreatePlan", pb.CreatePlanRequest(spec=spec))).plan
    assert plan.writes == len(COUNTED)
    return plan


async def killed_at_random(
    site: RestoreSite,
    folder: Path,
    kills: int,
    make_plan: Callable[[RestoreSite], Awaitable[restore_pb2.Plan]] = counted_plan,
) -> None:
    seed = int(os.environ.get("DREY_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"DREY_TEST_SEED={seed}")
    chance, log = random.Random(seed), folder / "restore.log"
    told: Counter[str] = Counter()
    process = await start(site, log)
    try:
        while kills > 0:
            plan = await make_plan(site)
            before = await writes_of(site.world)
            restore: restore_pb2.Restore | None = await site.execute(plan, **PATIENT)
            # one restore, killed and continued, and killed again
            while restore is not None:
                await asyncio.sleep(chance.uniform(0, TAKES_S))
                process.send_signal(signal.SIGKILL)
                await process.wait()
                kills -= 1
                process = await start(site, log)
                ended = await site.ended(restore.id)
                assert ended.state in (
                    State.RESTORE_STATE_INTERRUPTED,
                    State.RESTORE_STATE_COMPLETED,
                )
                await check(site, ended, await writes_of(site.world) - before)
                told[State.Name(ended.state)] += 1
                if ended.state == State.RESTORE_STATE_COMPLETED or chance.random() < 0.3:
                    break
                restore = await resumed(site, ended.id)
            if ended.state == State.RESTORE_STATE_INTERRUPTED:
                following = await resumed(site, ended.id)
                if following is not None:
                    ended = await site.ended(following.id)
                    await check(site, ended, await writes_of(site.world) - before)
        print(f"restores killed: {dict(told)}")
    finally:
        if process.returncode is None:
            process.terminate()
            assert await process.wait() == 0, log


@pytest.mark.parametrize(("chunk", "job_lease"), [(3, DIES_S)])
async def test_a_few_kills_at_random(
    dead_site: RestoreSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MANY_KILLS, "1")  # as where many are asked for
    await killed_at_random(dead_site, tmp_path, FEW)


@pytest.mark.parametrize(("chunk", "job_lease"), [(3, DIES_S)])
async def test_a_kill_at_random_on_the_way_back(
    dead_site: RestoreSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MANY_KILLS, "1")  # as where many are asked for
    await killed_at_random(dead_site, tmp_path, 1, way_back_plan)


@pytest.mark.parametrize(("chunk", "job_lease"), [(3, DIES_S)])
@pytest.mark.parametrize("make_plan", [counted_plan, way_back_plan])
@pytest.mark.timeout(7200)  # catches a hang: each kill costs a lease, a start and a restore
@pytest.mark.skipif(
    not os.environ.get(MANY_KILLS),
    reason=f"{MANY} kills take a quarter of an hour: NOT RUN, set {MANY_KILLS}=1 to run them",
)
async def test_many_kills_at_random(
    dead_site: RestoreSite,
    tmp_path: Path,
    make_plan: Callable[[RestoreSite], Awaitable[restore_pb2.Plan]],
) -> None:
    kills = int(os.environ.get("DREY_TEST_KILLS") or MANY)
    await killed_at_random(dead_site, tmp_path, kills, make_plan)
