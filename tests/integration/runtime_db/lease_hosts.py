"""Hosts that want one lease of a real Postgres, each on an event loop that the test turns by hand.

So a host can stand still and go on, die, and have a clock of its own, and between two turns nothing
of it happens. Each reaches the server through a way of its own, which can be broken or held up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from drey_core.election import first_epoch
from drey_runtime.clock import now_ns
from drey_runtime.lease import LeaseLost, Term
from drey_runtime.lease_postgres import PostgresLease, lock_key, session_name

NAME = "shard-0"
LONGEST_TURN_S = 0.02
"""So much of a clock passes at a turn at most: where this machine stands still no time-out ends."""
HANG_S = 120.0
_HOLDER = """
SELECT a.application_name, a.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()
    AND l.database = a.datid AND l.classid::bigint = $1 AND l.objid::bigint = $2
"""
_WIPE = """
ALTER TABLE lease.epoch DISABLE TRIGGER USER; DELETE FROM lease.epoch;
ALTER TABLE lease.epoch ENABLE TRIGGER USER
"""


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Do what is due on a loop now."""
    loop.call_soon(loop.stop)
    loop.run_forever()


class ServerWay:
    """Between a host and the server. Lives on the world's loop."""

    def __init__(self, url: str) -> None:
        self._upstream = urlsplit(url)
        self._flows = asyncio.Event()
        self._flows.set()
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._servers: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()
        """Connections to the server whose client is gone, of which the server was not told."""

    async def open(self) -> str:
        """The URL of the server by this way."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        login = self._upstream.netloc.rpartition("@")[0]
        return urlunsplit(self._upstream._replace(netloc=f"{login}@127.0.0.1:{port}"))

    @property
    def held_up(self) -> bool:
        return not self._flows.is_set()

    def hold_up(self) -> None:
        """Nothing passes, and nobody is told."""
        self._flows.clear()

    def let_pass(self) -> None:
        self._flows.set()

    def break_off(self) -> None:
        """The client's connections end; the server knows nothing of it."""
        self._forgotten |= self._servers
        for writer in self._clients:
            writer.transport.abort()

    def tell_server(self) -> None:
        """The server notices that those clients are gone."""
        for writer in self._forgotten:
            writer.transport.abort()
        self._forgotten.clear()

    def close(self) -> None:
        """End it for good, as with its host."""
        self._closed = True
        self._server.close()
        self.break_off()
        self.tell_server()
        self._flows.set()

    @property
    def ended(self) -> bool:
        return not self._tasks

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await self._flows.wait()
            if not self._closed:
                address = (self._upstream.hostname, self._upstream.port)
                up_reader, up_writer = await asyncio.open_connection(*address)
                self._clients.add(writer)
                self._servers.add(up_writer)
                await asyncio.gather(self._copy(reader, up_writer), self._copy(up_reader, writer))
                self._clients.discard(writer)
                self._servers.discard(up_writer)
        writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
        if writer not in self._forgotten:
            writer.close()


