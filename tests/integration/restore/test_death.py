"""`kill -9` of the service in the middle of writing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import grpc
import pytest
from pydantic import SecretStr

from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey.restore.v1 import restore_service_pb2_grpc as rpc
from drey_restore.settings import RestoreSettings
from drey_runtime.settings import environment_variables
from drey_stack import free_port
from drey_testing.restore_world import RestoreSite
from drey_testing.signing import signed_as_gateway

Verdict = restore_pb2.Verdict

DIES_S = 3.0
"""The lease of a job whose owner is killed or stopped: so long the next one waits."""


def environment(site: RestoreSite, port: int) -> dict[str, str]:
    values = site.settings.model_dump()
    values["listen"] = f"127.0.0.1:{port}"
    for secret in ("postgres_url", "redis_url"):
        values[secret] = values[secret].get_secret_value()
    names = environment_variables(RestoreSettings)
    own = {
        names[k]: str(v).lower() if isinstance(v, bool) else str(v)
        for k, v in values.items()
        if v is not None and str(v)
    }
    # a service refuses settings that it does not know, those of tests too
    others = {k: v for k, v in os.environ.items() if not k.startswith("DREY_TEST_")}
    return {**others, **own}


async def start(site: RestoreSite, log: Path) -> asyncio.subprocess.Process:
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
    async with asyncio.timeout(120):
        while True:
            try:
                await site.call("ListPlans", pb.ListPlansRequest())
                return process
            except grpc.aio.AioRpcError:
                assert process.returncode is None, log
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(("chunk", "job_lease"), [(2, DIES_S)])
async def test_killed_in_the_middle_it_is_interrupted_and_sends_nothing_again(
    dead_site: RestoreSite, tmp_path: Path
) -> None:
    site, log = dead_site, tmp_path / "restore.log"
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(150, seed=21)
    await site.world.publish()
    process = await start(site, log)
    try:
        plan = await site.plan(snapshot_id)
        restore = await site.execute(plan)
        watch = site.stub.WatchRestore(
            pb.WatchRestoreRequest(id=restore.id), timeout=60, metadata=site.metadata()
        )
        async for message in watch:
            counts = {v.verdict: v.pvs for v in message.restore.verdicts}
            if counts.get(Verdict.VERDICT_WRITTEN, 0) >= 10:
                break
        process.send_signal(signal.SIGKILL)
        await process.wait()
        before = await site.machine.read_channels(moved)
        process = await start(site, log)
        ended = await site.ended(restore.id)
        assert ended.state == restore_pb2.RESTORE_STATE_INTERRUPTED, ended
        counts = {v.verdict: v.pvs for v in ended.verdicts}
        assert sum(counts.values()) == plan.pvs
        assert counts[Verdict.VERDICT_WRITTEN] >= 10
        assert counts[Verdict.VERDICT_NOT_SENT] > 0
        assert counts.get(Verdict.VERDICT_UNKNOWN, 0) <= 2 * 2
        results = await site.items(restore.id)
        after = await site.machine.read_channels(moved)
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


LOST = ("job was lost", "job was taken", "lease of a job ran out")


class Relay:
    """Stands before Postgres; `hold` keeps what it answers until `release`."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        host = self._upstream.netloc.rpartition("@")[0]
        return urlunsplit(self._upstream._replace(netloc=f"{host}@127.0.0.1:{self._port}"))

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            up_reader, up_writer = await asyncio.open_connection(
                self._upstream.hostname, self._upstream.port
            )
            writers.append(up_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, up_writer, asyncio.Event()))
                group.create_task(self._copy(up_reader, writer, self._open))
        except* (asyncio.CancelledError, OSError):
            pass  # the service was killed, or the test is over
        finally:
            # nothing stays open for what it could not hand over
            for each in writers:
                each.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            if gate is self._open:
                await gate.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@pytest.mark.parametrize("job_lease", [DIES_S])
async def test_stopped_between_the_intent_and_the_write_it_sends_nothing_after_its_lease(
    dead_site: RestoreSite, tmp_path: Path
) -> None:
    """Another process ends the restore meanwhile; the one that wakes up knows by its own clock."""
    site, log = dead_site, tmp_path / "restore.log"
    snapshot_id = await site.world.take()
    moved = await site.machine.disturb_values(20, seed=22)
    here = await site.machine.read_channels(moved)
    direct = site.settings
    async with Relay(site.url) as relay:
        site.settings = direct.model_copy(update={"postgres_url": SecretStr(relay.url)})
        paused = await start(site, log)
        other = None
        database = await asyncpg.connect(site.url)
        try:
            plan = await site.plan(snapshot_id)
            # the first intent waits for us, so that its answer can be held back
            await database.execute(
                "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NEW; END $$"
            )
            await database.execute(
                "CREATE TRIGGER wait_for_test BEFORE INSERT ON restore.journal"
                " FOR EACH ROW EXECUTE FUNCTION wait_for_test()"
            )
            await database.execute("SELECT pg_advisory_lock(42)")
            restore = await site.execute(plan)
            async with asyncio.timeout(60):
                while not await database.fetchval(
                    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory'"
                    " AND objid = 42 AND NOT granted)"
                ):
                    await asyncio.sleep(0.01)
            relay.hold()
            await database.execute("SELECT pg_advisory_unlock(42)")
            async with asyncio.timeout(60):
                while not await database.fetchval("SELECT count(*) FROM restore.journal"):
                    await asyncio.sleep(0.01)
            paused.send_signal(signal.SIGSTOP)
            relay.release()
            site.settings = direct
            other = await start(site, log)
            ended = await site.ended(restore.id)
            assert ended.state == restore_pb2.RESTORE_STATE_INTERRUPTED, ended
            assert {v.verdict: v.pvs for v in ended.verdicts}[Verdict.VERDICT_UNKNOWN] == 20
            paused.send_signal(signal.SIGCONT)
            # it goes on where it was, and finds out that it has lost the job
            async with asyncio.timeout(60):
                while not any(words in log.read_text() for words in LOST):
                    await asyncio.sleep(0.02)
            paused.terminate()
            assert await paused.wait() == 0, log
            assert await site.machine.read_channels(moved) == here
        finally:
            await database.close()
            for process in (paused, other):
                if process is not None and process.returncode is None:
                    process.send_signal(signal.SIGCONT)
                    process.terminate()
                    await process.wait()
