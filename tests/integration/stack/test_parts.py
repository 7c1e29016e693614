"""The embedded servers: real ones, in a folder of the test."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import nats
import psutil
import pytest

from drey_stack import FolderBusy, Nats, Part, PartFailed, Postgres, Valkey, free_port, is_free
from drey_stack.ports import LOOPBACK
from drey_stack.postgres import OWNER


def make(kind: type[Part], folder: Path) -> Part:
    return Postgres(folder, fsync=False) if kind is Postgres else kind(folder)


async def command(part: Part, *lines: bytes) -> bytes:
    """Raw Redis commands after AUTH; the last answer's line."""
    reader, writer = await asyncio.open_connection(LOOPBACK, part.port)
    answer = b""
    for line in (b"AUTH " + part.password.encode(), *lines):
        writer.write(line + b"\r\n")
        answer = await reader.readline()
    writer.close()
    return answer.strip()


@pytest.mark.parametrize("kind", [Postgres, Nats, Valkey])
async def test_kill_restart_and_second_start_keep_the_port(kind: type[Part], tmp_path: Path):
    async with make(kind, tmp_path) as part:
        port, pid = part.port, part.pid
        await part.kill()
        assert not part.running and not psutil.pid_exists(pid)
        await part.start()
        assert part.port == port and part.pid != pid
        listening = {
            c.laddr for c in psutil.Process(part.pid).net_connections() if c.status == "LISTEN"
        }
        assert {address.ip for address in listening} == {LOOPBACK}
    assert is_free(port)
    async with make(kind, tmp_path) as again:
        assert again.port == port


@pytest.mark.parametrize("kind", [Nats, Valkey])
async def test_folder_is_for_one(kind: type[Part], tmp_path: Path):
    async with make(kind, tmp_path):
        with pytest.raises(FolderBusy):
            await make(kind, tmp_path).start()


async def test_taken_port_is_said(tmp_path: Path):
    async with Valkey(tmp_path / "one") as one:
        with pytest.raises(PartFailed, match="taken"):
            await Valkey(tmp_path / "two", port=one.port).start(deadline=0.3)


async def test_postgres_keeps_data_over_kill_and_stop(tmp_path: Path):
    postgres = Postgres(tmp_path, fsync=False)
    async with postgres:
        assert psutil.Process(postgres.pid).uids().effective != 0
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("CREATE TABLE t (a int)")
        await connection.execute("INSERT INTO t VALUES (7)")
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        await connection.close()
        await postgres.kill()
        await postgres.start()
    async with postgres:
        connection = await asyncpg.connect(postgres.url)
        assert await connection.fetchval("SELECT a FROM t") == 7
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.url.replace(f"{OWNER}:", f"{OWNER}:not"))


async def test_postgres_hands_what_an_older_version_made_to_the_owner(tmp_path: Path):
    postgres = Postgres(tmp_path, fsync=False)
    old = (
        "CREATE SCHEMA jobs",
        "CREATE TABLE jobs.job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
        "CREATE VIEW jobs.open AS SELECT * FROM jobs.job",
        "CREATE FUNCTION jobs.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    async with postgres:
        admin = f"postgresql://postgres:{postgres.password}@127.0.0.1:{postgres.port}/postgres"
        connection = await asyncpg.connect(admin)
        for statement in old:
            await connection.execute(statement)
        await connection.close()
    (postgres.data / "drey.roles").unlink()
    async with postgres:
        connection = await asyncpg.connect(postgres.url)
        for statement in ("FUNCTION jobs.f()", "VIEW jobs.open", "TABLE jobs.job", "SCHEMA jobs"):
            await connection.execute(f"DROP {statement}")
        await connection.close()


async def test_postgres_from_a_template(tmp_path: Path):
    template = tmp_path / "template"
    first, second = (Postgres(tmp_path / n, fsync=False, template=template) for n in "ab")
    await asyncio.gather(first.start(), second.start())
    try:
        for postgres in (first, second):
            connection = await asyncpg.connect(postgres.url)
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
    finally:
        await asyncio.gather(first.stop(), second.stop())


async def test_jetstream_is_on_and_keeps_messages(tmp_path: Path):
    async with Nats(tmp_path) as server:
        client = await nats.connect(server.url)
        assert client.max_payload == 8 * 1024 * 1024
        await client.jetstream().add_stream(name="s", subjects=["s.>"])
        await client.jetstream().publish("s.1", b"kept")
        await client.close()
        await server.stop()
        await server.start()
        client = await nats.connect(server.url)
        assert (await client.jetstream().stream_info("s")).state.messages == 1
        await client.close()


async def test_valkey_asks_for_the_password_and_evicts_nothing(tmp_path: Path):
    async with Valkey(tmp_path) as valkey:
        assert await command(valkey, b"SET a 1") == b"+OK"
        assert (valkey.folder / "valkey.conf").stat().st_mode & 0o077 == 0
        reader, writer = await asyncio.open_connection(LOOPBACK, valkey.port)
        writer.write(b"GET a\r\n")
        assert (await reader.readline()).startswith(b"-NOAUTH")
        writer.close()


async def test_cancelled_start_leaves_nothing(tmp_path: Path):
    postgres = Postgres(tmp_path, fsync=False)
    for moment in (0.02, 0.2, 0.5):
        task = asyncio.create_task(postgres.start())
        await asyncio.sleep(moment)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await postgres.kill()
        assert not postgres.running
        assert not [
            p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(p.info["cmdline"])
        ]
    await postgres.start()
    await postgres.stop()


async def test_a_dead_server_is_seen(tmp_path: Path):
    async with Valkey(tmp_path) as valkey:
        os.kill(valkey.pid, signal.SIGKILL)
        assert await asyncio.wait_for(valkey.wait(), 5) == -signal.SIGKILL
        assert not valkey.running


def test_free_ports_lie_outside_the_range_of_outgoing_connections():
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    ports = [free_port() for _ in range(20)]
    assert all(is_free(port) for port in ports)
    assert not [port for port in ports if int(low) <= port <= int(high)] or int(low) < 21_000
