"""One owner at a time, as a scope: `async with lease.held("shard-0") as term`.

Losing the lease cancels the body, and the scope ends with `LeaseLost`. Each ownership has an
*epoch*, a number that only grows; it goes into everything the owner writes, so that consumers can
drop what a former owner still sends.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal, Protocol, TypeAlias

import asyncpg

from drey_core.errors import Unavailable
from drey_runtime.backoff import backoff
from drey_runtime.clock import now_ns
from drey_runtime.database import guard, server_settings

_log = logging.getLogger(__name__)
RawConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Floor: TypeAlias = Callable[[], Awaitable[int]]

# the holder's session must end soon after its host has gone, or no standby can follow
_SERVER = {
    "tcp_keepalives_idle": "1",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "3000",
}
_NEXT_EPOCH = """
INSERT INTO lease.epoch (name, epoch, holder, acquire_time_ns) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET epoch = greatest(lease.epoch.epoch + 1, excluded.epoch),
    holder = excluded.holder, acquire_time_ns = excluded.acquire_time_ns
RETURNING epoch
"""
# our own former session, where the server hasn't noticed yet that its connection is gone
_END_FORMER = """
SELECT pg_terminate_backend(a.pid, 1000) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()
    AND l.database = a.datid AND a.application_name = $1 AND a.pid <> pg_backend_pid()
    AND l.classid::bigint = $2 AND l.objid::bigint = $3 AND l.objsubid = 1
"""


class LeaseLost(Exception):
    """Somebody else owns it now, or may: stop at once."""


class Term:
    """One ownership.

    `epoch` goes into every write. `lost` is set when the ownership is over. `changed` is set when
    the lease had to be taken again and `epoch` has grown meanwhile: whoever waits for it clears it.
    """

    def __init__(self, name: str, epoch: int) -> None:
        self.name = name
        self.epoch = epoch
        self.lost = asyncio.Event()
        self.changed = asyncio.Event()


async def no_floor() -> int:
    """For names whose epochs are nowhere but in the lease's own memory."""
    return 0


class Lease(Protocol):
    """A way to have one owner for each name."""

    def held(self, name: str, *, floor: Floor = no_floor) -> AbstractAsyncContextManager[Term]:
        """Wait until `name` is ours and hold it for the body.

        `floor` answers the highest epoch seen elsewhere (in the image, say), asked at each
        acquisition: the new epoch is greater, though the lease's own memory was wiped. Where it
        raises `Unavailable` it is asked again later; anything else ends the wait. Loss cancels
        the body and raises LeaseLost. Cancel to stop waiting.
        """
        ...


