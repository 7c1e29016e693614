"""PostgreSQL: a pool that outlives the server's restarts, and its errors as ours.

Ids travel as text (`uuid` columns are `str`), times as `int` nanoseconds. Nothing here retries a
write whose outcome is unknown: only reads, and transactions that Postgres itself says it rolled
back, are repeated. Errors are told apart by SQLSTATE and class, never by their words.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from drey_core.errors import DreyError, Reason, Unavailable
from drey_runtime.retrying import backoff_delay
from drey_runtime.settings import SettingsError
from drey_runtime.waiting import Turns, current_holder

Record: TypeAlias = asyncpg.Record
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
T = TypeVar("T")

_log = logging.getLogger(__name__)

_READ_ATTEMPTS = 4
_STATEMENT_S = 60
_LOCK_S = 5
_IDLE_IN_TRANSACTION_S = 30
_OLDEST_SERVER = 160000

# What the server says about itself, or a role that lacks something: nobody's request is at fault,
# and it may pass or be mended while we run. SQLSTATE or class of it, the more special one first.
_STATES = {
    "28": "it refuses our user or password: set DREY_POSTGRES_URL to a role that it knows",
    "3D000": "it has no database of that name: set DREY_POSTGRES_URL to the one of Drey",
    "53100": "its disk is full: free space on the server's volume",
    "53200": "it is out of memory: give the server more, or lower its shared_buffers or work_mem",
    "53300": "it has no free connection: raise its max_connections or the limit of the role",
    "53": "it lacks a resource",
    "57014": "a statement took longer than it may",
    "57P03": "it starts or stops",
    "57": "an operator or a crash ended the session",
    "25006": "it is read-only, a standby perhaps: set DREY_POSTGRES_URL to the primary",
    "25P03": "the session stood still inside a transaction for too long",
    "25P04": "a transaction took longer than it may",
    "55P03": "another session holds what this one waits for",
    "58": "it cannot read or write its files: look at the server's log",
    "08": "the connection was lost",
    "42501": "our role may not do this: run python -m drey_runtime.migrate with --application-role",
}
_UNDONE = "40"


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says that Postgres cannot be used now."""
    return isinstance(error, DreyError) and error.reason == Reason.DATABASE_UNAVAILABLE


@contextmanager
def guard_connection(*used: Pool | Connection) -> Iterator[None]:
    """Translate what the server says about itself to `Unavailable` with DATABASE_UNAVAILABLE.

    That covers refused and lost connections, a server that starts, stops or is read-only, a full
    disk, too little memory, too many connections, a wrong password, a missing grant, and limits of
    time, and a transaction that was undone over another one. Every other error passes as it is.
    `used`: what the body works with, to tell a closed connection from misuse of it.
    """
    try:
        yield
    except DreyError:
        raise
    except Exception as error:
        translated = _translate_error(error, used)
        if translated is None:
            raise
        raise translated from error


def _translate_error(error: Exception, used: Sequence[Pool | Connection]) -> Unavailable | None:
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state.startswith(_UNDONE):
            return Unavailable(
                "the database undid this over another transaction, nothing was done: try again",
                reason=Reason.DATABASE_UNAVAILABLE,
            )
        if state == "42501" and error.context:
            return None  # a trigger of ours refuses: a defect, not a missing grant
        for known_state, meaning in _STATES.items():
            if state.startswith(known_state):
                return _unavailable_database(f"{meaning} ({_describe_error(error)})", state)
        return None
    # An internal error of asyncpg is its state machine in the middle of something, because the
    # connection died: that is of no use any more. It says "closed" as it says misuse.
    closed = any(_is_closed(thing) for thing in used)
    if isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError) or (
        isinstance(error, asyncpg.InterfaceError) and closed
    ):
        return _unavailable_database(f"it cannot be reached: {_describe_error(error)}")
    return None


def _is_closed(thing: Pool | Connection) -> bool:
    try:
        return bool(thing.is_closing() if isinstance(thing, asyncpg.Pool) else thing.is_closed())
    except asyncpg.InterfaceError:
        # a pool takes a connection that died out of its user's hands: nothing can be asked of it
        return True


def _unavailable_database(meaning: str, state: str = "") -> Unavailable:
    return Unavailable(
        f"the database cannot be used: {meaning}; try again in a moment",
        reason=Reason.DATABASE_UNAVAILABLE,
        metadata={"sqlstate": state} if state else None,
    )


