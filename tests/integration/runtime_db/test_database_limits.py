"""Servers that are full, closed to us, or not what they seem; sessions that stand still."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
import pytest

from drey_core.errors import Unavailable
from drey_runtime import audit
from drey_runtime.database import Database, open_pool, server_settings
from drey_runtime.lease_postgres import PostgresLease
from drey_runtime.migrate import apply_migrations
from drey_runtime.settings import SettingsError
from drey_stack import Postgres, free_port

from .conftest import running


def superuser_url(part: Postgres) -> str:
    return f"postgresql://postgres:{part.password}@127.0.0.1:{part.port}/postgres"


async def append(db: Database) -> int:
    async with db.begin_transaction() as conn:
        return await audit.append_entry(
            conn, audit.AuditedAct(actor="a", role="", action="x", object="", at_ns=1), events=()
        )


async def test_a_session_that_stops_inside_a_transaction_blocks_nobody_for_ever(
    url: str, db: Database
) -> None:
    stopped = await asyncpg.connect(
        url, server_settings=server_settings("stopped", idle_in_transaction_s=1)
    )
    await stopped.execute("BEGIN")
    await audit.append_entry(
        stopped, audit.AuditedAct(actor="a", role="", action="x", object="", at_ns=1), events=()
    )
    assert await append(db) == 1
    stopped.terminate()


async def test_who_waits_for_a_lock_is_told(url: str, db: Database) -> None:
    holder = await asyncpg.connect(url)
    await holder.execute("BEGIN")
    await audit.append_entry(
        holder, audit.AuditedAct(actor="a", role="", action="x", object="", at_ns=1), events=()
    )
    with pytest.raises(Unavailable, match="another session holds"):
        await append(db)
    await holder.close()


async def test_every_connection_has_its_limits(url: str) -> None:
    async with open_pool(url) as pool:
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            assert await pool.fetchval("SELECT current_setting($1)", name) not in ("0", "")


@pytest.mark.parametrize("state", ["53100", "53200", "58030"])
async def test_a_server_that_is_full_ends_nobody(db: Database, state: str) -> None:
    async with db.acquire_connection() as conn:
        await conn.execute(
            "CREATE FUNCTION full_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION 'no space left' USING ERRCODE = '{state}'; END $$;"
            " CREATE TRIGGER full_up BEFORE INSERT ON audit.entry"
            " FOR EACH ROW EXECUTE FUNCTION full_up()"
        )
    with pytest.raises(Unavailable) as caught:
        await append(db)
    assert caught.value.metadata == {"sqlstate": state}


@pytest.fixture
def small_disk(own_postgres: Postgres) -> Iterator[Path]:
    """A file system of four megabytes that the server may write to."""
    folder = Path(tempfile.mkdtemp(prefix="drey-small-"))
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder]
    if subprocess.run(command, check=False).returncode:
        folder.rmdir()
        pytest.skip("only root can mount a file system that is soon full")
    user = psutil.Process(own_postgres.pid).uids().effective
    os.chown(folder, user, -1)
    folder.chmod(0o700)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


async def test_a_disk_that_is_full(own_postgres: Postgres, small_disk: Path) -> None:
    await apply_migrations(own_postgres.url, ["drey_runtime"])
    admin = await asyncpg.connect(superuser_url(own_postgres))
    await admin.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    await admin.execute("ALTER TABLE audit.entry SET TABLESPACE small")
    async with Database(own_postgres.url) as database:
        with pytest.raises(Unavailable, match="disk is full") as caught:
            for number in range(10_000):
                async with database.begin_transaction() as conn:
                    words = {"words": os.urandom(20_000).hex(), "number": number}
                    await audit.append_entry(
                        conn,
                        audit.AuditedAct(
                            actor="a", role="", action="x", object="", at_ns=1, after=words
                        ),
                        events=(),
                    )
        assert caught.value.metadata == {"sqlstate": "53100"}
        await admin.execute("ALTER TABLE audit.entry SET TABLESPACE pg_default")
        assert await append(database) > 0
        async with database.acquire_connection() as conn:
            assert await audit.verify_chain(conn) == []
    await admin.close()


async def test_a_password_that_was_changed_and_set_right_again(own_postgres: Postgres) -> None:
    admin = await asyncpg.connect(superuser_url(own_postgres))
    right = urlsplit(own_postgres.url).password
    await admin.execute("ALTER ROLE drey_owner PASSWORD 'another'")
    database = Database(own_postgres.url, ping_s=0.05)
    async with database, running(database):
        with pytest.raises(Unavailable, match="password"):
            async with database.acquire_connection():
                pass
        assert not database.ready
        await admin.execute(f"ALTER ROLE drey_owner PASSWORD '{right}'")
        await database.wait_ready(60)
    await admin.close()


async def test_it_waits_for_a_connection_of_a_server_that_has_none_left(
    own_postgres: Postgres,
) -> None:
    admin = await asyncpg.connect(superuser_url(own_postgres))
    async with Database(own_postgres.url, max_size=2) as database, AsyncExitStack() as stack:
        async with database.acquire_connection():
            pass
        await admin.execute("ALTER ROLE drey_owner CONNECTION LIMIT 2")
        first = await asyncpg.connect(own_postgres.url)
        await stack.enter_async_context(database.acquire_connection())
        waiting = asyncio.create_task(stack.enter_async_context(database.acquire_connection()))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await first.close()
        await waiting
    await admin.close()


async def test_a_pool_without_a_free_connection_says_so(url: str) -> None:
    async with (
        Database(url, max_size=1, connect_timeout=0.3) as database,
        database.acquire_connection(),
    ):
        with pytest.raises(Unavailable, match=r"all 1 connections .* were in use for 0\.3 s"):
            async with database.acquire_connection():
                pass


async def refused(url: str, **options: int) -> str:
    async with Database(url, **options) as database:
        with pytest.raises(SettingsError) as caught:
            async with asyncio.timeout(60):
                await database.run()
    return str(caught.value)


async def test_a_superuser_is_refused(own_postgres: Postgres) -> None:
    url = superuser_url(own_postgres)
    assert "superuser" in await refused(url)
    with pytest.raises(SettingsError, match="superuser"):
        async with PostgresLease(url, owner="a").held("shard-0"):
            pass


async def test_a_server_with_fewer_connections_than_we_need_is_refused(
    own_postgres: Postgres,
) -> None:
    assert "need 1000" in await refused(own_postgres.url, max_size=1000)
    admin = await asyncpg.connect(superuser_url(own_postgres))
    await admin.execute("ALTER ROLE drey_owner CONNECTION LIMIT 5")
    await admin.close()
    assert "have 5 connections" in await refused(own_postgres.url, max_size=10)


class Pooler:
    """Does what pgbouncer does with pool_mode = transaction.

    A client keeps a server's session until the server says that it is outside a transaction.
    """

    def __init__(self, port: int, *, refuses: bytes = b"") -> None:
        self._port, self._refuses = port, refuses
        self._free: list[_Upstream] = []
        self._held: dict[asyncio.StreamWriter, _Upstream] = {}
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
            for writer in [
                *(upstream.writer for upstream in [*self._free, *self._held.values()]),
                *self._serving.values(),
            ]:
                writer.close()
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = client
        head = await reader.readexactly(8)
        if struct.unpack("!ii", head)[1] == 80877103:  # may it be TLS? no
            client.write(b"N")
            head = await reader.readexactly(8)
        length, code = struct.unpack("!ii", head)
        body = await reader.readexactly(length - 8)
        if code == 80877102 or (self._refuses and self._refuses in body):
            if code != 80877102:
                fields = b"SFATAL\0C08P01\0Munsupported startup parameter\0\0"
                client.write(b"E" + struct.pack("!i", len(fields) + 4) + fields)
            client.close()
            return
        upstream = _Upstream(*await asyncio.open_connection("127.0.0.1", self._port))
        upstream.writer.write(head + body)
        upstream.client = self._held_by(client, upstream)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._answer(upstream))
            try:
                while data := await reader.read(65536):
                    if data == b"X\0\0\0\4":
                        break
                    if client not in self._held:
                        self._held_by(client, self._free.pop())
                    self._held[client].writer.write(data)
            finally:
                client.close()

    def _held_by(self, client: asyncio.StreamWriter, upstream: _Upstream) -> asyncio.StreamWriter:
        self._held[client] = upstream
        upstream.client = client
        return client

    async def _answer(self, upstream: _Upstream) -> None:
        try:
            while True:
                head = await upstream.reader.readexactly(5)
                kind, length = struct.unpack("!ci", head)
                body = await upstream.reader.readexactly(length - 4)
                client = upstream.client
                assert client is not None
                if kind == b"K":
                    body = struct.pack("!ii", 12345, 1)
                if kind == b"Z" and body == b"I":
                    upstream.client = None
                    del self._held[client]
                    self._free.append(upstream)
                if not client.is_closing():
                    client.write(head + body)
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            upstream.writer.close()


class _Upstream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.client: asyncio.StreamWriter | None = None


def at_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))


async def test_a_pooler_by_transaction_is_refused(postgres: Postgres, url: str) -> None:
    async with Pooler(postgres.port).serving() as port:
        assert "pool_mode = transaction" in await refused(at_port(url, port))
        with pytest.raises(SettingsError, match="pool_mode = transaction"):
            async with PostgresLease(at_port(url, port), owner="a").held("shard-0"):
                pass


async def test_a_pooler_that_drops_our_settings_is_refused(postgres: Postgres, url: str) -> None:
    pooler = Pooler(postgres.port, refuses=b"lock_timeout")
    async with pooler.serving() as port:
        assert "refuses the settings of our sessions" in await refused(at_port(url, port))


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed here")
async def test_pgbouncer_itself_is_refused(postgres: Postgres, url: str, tmp_path: Path) -> None:
    parts, port = urlsplit(url), free_port()
    (tmp_path / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
    (tmp_path / "ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={postgres.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = plain\nauth_file = {tmp_path / 'users'}\npool_mode = transaction\n"
        "ignore_startup_parameters = jit, tcp_keepalives_idle, tcp_keepalives_interval,"
        " tcp_keepalives_count, statement_timeout, lock_timeout,"
        " idle_in_transaction_session_timeout\n"
    )
    for path in (tmp_path, tmp_path / "users", tmp_path / "ini"):
        path.chmod(0o755)
    user = ["--user", "nobody"] if os.geteuid() == 0 else []
    process = await asyncio.create_subprocess_exec("pgbouncer", *user, str(tmp_path / "ini"))
    try:
        assert "such as pgbouncer" in await refused(at_port(url, port))
    finally:
        process.terminate()
        await process.wait()
