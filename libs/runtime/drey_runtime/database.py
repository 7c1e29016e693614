"""PostgreSQL: a pool that outlives the server's restarts, and its errors as ours.

Ids travel as text (`uuid` columns are `str`), times as `int` nanoseconds. Nothing here retries a
write whose outcome is unknown: only reads, and transactions that Postgres itself says it rolled
back, are repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from drey_core.errors import DreyError, Reason, Unavailable
from drey_runtime.backoff import backoff

Record: TypeAlias = asyncpg.Record
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
T = TypeVar("T")

_log = logging.getLogger(__name__)

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.QueryCanceledError,
    OSError,
    TimeoutError,
)
_ROLLED_BACK = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_READ_ATTEMPTS = 4


def _is_away(error: BaseException) -> bool:
    if isinstance(error, _AWAY):
        return True
    # a connection that dies between two messages leaves asyncpg's state machine in the middle
    if isinstance(error, asyncpg.InternalClientError):
        return "cannot switch to state" in str(error)
    # asyncpg says both "closed" and misuse of the API with InterfaceError: only the first is ours
    return isinstance(error, asyncpg.InterfaceError) and "clos" in str(error)


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says that Postgres cannot be reached now."""
    return isinstance(error, DreyError) and error.reason == Reason.DATABASE_UNAVAILABLE


@contextmanager
def guard() -> Iterator[None]:
    """Translate losing Postgres in the body to `Unavailable` with DATABASE_UNAVAILABLE.

    That covers refused and lost connections, a server that starts or stops, too many
    connections and commands that ran into their time limit. Every other error passes as it is.
    """
    try:
        yield
    except DreyError:
        raise
    except Exception as error:
        if _is_away(error):
            raise Unavailable(
                f"the database cannot be reached: {_describe(error)}; try again in a moment",
                reason=Reason.DATABASE_UNAVAILABLE,
            ) from error
        raise


def _describe(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


async def prepare_connection(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Give a new connection our codecs: `uuid` as text."""
    await connection.set_type_codec(
        "uuid", schema="pg_catalog", encoder=str, decoder=str, format="text"
    )


def server_settings(name: str, schema_search: Sequence[str] = ()) -> dict[str, str]:
    """Session settings of every connection: its name for `pg_stat_activity`, no JIT, its schemas.

    The keep-alive settings let the server notice within seconds that our host is gone.
    """
    settings = {
        "application_name": name,
        "jit": "off",
        "tcp_keepalives_idle": "2",
        "tcp_keepalives_interval": "1",
        "tcp_keepalives_count": "3",
    }
    if schema_search:
        settings["search_path"] = ", ".join(f'"{schema}"' for schema in schema_search)
    return settings


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
    pool: Pool = asyncpg.create_pool(
        url,
        min_size=min_size,
        max_size=max_size,
        command_timeout=command_timeout,
        timeout=connect_timeout,
        max_inactive_connection_lifetime=0,
        server_settings=server_settings(name, schema_search),
        init=prepare_connection,
    )
    return pool


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
    with guard():
        await pool
    try:
        yield pool
    finally:
        await _close(pool)


async def _close(pool: Pool) -> None:
    """Close what can be closed in a bounded time, and cut the rest."""
    try:
        async with asyncio.timeout(3):
            await pool.close()
    except TimeoutError:
        pool.terminate()


class Database:
    """A service's way to Postgres: usable from the first moment, ready once Postgres answers.

    `async with Database(url, ...) as db`, with `db.run()` in the service's TaskGroup. While
    Postgres is away every use raises `Unavailable`, `ready` is False, and `run` keeps knocking.
    `checks` run once, upon the first connection (migrations, say); what they raise, other than
    `Unavailable`, ends `run` and so the service.
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
    ) -> None:
        self.url = url
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
        await _close(self._pool)

    @property
    def pool(self) -> Pool:
        """The pool itself. Its errors are asyncpg's: use `guard()` around it."""
        return self._pool

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection, its errors translated by `guard`. Waits a bounded time for a free one.

        Calls to other parts in the body must translate their own time-outs and socket errors, or
        those would be taken for the database's.
        """
        with guard():
            async with self._pool.acquire(timeout=self._acquire_timeout) as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self, *, isolation: Any = None) -> AsyncIterator[Connection]:
        """A connection inside a transaction: committed at the end, rolled back by an error."""
        async with self.acquire() as connection, connection.transaction(isolation=isolation):
            yield connection

    async def read(self, action: Callable[[Connection], Awaitable[T]]) -> T:
        """Run an action that only reads, again where Postgres was lost, at most four times."""
        for attempt in range(_READ_ATTEMPTS):
            try:
                async with self.acquire() as connection:
                    return await action(connection)
            except Unavailable as error:
                if not is_unavailable(error) or attempt == _READ_ATTEMPTS - 1:
                    raise
            await asyncio.sleep(backoff(attempt))
        raise AssertionError("unreachable")

    async def write(self, action: Callable[[Connection], Awaitable[T]]) -> T:
        """Run an action in a transaction, again where Postgres rolled it back over another one.

        A lost connection is not repeated: whether the commit took place is unknown then.
        """
        for attempt in range(_READ_ATTEMPTS):
            try:
                async with self.transaction() as connection:
                    return await action(connection)
            except _ROLLED_BACK:
                if attempt == _READ_ATTEMPTS - 1:
                    raise
            await asyncio.sleep(backoff(attempt))
        raise AssertionError("unreachable")

    async def wait_ready(self, timeout: float) -> None:
        """Return once Postgres answers; `Unavailable` after `timeout` seconds. Needs `run`."""
        with guard():
            async with asyncio.timeout(timeout):
                await self._ready_event.wait()

    async def run(self) -> None:
        """Keep `ready` true to the facts, until cancelled. Raises what a check raises."""
        failures = 0
        while True:
            try:
                await self._ping()
            except Unavailable as error:
                if self.ready or failures == 0:
                    _log.warning("database away", extra={"error": error.message})
                self._set_ready(False)
                await asyncio.sleep(backoff(failures))
                failures += 1
                continue
            if not self.ready:
                _log.info("database ready")
            failures = 0
            self._set_ready(True)
            await asyncio.sleep(self._ping_s)

    async def _ping(self) -> None:
        async with self.acquire() as connection:
            await connection.fetchval("SELECT 1", timeout=self._acquire_timeout)
            while self._checks:
                await self._checks[0](connection)
                self._checks.pop(0)
        await self._warm()

    async def _warm(self) -> None:
        """Open connections up to `min_size`, side by side, so that no request waits for one."""
        missing = self._min_size - self._pool.get_size()
        if missing > 0:
            await asyncio.gather(*(self._touch() for _ in range(self._min_size)))

    async def _touch(self) -> None:
        async with self.acquire() as connection:
            await connection.fetchval("SELECT 1")

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        if ready:
            self._ready_event.set()
        else:
            self._ready_event.clear()
