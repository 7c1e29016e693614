"""Leases as advisory locks of one Postgres session."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

import asyncpg

from drey_core.errors import Unavailable
from drey_runtime.clock import now_ns
from drey_runtime.database import connect_once, guard_connection, server_settings
from drey_runtime.lease import Floor, Term, keep_term, no_floor
from drey_runtime.retrying import backoff_delay

_log = logging.getLogger(__name__)
RawConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

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
# unlocking what is not locked would only make the server warn
_UNLOCK = """
SELECT pg_advisory_unlock($1) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()
    AND classid::bigint = $2 AND objid::bigint = $3 AND objsubid = 1
"""
_LONGEST_NAME = 63


def lock_key(name: str) -> int:
    """The advisory lock of a name: 64 bits, signed."""
    digest = hashlib.sha256(b"drey-lease\0" + name.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def session_name(owner: str) -> str:
    """How Postgres knows the session of an owner: distinct for each, and not longer than it takes.

    Postgres cuts names at 63 bytes and changes what is not ASCII.
    """
    name = f"drey-lease {owner}"
    if name.isascii() and name.isprintable() and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(owner.encode()).hexdigest()[:24]
    readable = "".join(c if c.isascii() and c.isprintable() else "?" for c in name)
    return f"{readable[: _LONGEST_NAME - len(digest) - 1]} {digest}"


class PostgresLease:
    """A session's advisory locks, one session for all leases; epochs from table `lease.epoch`.

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
        self._owner = owner
        self._session = _Session(url, session_name(owner), ping_timeout_s)
        self._keep = on_database_lost == "keep"
        self._poll_s = poll_s
        self._ping_s = ping_s

    @asynccontextmanager
    async def held(self, name: str, *, floor: Floor = no_floor) -> AsyncIterator[Term]:
        """As `Lease.held`. While Postgres is away it waits for it."""
        holder = _Holder(self._session, self._owner, name, floor)
        self._session.users += 1
        try:
            await self._acquire_lease(holder)
            term = Term(name, holder.epoch)
            _log.info("lease acquired", extra={"lease": name, "epoch": term.epoch})
            async with keep_term(term, lambda: self._watch_lock(holder, term)):
                yield term
        finally:
            self._session.users -= 1
            await holder.close_session()

    async def _acquire_lease(self, holder: _Holder) -> None:
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
                await holder.close_session()
            await asyncio.sleep(backoff_delay(0, first_s=self._poll_s, cap_s=self._poll_s))

    async def _watch_lock(self, holder: _Holder, term: Term) -> None:
        """Watch over the lock; returns when it is lost."""
        while True:
            await asyncio.sleep(self._ping_s)
            try:
                await holder.ping_session(self._ping_s / 2)
            except Unavailable as error:
                _log.warning(
                    "lease lost its database",
                    extra={"lease": term.name, "error": error.message, "keeps": self._keep},
                )
                await holder.close_session()
                if not (self._keep and await self._take_again(holder, term)):
                    return

    async def _take_again(self, holder: _Holder, term: Term) -> bool:
        """Once Postgres answers: whether the lock is ours again, under a new epoch."""
        attempt = 0
        while True:
            try:
                taken = await holder.try_acquire(again=True)
                break
            except Unavailable:
                await holder.close_session()
                await asyncio.sleep(backoff_delay(attempt, first_s=0.05, cap_s=self._poll_s))
                attempt += 1
        if taken:
            term.epoch = holder.epoch
            term.changed.set()
            _log.info("lease taken again", extra={"lease": term.name, "epoch": term.epoch})
        return taken