class PostgresHost:
    """A process that holds the lease whenever it can."""

    def __init__(self, world: PostgresWorld, name: str, rate: float, wall_s: float) -> None:
        self.world, self.name, self.wall_s = world, name, wall_s
        self.term: Term | None = None
        self.stopped = self.dead = False
        self.slow_image_s = 0.0
        self._floor = 0
        self.disturbed = False
        """Its session may have been lost since it was last seen to have the lock."""
        self._rate, self._clock_s = rate, 1000.0
        self.way = ServerWay(world.url)
        url = world.loop.run_until_complete(self.way.open())
        self.loop = asyncio.new_event_loop()
        self.loop.time = lambda: self._clock_s  # type: ignore[method-assign]
        lease = PostgresLease(
            url, owner=name, on_database_lost=world.mode, poll_s=0.02, ping_s=0.02
        )
        self.task = self.loop.create_task(self._own(lease))
        world.hosts.append(self)

    @property
    def valid(self) -> bool:
        """Whether it would publish now."""
        return not self.dead and self.term is not None and self.term.still_valid

    async def floor(self) -> int:
        """As the monitor asks for it."""
        await asyncio.sleep(self.slow_image_s)
        wall_ns = now_ns() + round(self.wall_s * 1e9)
        self._floor = max(self.world.image_epoch, first_epoch(wall_ns))
        return self._floor

    async def _own(self, lease: PostgresLease) -> None:
        while True:
            with suppress(LeaseLost):
                async with lease.held(NAME, floor=self.floor) as term:
                    self.term = term
                    while True:
                        self.world.note_epoch(term.epoch, self._floor)
                        await term.changed.wait()
                        term.changed.clear()
            self.term = None

    def run(self, passed_s: float) -> None:
        """One turn, if it may have one."""
        if not (self.stopped or self.dead):
            self._clock_s += min(passed_s, LONGEST_TURN_S) * self._rate
            turn(self.loop)

    def die(self) -> None:
        """As by SIGKILL: the kernel closes its connections."""
        self.dead = True
        self.way.close()

    def end_in_order(self) -> None:
        """As by SIGTERM."""
        self.stopped = False
        self.task.cancel()
        self.world.pass_until(self.task.done, "a host ends")
        self.term = None
        self.die()

    def close(self) -> None:
        """At the end of the test."""
        self.way.close()
        self.task.cancel()
        self.stopped = self.dead = False
        self.world.pass_until(lambda: self.task.done() and self.way.ended, "a host is closed")
        self.dead = True
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class PostgresWorld:
    """The hosts, what the image remembers, and the server as somebody else sees it."""

    def __init__(self, url: str, mode: Literal["keep", "stop"]) -> None:
        self.url, self.mode = url, mode
        self.loop = asyncio.new_event_loop()
        self.hosts: list[PostgresHost] = []
        self.image_epoch = 0
        self.epochs: set[int] = set()
        self.had_before: list[int] = []
        self._lost: set[int] = set()
        """Backends whose client has lost them."""
        self._turned_at = time.monotonic()
        self.broken = self._ending = False
        self._admin: asyncpg.Connection[asyncpg.Record] = self._do(asyncpg.connect(url))

    def _do(self, act: Any) -> Any:
        return self.loop.run_until_complete(act)

    def note_epoch(self, epoch: int, floor: int) -> None:
        """A host owns under it from now on; `floor` is what it knew of others."""
        if epoch in self.epochs or epoch <= floor:
            self.had_before.append(epoch)
        self.epochs.add(epoch)
        self.image_epoch = max(self.image_epoch, epoch)

    # --- time ---

    def pass_time(self, seconds: float) -> None:
        """Let all go on for a while, and look."""
        end = time.monotonic() + seconds
        self.pass_until(lambda: time.monotonic() >= end, "time passes")
        self.look()

    def pass_until(self, condition: Callable[[], bool], what: str) -> None:
        """Let all go on until something has happened."""
        end = time.monotonic() + HANG_S
        while not condition():
            assert time.monotonic() < end, f"never came: {what}"
            self._turn_all()

    def _turn_all(self) -> None:
        now = time.monotonic()
        passed_s, self._turned_at = now - self._turned_at, now
        turn(self.loop)
        for host in self.hosts:
            host.run(passed_s)
            if host.task.done() and not host.task.cancelled() and not self._ending:
                # it waits for the lease, or has it, until it is cancelled
                host.task.result()
        undisturbed = [host.name for host in self.hosts if host.valid and not host.disturbed]
        self.broken |= len(undisturbed) > 1 or bool(self.had_before)
        told = (
            f"{undisturbed} own it and lost no session; epochs that do not grow: {self.had_before}"
        )
        assert self._ending or not self.broken, told
        time.sleep(0.0005)

    # --- the server ---

    def holder(self) -> tuple[str, int] | None:
        """Name and backend of the session that has the lock."""
        key = lock_key(NAME)
        row = self._do(self._admin.fetchrow(_HOLDER, (key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF))
        return None if row is None else (row["application_name"], row["pid"])

    def look(self) -> None:
        """Whoever has the lock by a session that lives is exclusive again."""
        found = self.holder()
        for host in self.hosts:
            if found is not None and found[0] == session_name(host.name):
                host.disturbed = host.disturbed and found[1] in self._lost

    def disturb(self, host: PostgresHost) -> None:
        """Its sessions of now are to be lost, or may be."""
        host.disturbed = True
        self._lost |= set(self._backends(host))

    def end_sessions(self, host: PostgresHost) -> None:
        """The server ends them, and says so."""
        self.disturb(host)
        for backend in self._backends(host):
            self._do(self._admin.fetchval("SELECT pg_terminate_backend($1, 10000)", backend))

    def _backends(self, host: PostgresHost) -> list[int]:
        rows = self._do(
            self._admin.fetch(
                "SELECT pid FROM pg_stat_activity"
                " WHERE application_name = $1 AND datname = current_database()",
                session_name(host.name),
            )
        )
        return [row["pid"] for row in rows]

    def remembered_epoch(self) -> int:
        """By the lease's own memory."""
        return int(self._do(self._admin.fetchval("SELECT max(epoch) FROM lease.epoch")) or 0)

    def wipe_epochs(self) -> None:
        """The lease's own memory is lost. It waits for a statement of a host that is half sent."""
        wiping = self.loop.create_task(self._admin.execute(_WIPE))
        self.pass_until(wiping.done, "the memory is wiped")
        wiping.result()

    def close(self) -> None:
        """End everything."""
        self._ending = True
        for host in self.hosts:
            if not host.loop.is_closed():
                host.close()
        self._do(self._admin.close())
        self._do(self.loop.shutdown_asyncgens())
        self.loop.close()
