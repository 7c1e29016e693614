"""`kill -9` of the service in the middle of writing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc
import pytest

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey.restore.v1 import restore_service_pb2_grpc as rpc
from drey_restore.settings import Settings
from drey_runtime.settings import variables
from drey_stack import free_port
from drey_testing.restore_world import Site
from drey_testing.signing import signed_as_gateway

Verdict = restore_pb2.Verdict


def environment(site: Site, port: int) -> dict[str, str]:
    values = site.settings.model_dump()
    values["listen"] = f"127.0.0.1:{port}"
    for secret in ("postgres_url", "redis_url"):
        values[secret] = values[secret].get_secret_value()
    names = variables(Settings)
    own = {
        names[k]: str(v).lower() if isinstance(v, bool) else str(v)
        for k, v in values.items()
        if v is not None and str(v)
    }
    return {**os.environ, **own}


async def start(site: Site, log: Path) -> asyncio.subprocess.Process:
    port = free_port()
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "drey_restore"),
            env=environment(site, port),
            stdout=out,
            stderr=out,
        )
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    site.stub = rpc.RestoreServiceStub(signed_as_gateway(channel, site.keys, "restore"))
    async with asyncio.timeout(20):
        while True:
            try:
                await site.call("ListPlans", pb.ListPlansRequest())
                return process
            except grpc.aio.AioRpcError:
                assert process.returncode is None, log
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("chunk", [2])
async def test_killed_in_the_middle_it_is_interrupted_and_sends_nothing_again(
    dead_site: Site, tmp_path: Path
) -> None:
    site, log = dead_site, tmp_path / "restore.log"
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb(150, seed=21)
    await site.world.publish()
    process = await start(site, log)
    try:
        plan = await site.plan(snapshot_id)
        restore = await site.execute(plan)
        watch = site.stub.WatchRestore(
            pb.WatchRestoreRequest(id=restore.id), timeout=30, metadata=site.metadata()
        )
        async for message in watch:
            counts = {v.verdict: v.pvs for v in message.restore.verdicts}
            if counts.get(Verdict.VERDICT_WRITTEN, 0) >= 10:
                break
        process.send_signal(signal.SIGKILL)
        await process.wait()
        before = await site.machine.read(moved)
        process = await start(site, log)
        ended = await site.ended(restore.id)
        assert ended.state == restore_pb2.RESTORE_STATE_INTERRUPTED, ended
        counts = {v.verdict: v.pvs for v in ended.verdicts}
        assert sum(counts.values()) == plan.pvs
        assert counts[Verdict.VERDICT_WRITTEN] >= 10
        assert counts[Verdict.VERDICT_NOT_SENT] > 0
        assert counts.get(Verdict.VERDICT_UNKNOWN, 0) <= 2 * 2
        results = await site.items(restore.id)
        after = await site.machine.read(moved)
        for name in moved:
            item, value = results[name], after[name]["value"]
            assert value == before[name]["value"]
            if item.verdict == Verdict.VERDICT_WRITTEN:
                assert value == pytest.approx(item.target.float64_value)
            elif item.verdict == Verdict.VERDICT_NOT_SENT:
                assert value == pytest.approx(item.before.float64_value)
    finally:
        if process.returncode is None:
            process.terminate()
            assert await process.wait() == 0, log