class _Session:
    """The one connection of all leases of a process: a process needs one, whatever it leases.

    `number` grows with each connection: a lock is there as long as the session that took it.
    """

    def __init__(self, url: str, name: str, timeout: float) -> None:
        self.name = name
        self.users = 0
        self.number = 0
        self._url = url
        self._timeout = timeout
        self._gate = asyncio.Lock()
        self._connection: RawConnection | None = None
        self._heard_at = float("-inf")
        self._failed_at = float("-inf")
        self._failure: Unavailable | None = None

    @asynccontextmanager
    async def use_connection(self, number: int | None = None) -> AsyncIterator[RawConnection]:
        """The connection for the body alone; that of session `number`, or any. `Unavailable`.

        Who waited while a connection was lost, or was not to be had, fails with it: a server that
        stands still costs one time-out, not one for each lease.
        """
        asked_at = time.monotonic()
        async with self._gate:
            if self._failure is not None and self._failed_at >= asked_at:
                raise Unavailable(self._failure.message, reason=self._failure.reason)
            if number is not None and (number != self.number or self._connection is None):
                raise Unavailable("the session that had the lease has ended")
            try:
                connection = self._connection or await self._connect_session()
                with guard_connection(connection):
                    yield connection
                self._heard_at = time.monotonic()
            except Unavailable as error:
                if not isinstance(error.__cause__, asyncpg.PostgresError):
                    self._failed_at, self._failure = time.monotonic(), error
                    self.terminate_session()
                raise

    async def _connect_session(self) -> RawConnection:
        with guard_connection():
            self._connection = await connect_once(
                self._url,
                name=self.name,
                settings=server_settings(self.name) | _SERVER,
                timeout=self._timeout,
                command_timeout=self._timeout,
            )
        self.number += 1
        return self._connection

    async def ping_session(self, number: int, age_s: float) -> None:
        """Make sure that session `number` lives: heard of at most `age_s` seconds ago."""
        if number != self.number or time.monotonic() - self._heard_at > age_s:
            async with self.use_connection(number) as connection:
                await connection.fetchval("SELECT 1")

    def terminate_session(self) -> None:
        """End the session at once, and with it all its locks."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close_session(self) -> None:
        """End the session in order, if nobody uses it; takes a second at most."""
        async with self._gate:
            if self.users > 0 or self._connection is None:
                return
            connection, self._connection = self._connection, None
            try:
                with guard_connection(connection):
                    await connection.close(timeout=1)
            except Unavailable:
                connection.terminate()


class _Holder:
    """One lock of the session, or the wish for it."""

    def __init__(self, session: _Session, owner: str, name: str, floor: Floor) -> None:
        self.name = name
        self.epoch = 0
        self._session = session
        self._owner = owner
        self._floor = floor
        self._key = lock_key(name)
        # the session in which we may have the lock
        self._in: int | None = None

    async def try_acquire(self, *, again: bool = False) -> bool:
        """One try; the epoch is new when it succeeds. Raises `Unavailable`."""
        async with self._session.use_connection() as connection:
            self._in = self._session.number
            locked = await connection.fetchval("SELECT pg_try_advisory_lock($1)", self._key)
            if not locked and again:
                await self._end_former(connection)
                locked = await connection.fetchval("SELECT pg_try_advisory_lock($1)", self._key)
        if not locked:
            self._in = None
            return False
        floor = max(await self._floor(), self.epoch)
        async with self._session.use_connection(self._in) as connection:
            self.epoch = int(
                await connection.fetchval(_NEXT_EPOCH, self.name, floor + 1, self._owner, now_ns())
            )
        return True

    async def _end_former(self, connection: RawConnection) -> None:
        """End our own former session, where it lives on behind a connection that was cut."""
        high, low = (self._key >> 32) & 0xFFFFFFFF, self._key & 0xFFFFFFFF
        await connection.fetch(_END_FORMER, self._session.name, high, low)

    async def ping_session(self, age_s: float) -> None:
        """Make sure that the session lives, and with it the lock. Raises `Unavailable`."""
        if self._in is None:
            raise Unavailable("the lease has no session")
        await self._session.ping_session(self._in, age_s)

    async def close_session(self) -> None:
        """Give the lock back, where we may have it; never fails and takes seconds at most.

        Where that cannot be done the session ends: nobody may be kept out by a lock without owner.
        """
        session, number = self._session, self._in
        self._in = None
        if number is not None and number == session.number:
            high, low = (self._key >> 32) & 0xFFFFFFFF, self._key & 0xFFFFFFFF
            try:
                async with session.use_connection(number) as connection:
                    await connection.fetch(_UNLOCK, self._key, high, low)
            except Unavailable:
                _log.debug("a lease's session went before its lock was given back")
            except asyncio.CancelledError:
                session.terminate_session()
                raise
        await session.close_session()