def _describe_error(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


async def connect_once(
    url: str,
    *,
    name: str,
    connections: int = 1,
    settings: Mapping[str, str] | None = None,
    **options: Any,
) -> asyncpg.Connection[asyncpg.Record]:
    """A connection to a server that is fit for Drey. SettingsError says what is wrong with it.

    It has to be ours for as long as it lives, not a pooler's: where each transaction gets another
    session, locks, settings and prepared statements are somebody else's. It must not be a
    superuser's, and the server has to let us have as many as we may need, `connections`.
    """
    arguments = {"server_settings": settings or server_settings(name), **options}
    try:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(url, **arguments)
    except asyncpg.ProtocolViolationError as error:
        raise SettingsError(
            "DREY_POSTGRES_URL leads to a connection pooler such as pgbouncer, which refuses the"
            f" settings of our sessions ({_describe_error(error)}): connect to Postgres itself"
        ) from error
    try:
        await _require_session(connection)
        await _require_fit(connection, connections)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _require_session(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Refuse a pooler: it shows in that it has numbers of its own for the server's processes."""
    if await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid():
        raise SettingsError(
            "DREY_POSTGRES_URL leads to a connection pooler such as pgbouncer, which may give each"
            " transaction another session (pool_mode = transaction). Leases, settings and prepared"
            " statements are a session's: connect to Postgres itself"
        )


async def _require_fit(connection: Connection, connections: int) -> None:
    row = await connection.fetchrow(
        "SELECT current_setting('is_superuser') = 'on' AS super, current_user AS role,"
        " current_setting('server_version_num')::int AS version,"
        " current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int AS most,"
        " (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS of_role,"
        " (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS of_database"
    )
    assert row is not None
    if row["super"]:
        raise SettingsError(
            f"DREY_POSTGRES_URL connects as {row['role']}, a superuser, who reads every file of"
            " the server's machine: make roles of Drey's own, docs/how-to/database-roles.md"
        )
    if row["version"] < _OLDEST_SERVER:
        raise SettingsError(
            f"the server is PostgreSQL {row['version'] // 10000}: 16 or later is needed"
        )
    most = min(limit for limit in (row["most"], row["of_role"], row["of_database"]) if limit >= 0)
    if most < connections:
        raise SettingsError(
            f"the server lets {row['role']} have {most} connections, and this process alone may"
            f" need {connections}: raise max_connections, or the limit of the role or database"
        )


async def prepare_connection(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Give a new connection our codecs: `uuid` as text."""
    await connection.set_type_codec(
        "uuid", schema="pg_catalog", encoder=str, decoder=str, format="text"
    )


def server_settings(
    name: str,
    schema_search: Sequence[str] = (),
    *,
    statement_s: float = _STATEMENT_S,
    idle_in_transaction_s: float = _IDLE_IN_TRANSACTION_S,
) -> dict[str, str]:
    """Session settings of every connection: its name for `pg_stat_activity`, no JIT, its schemas.

    The keep-alive settings let the server notice within seconds that our host is gone. The limits
    hold where we do not see to them ourselves any more: a process that was stopped inside a
    transaction does not block the others for ever, and nobody waits longer for a lock than its
    caller would.
    """
    settings = {
        "application_name": name,
        "jit": "off",
        "tcp_keepalives_idle": "2",
        "tcp_keepalives_interval": "1",
        "tcp_keepalives_count": "3",
        "statement_timeout": f"{statement_s * 1000:.0f}",
        "lock_timeout": f"{_LOCK_S * 1000}",
        "idle_in_transaction_session_timeout": f"{idle_in_transaction_s * 1000:.0f}",
    }
    if schema_search:
        settings["search_path"] = ", ".join(f'"{schema}"' for schema in schema_search)
    return settings


async def allow_idle(conn: Connection, seconds: float) -> None:
    """Let the transaction of `conn` stand still so long between two statements, instead of 30 s.

    For one in which much is worked out in memory, in a time that grows with what was asked.
    """
    if seconds > _IDLE_IN_TRANSACTION_S:
        await conn.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', $1, true)",
            f"{seconds * 1000:.0f}",
        )


def _make_pool(
    url: str,
    *,
    name: str,
    schema_search: Sequence[str],
    min_size: int,
    max_size: int,
    command_timeout: float,
    connect_timeout: float,
) -> Pool:
    fit = False

    async def first_checked(*_: Any, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        """The server is looked at once: what the others meet is the same."""
        nonlocal fit
        if fit:
            made: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(url, **options)
            return made
        settings = options.pop("server_settings")
        made = await connect_once(
            url, name=name, connections=max_size, settings=settings, **options
        )
        fit = True
        return made

    pool: Pool = asyncpg.create_pool(
        url,
        connect=first_checked,
        min_size=min_size,
        max_size=max_size,
        command_timeout=command_timeout,
        timeout=connect_timeout,
        max_inactive_connection_lifetime=0,
        server_settings=server_settings(name, schema_search),
        init=prepare_connection,
        reset=_leave_session,
    )
    return pool


async def _leave_session(_: asyncpg.Connection[asyncpg.Record]) -> None:
    """Nothing to undo between two uses: no statement of ours changes a session of the pool.

    By itself asyncpg asks the server to reset the session, a round trip after each use. It has
    rolled back what was left open by now.
    """


@asynccontextmanager
async def open_pool(
    url: str,
    *,
    name: str = "drey",
    schema_search: Sequence[str] = (),
    min_size: int = 1,
    max_size: int = 10,
    command_timeout: float = 10.0,
    connect_timeout: float = 5.0,
) -> AsyncIterator[Pool]:
    """A pool connected now; raises `Unavailable` where Postgres is away. Times in seconds.

    For tools and tests. Services use `Database`, which starts without Postgres too.
    """
    pool = _make_pool(
        url,
        name=name,
        schema_search=schema_search,
        min_size=min_size,
        max_size=max_size,
        command_timeout=command_timeout,
        connect_timeout=connect_timeout,
    )
    with guard_connection(pool):
        await pool
    try:
        yield pool
    finally:
        await _close_pool(pool)


async def _close_pool(pool: Pool) -> None:
    """Close what can be closed in a bounded time, and cut the rest."""
    try:
        async with asyncio.timeout(3):
            await pool.close()
    except TimeoutError:
        pool.terminate()


_seated: ContextVar[Database | None] = ContextVar("seated", default=None)
"""Where the call has a connection within its key's share."""


class Database:
    """A service's way to Postgres: usable from the first moment, ready once Postgres answers.

    `async with Database(url, ...) as db`, with `db.run()` in the service's TaskGroup. While
    Postgres is away every use raises `Unavailable`, `ready` is False, and `run` keeps knocking. A
    server that is not fit (see `connect`) ends `run` with SettingsError, and so the service.
    `checks` run once, upon the first connection (migrations, say); what they raise, other than
    `Unavailable`, ends `run` and so the service.
    The calls of one key have no more than `share` of the connections at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "drey",
        schema_search: Sequence[str] = (),
        min_size: int = 1,
        max_size: int = 10,
        command_timeout: float = 10.0,
        connect_timeout: float = 5.0,
        ping_s: float = 1.0,
        checks: Sequence[Callable[[Connection], Awaitable[None]]] = (),
        share: float = 1.0,
    ) -> None:
        self.url = url
        self._seats = Turns(max_size, max(share, 2 / max_size)) if share < 1 else None
        self.ready = False
        self._ready_event = asyncio.Event()
        self._min_size = min_size
        self._acquire_timeout = connect_timeout
        self._ping_s = ping_s
        self._checks = list(checks)
        # min_size 0 lets the pool exist while there is no server; run() warms it up
        self._pool = _make_pool(
            url,
            name=name,
            schema_search=schema_search,
            min_size=0,
            max_size=max_size,
            command_timeout=command_timeout,
            connect_timeout=connect_timeout,
        )

    async def __aenter__(self) -> Database:
        """Open; does not wait for Postgres."""
        await self._pool
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close every connection, within three seconds."""
        self._set_ready(False)
        await _close_pool(self._pool)

    @property
    def pool(self) -> Pool:
        """The pool itself. Its errors are asyncpg's: use `guard()` around it."""
        return self._pool

    @asynccontextmanager
    async def acquire_connection(self, *, for_all: bool = False) -> AsyncIterator[Connection]:
        """A connection, its errors translated by `guard`. Waits a bounded time for a free one.

        Settings and locks are a transaction's (SET LOCAL, `pg_advisory_xact_lock`), never the
        session's: the next who gets it would have them too.
        `for_all`: others wait for what it is used for, so it is of no key's share.

        It waits too while the server has no connection left for us. Calls to other parts in the
        body must translate their own time-outs and socket errors, or those would be taken for the
        database's.
        """
        async with AsyncExitStack() as seat:
            if not for_all:
                await self._take_seat(seat)
            with guard_connection(self._pool):
                connection = await self._take_connection()
                try:
                    with guard_connection(connection):
                        yield connection
                finally:
                    await self._pool.release(connection)

    async def _take_seat(self, seat: AsyncExitStack) -> None:
        """One of the key's share; a call that has one needs no other for a second connection."""
        holder, before = current_holder.get(), _seated.get()
        if self._seats is None or not holder or before is self:
            return
        try:
            async with asyncio.timeout(self._acquire_timeout):
                await seat.enter_async_context(self._seats.take_turn(holder))
        except TimeoutError as error:
            raise _unavailable_database(
                f"other calls of this key used its share of the connections for"
                f" {self._acquire_timeout:g} s"
            ) from error
        seat.callback(_seated.set, before)
        _seated.set(self)

    async def _take_connection(self) -> PoolConnectionProxy[asyncpg.Record]:
        end = time.monotonic() + self._acquire_timeout
        for attempt in itertools.count():
            try:
                return await self._pool.acquire(timeout=max(end - time.monotonic(), 0.01))
            except asyncpg.TooManyConnectionsError:
                wait = backoff_delay(attempt)
                if time.monotonic() + wait > end:
                    raise
                await asyncio.sleep(wait)
            except TimeoutError as error:
                # where all are open it was one of them that was waited for, even if some are idle
                # by now: who comes next gets those, and the loop may be late
                used = self._pool.get_size()
                if used < self._pool.get_max_size():
                    raise
                raise _unavailable_database(
                    f"all {used} connections of this process were in use for"
                    f" {self._acquire_timeout:g} s"
                ) from error
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def begin_transaction(self, *, isolation: Any = None) -> AsyncIterator[Connection]:
        """A connection inside a transaction: committed at the end, rolled back by an error."""
        async with (
            self.acquire_connection() as connection,
            connection.transaction(isolation=isolation),
        ):
            yield connection

    async def run_reading(self, action: Callable[[Connection], Awaitable[T]]) -> T:
        """Run an action that only reads, again where Postgres was lost, at most four times."""
        for attempt in range(_READ_ATTEMPTS):
            try:
                async with self.acquire_connection() as connection:
                    return await action(connection)
            except Unavailable as error:
                if not is_unavailable(error) or attempt == _READ_ATTEMPTS - 1:
                    raise
            await asyncio.sleep(backoff_delay(attempt))
        raise AssertionError("unreachable")

    async def wait_ready(self, timeout: float) -> None:
        """Return once Postgres answers; `Unavailable` after `timeout` seconds. Needs `run`."""
        with guard_connection():
            async with asyncio.timeout(timeout):
                await self._ready_event.wait()

    async def run(self) -> None:
        """Keep `ready` true to the facts, until cancelled. Raises what a check raises."""
        failures = 0
        while True:
            try:
                await self._ping_server()
            except Unavailable as error:
                if self.ready or failures == 0:
                    _log.warning("database away", extra={"error": error.message})
                self._set_ready(False)
                await asyncio.sleep(backoff_delay(failures))
                failures += 1
                continue
            if not self.ready:
                _log.info("database ready")
            failures = 0
            self._set_ready(True)
            await asyncio.sleep(self._ping_s)

    async def _ping_server(self) -> None:
        async with self.acquire_connection() as connection:
            await connection.fetchval("SELECT 1", timeout=self._acquire_timeout)
            while self._checks:
                await self._checks[0](connection)
                self._checks.pop(0)
        await self._warm_pool()

    async def _warm_pool(self) -> None:
        """Open connections up to `min_size`, side by side, so that no request waits for one."""
        missing = self._min_size - self._pool.get_size()
        if missing > 0:
            await asyncio.gather(*(self._touch_connections() for _ in range(self._min_size)))

    async def _touch_connections(self) -> None:
        async with self.acquire_connection() as connection:
            await connection.fetchval("SELECT 1")

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        if ready:
            self._ready_event.set()
        else:
            self._ready_event.clear()
