"""The embedded servers: real ones, in a folder of the test."""

import asyncio
import os
import pwd
import shutil
import signal
from pathlib import Path
from typing import Any

import asyncpg
import nats
import psutil
import pytest
from nats.js.errors import ServiceUnavailableError
from redis.asyncio import Redis

from drey_stack import FolderBusy, Nats, Part, PartFailed, Postgres, Valkey, free_port, is_free
from drey_stack import ports as stack_ports
from drey_stack.ports import LOOPBACK
from drey_stack.postgres import OWNER
from drey_stack.private import RunFolder, write_private


def make(kind: type[Part], folder: Path) -> Part:
    return Postgres(folder, fsync=False) if kind is Postgres else kind(folder)


def listening(part: Part) -> set[Any]:
    """Addresses of TCP on which it takes connections."""
    found = psutil.Process(part.pid).net_connections(kind="tcp")
    return {connection.laddr for connection in found if connection.status == "LISTEN"}


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
        assert {address.ip for address in listening(part)} == {LOOPBACK}
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


async def test_postgres_on_a_socket_keeps_its_address_and_takes_it_away(tmp_path: Path):
    postgres = Postgres(tmp_path, fsync=False, socket=True)
    async with postgres:
        url, folder = postgres.url, (tmp_path / "run").readlink()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not listening(postgres)
        for _ in range(2):
            connection = await asyncpg.connect(postgres.url)
            assert await connection.fetchval("SELECT inet_server_port()") is None
            await connection.close()
            await postgres.kill()
            await postgres.start()
            assert postgres.url == url
    assert not folder.exists()
    assert not (tmp_path / "run").is_symlink()


async def test_valkey_on_a_socket(tmp_path: Path):
    async with Valkey(tmp_path, socket=True) as valkey:
        assert not listening(valkey)
        redis = Redis.from_url(valkey.url, socket_timeout=60, socket_connect_timeout=60)
        assert await redis.ping()
        await redis.aclose()
        await valkey.kill()
        await valkey.start()


@pytest.mark.parametrize("given_away", [False, True])
async def test_what_a_killed_run_left_is_removed_and_what_lives_is_not(
    tmp_path: Path, given_away: bool
):
    if given_away and os.geteuid() != 0:
        pytest.skip("only root gives its folder to the user of Postgres")
    home, copy = tmp_path / "home", tmp_path / "copy"
    async with Valkey(home, socket=True) as valkey:
        alive = (home / "run").readlink()
        shutil.copytree(home, copy, symlinks=True)
        async with Valkey(copy, socket=True):
            assert alive.exists() and (copy / "run").readlink() != alive
        assert await valkey.answers_requests()
    left = RunFolder(copy)
    nobody = pwd.getpwnam("nobody")
    left.make_folder((nobody.pw_uid, nobody.pw_gid) if given_away else None)
    os.close(left._lock)  # as the kernel does for a process that was killed
    async with Valkey(copy, socket=True):
        assert not left.path.exists()


async def test_a_pid_file_whose_number_is_another_programs_by_now(tmp_path: Path):
    async with Postgres(tmp_path, fsync=False) as postgres:
        noted = postgres.data / "postmaster.pid"
        await postgres.kill()
        text = noted.read_text()
        sleeper = await asyncio.create_subprocess_exec(
            "sleep", "600", **({"user": "nobody"} if os.geteuid() == 0 else {})
        )
        try:
            noted.write_text(text.replace(text.split("\n")[0], str(sleeper.pid), 1))
            await postgres.start()
        finally:
            sleeper.kill()
            await sleeper.wait()


async def test_postgres_has_no_rights_of_root(tmp_path: Path):
    async with Postgres(tmp_path, fsync=False) as postgres:
        status = await asyncio.to_thread(Path(f"/proc/{postgres.pid}/status").read_text)
        held = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("Cap"))
        assert {int(held[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")} == {0}
        secret = tmp_path / "secret"
        write_private(secret, "not for the database")
        connection = await asyncpg.connect(postgres.url)
        if os.geteuid() == 0:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetchval("SELECT pg_read_file($1)", str(secret))
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


async def test_nats_takes_what_a_batch_needs_and_keeps_nothing(tmp_path: Path):
    async with Nats(tmp_path) as server:
        client = await nats.connect(server.url)
        assert client.max_payload == 8 * 1024 * 1024
        with pytest.raises(ServiceUnavailableError):
            await client.jetstream().account_info()
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
        assert await valkey.wait() == -signal.SIGKILL
        assert not valkey.running


def test_processes_with_shares_of_their_own_choose_no_port_twice(monkeypatch: pytest.MonkeyPatch):
    """Nothing is bound meanwhile, as for a second or two after each choice of a test's."""
    monkeypatch.setattr(stack_ports, "_share", [0, 1])
    chosen = []
    for number in range(3):
        stack_ports.take_share(number, 3)
        chosen += [free_port() for _ in range(60)]
    assert len(set(chosen)) == len(chosen)
    assert [{port % 3 for port in chosen[first : first + 60]} for first in (0, 60, 120)] == [
        {(chosen[0] + number) % 3} for number in range(3)
    ]


def test_free_ports_lie_outside_the_range_of_outgoing_connections():
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    ports = [free_port() for _ in range(20)]
    assert all(is_free(port) for port in ports)
    assert not [port for port in ports if int(low) <= port <= int(high)] or int(low) < 21_000