def lock_key(name: str) -> int:
    """The advisory lock of a name: 64 bits, signed."""
    digest = hashlib.sha256(b"drey-lease\0" + name.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class PostgresLease:
    """A session's advisory lock on a connection of its own; epochs from the table `lease.epoch`.

    `owner` names this process and no other, at any time: a holder that comes back ends the
    sessions that bear its name, because its own former one may hold the lock still.

    The server frees the lock when the holder's process dies (at once on one host, within about
    three seconds where the host vanished); standbys ask each `poll_s`. The holder asks for a
    sign of life each `ping_s` and takes a silence of `ping_timeout_s` for a lost connection.

    `on_database_lost` says what that means. "stop": the lease is lost. "keep": the body goes on
    under its epoch, which fences it; the lock is taken again as soon as Postgres answers, under
    a new epoch (`term.changed`), or, where somebody else has it by then, the lease is lost.
    While Postgres is away nobody else can acquire.
    """

    def __init__(
        self,
        url: str,
        *,
        owner: str,
        on_database_lost: Literal["keep", "stop"] = "keep",
        poll_s: float = 0.3,
        ping_s: float = 0.5,
        ping_timeout_s: float = 2.0,
    ) -> None:
        self._url = url
        self._owner = owner
        self._keep = on_database_lost == "keep"
        self._poll_s = poll_s
        self._ping_s = ping_s
        self._ping_timeout_s = ping_timeout_s

    @asynccontextmanager
    async def held(self, name: str, *, floor: Floor = no_floor) -> AsyncIterator[Term]:
        """As `Lease.held`. While Postgres is away it waits for it."""
        holder = _Holder(self._connect, self._owner, name, floor, self._ping_timeout_s)
        body = asyncio.current_task()
        assert body is not None
        try:
            await self._acquire(holder)
            term = Term(name, holder.epoch)
            _log.info("lease acquired", extra={"lease": name, "epoch": term.epoch})
            keeper = asyncio.create_task(self._hold(holder, term, body), name=f"lease {name}")
            try:
                try:
                    yield term
                finally:
                    await _cancel(keeper)
            except asyncio.CancelledError:
                # ours, unless somebody else has cancelled as well
                if term.lost.is_set() and body.uncancel() == 0:
                    raise LeaseLost(f"lease {name} is no longer held") from None
                raise
            if term.lost.is_set():
                raise LeaseLost(f"lease {name} is no longer held")
        finally:
            await holder.close()

    async def _connect(self) -> RawConnection:
        settings = server_settings(f"drey-lease {self._owner}"[:63]) | _SERVER
        with guard():
            connection: RawConnection = await asyncpg.connect(
                self._url,
                timeout=self._ping_timeout_s,
                command_timeout=self._ping_timeout_s,
                server_settings=settings,
            )
        return connection

    async def _acquire(self, holder: _Holder) -> None:
        failures = 0
        while True:
            try:
                if await holder.try_acquire():
                    return
                failures = 0
            except Unavailable as error:
                if failures == 0:
                    _log.warning("lease waits", extra={"lease": holder.name, "error": str(error)})
                failures += 1
                await holder.close()
            await asyncio.sleep(backoff(0, first_s=self._poll_s, cap_s=self._poll_s))

    async def _hold(self, holder: _Holder, term: Term, body: asyncio.Task[object]) -> None:
        """Watch over the lock; on loss, cancel the body. Ends then."""
        try:
            while True:
                await asyncio.sleep(self._ping_s)
                try:
                    await holder.ping()
                except Unavailable as error:
                    _log.warning(
                        "lease lost its database",
                        extra={"lease": term.name, "error": error.message, "keeps": self._keep},
                    )
                    await holder.close()
                    if not (self._keep and await self._take_again(holder, term)):
                        break
        finally:
            # also where a defect ends this task: without a keeper there is no lease
            if not _being_cancelled():
                _log.warning("lease lost", extra={"lease": term.name, "epoch": term.epoch})
                term.lost.set()
                body.cancel()

    async def _take_again(self, holder: _Holder, term: Term) -> bool:
        """Once Postgres answers: whether the lock is ours again, under a new epoch."""
        attempt = 0
        while True:
            try:
                taken = await holder.try_acquire(again=True)
                break
            except Unavailable:
                await holder.close()
                await asyncio.sleep(backoff(attempt, first_s=0.05, cap_s=self._poll_s))
                attempt += 1
        if taken:
            term.epoch = holder.epoch
            term.changed.set()
            _log.info("lease taken again", extra={"lease": term.name, "epoch": term.epoch})
        return taken


class _Holder:
    """The connection whose session has the lock, or tries to."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[RawConnection]],
        owner: str,
        name: str,
        floor: Floor,
        timeout: float,
    ) -> None:
        self.name = name
        self.epoch = 0
        self._connect = connect
        self._owner = owner
        self._floor = floor
        self._timeout = timeout
        self._key = lock_key(name)
        self._connection: RawConnection | None = None

    async def try_acquire(self, *, again: bool = False) -> bool:
        """One try; the epoch is new when it succeeds. Raises `Unavailable`."""
        if self._connection is None:
            self._connection = await self._connect()
        connection = self._connection
        with guard():
            locked = await connection.fetchval("SELECT pg_try_advisory_lock($1)", self._key)
            if not locked and again:
                await self._end_former(connection)
                locked = await connection.fetchval("SELECT pg_try_advisory_lock($1)", self._key)
        if not locked:
            return False
        floor = max(await self._floor(), self.epoch)
        with guard():
            self.epoch = int(
                await connection.fetchval(_NEXT_EPOCH, self.name, floor + 1, self._owner, now_ns())
            )
        return True

    async def _end_former(self, connection: RawConnection) -> None:
        """End our own former session, where it lives on behind a connection that was cut."""
        high, low = (self._key >> 32) & 0xFFFFFFFF, self._key & 0xFFFFFFFF
        name = f"drey-lease {self._owner}"[:63]
        await connection.fetch(_END_FORMER, name, high, low)

    async def ping(self) -> None:
        """Make sure that the session lives, and with it the lock. Raises `Unavailable`."""
        if self._connection is None:
            raise Unavailable("the lease has no connection")
        with guard():
            await self._connection.fetchval("SELECT 1", timeout=self._timeout)

    async def close(self) -> None:
        """End the session, and with it the lock; never fails and takes a second at most."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            with guard():
                await connection.close(timeout=1)
        except Unavailable:
            connection.terminate()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _cancel(task: asyncio.Task[None]) -> None:
    """Stop a task; its failure, if it has one, is raised here."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
