"""Asks the parts of the system how they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from drey_core.errors import DreyError, Unavailable, error_text
from drey_runtime.bus import Bus
from drey_runtime.database import Connection, Database, connect_once, guard_connection
from drey_runtime.image import Image
from drey_runtime.nats_client import NatsError

_DEADLINE_S = 1.0
_ENTRY_S = 0.6
_FULL = 0.9
"""Share of its limit that a Redis which evicts uses when it is full."""
_LOOK_DEEPER_S = 5.0
Probe = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class PartReport:
    """What one probe found. `latency_ns` 0: no answer."""

    name: str
    up: bool
    detail: str
    latency_ns: int


def probe_postgres(db: Database) -> Probe:
    """Answers with the server's version. One that takes no writes is not up: nothing is kept.

    Nor is one that answers on the connections that there are and takes no others, as when its
    first process stands still, nor one whose disk is full. That is looked for each five seconds,
    and after trouble each time.
    """
    next_look = 0.0

    async def probe_once() -> str:
        nonlocal next_look
        version = await ask_server()
        if time.monotonic() >= next_look:
            next_look = 0.0
            await _look_for_room(db)
            await _look_for_entry(db)
            next_look = time.monotonic() + _LOOK_DEEPER_S
        return version

    async def ask_server() -> str:
        async def ask(conn: Connection) -> str:
            version: str = await conn.fetchval("SHOW server_version", timeout=_DEADLINE_S)
            if await conn.fetchval("SHOW transaction_read_only", timeout=_DEADLINE_S) == "on":
                raise Unavailable(
                    "it answers, but is read-only, a standby perhaps: set DREY_POSTGRES_URL to the"
                    " primary"
                )
            return f"PostgreSQL {version}"

        async with db.acquire_connection() as conn:
            return await ask(conn)

    return probe_once


async def _look_for_room(db: Database) -> None:
    """Have the server write a temporary file of half a megabyte, which a full disk refuses."""

    async def spill(conn: Connection) -> None:
        async with conn.transaction():
            await conn.execute("SET LOCAL work_mem = '64kB'")
            await conn.execute("SELECT count(*) FROM generate_series(1, 20000)")

    async with db.acquire_connection() as conn:
        await spill(conn)


async def _look_for_entry(db: Database) -> None:
    """Open a connection, and end it. Raises `Unavailable`."""
    try:
        with guard_connection():
            connection = await connect_once(db.url, name="drey-probe", timeout=_ENTRY_S)
            connection.terminate()
    except Unavailable as error:
        raise Unavailable(
            f"it answers on the connections that there are, and takes no new one within"
            f" {_ENTRY_S:g} s ({error.message}): look whether its first process stands still"
            " or its host is overloaded, and at its max_connections"
        ) from error


def probe_nats(bus: Bus) -> Probe:
    """A round trip to the server."""

    async def probe_once() -> str:
        if not bus.connected:
            raise Unavailable("not connected")
        try:
            await bus.nc.flush(timeout=1)
        except (NatsError, OSError) as error:
            raise Unavailable(error_text(error)) from error
        version = bus.nc.connected_server_version
        return f"NATS {version.major}.{version.minor}.{version.patch}"

    return probe_once


def probe_redis(image: Image) -> Probe:
    """A ping. One that has no memory left for what it is to keep is not up, nor one that is full
    and has evicted keys since the last look.
    """
    evicted_before: int | None = None

    async def probe_once() -> str:
        nonlocal evicted_before
        memory = await image.memory()
        evicted = memory.evicted_keys - (evicted_before or 0)
        looked_before, evicted_before = evicted_before is not None, memory.evicted_keys
        if memory.policy == "noeviction":
            lacks, does = memory.most and memory.used >= memory.most, "refuses writes"
        else:
            # it keeps itself a little below the limit
            lacks = looked_before and evicted > 0 and memory.used >= memory.most * _FULL
            does = f"has evicted {evicted} keys since the last look"
        if lacks:
            raise Unavailable(
                f"it answers, and {does}: {memory.used / 1e6:.1f} of {memory.most / 1e6:.1f} MB are"
                f" used (maxmemory, {memory.policy}). Give it more, or take away what is not"
                " Drey's; the image is written again by itself"
            )
        return "answers"

    return probe_once


def probe_service(channel: grpc.aio.Channel, service: str) -> Probe:
    """The health check of one of its services."""
    stub: Any = health_pb2_grpc.HealthStub(channel)

    async def probe_once() -> str:
        try:
            health = await stub.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=_DEADLINE_S
            )
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{error.code().name.lower()}: {error.details()}") from error
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable("it runs, but is not ready to serve")
        return "serving"

    return probe_once


async def _ask_part(name: str, probe: Probe) -> PartReport:
    begin = time.perf_counter_ns()
    try:
        async with asyncio.timeout(_DEADLINE_S):
            detail = await probe()
    except DreyError as error:
        return PartReport(name, False, error.message, 0)
    except TimeoutError:
        return PartReport(name, False, f"no answer within {_DEADLINE_S:.0f} s", 0)
    return PartReport(name, True, detail, max(time.perf_counter_ns() - begin, 1))


class Probes:
    """All parts, asked side by side; what was found holds for half a second."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = dict(sorted(probes.items()))
        self._found: list[PartReport] = []
        self._at = 0.0
        self._lock = asyncio.Lock()

    async def ask_parts(self) -> list[PartReport]:
        """Parts by name; at most a second."""
        async with self._lock:
            if not self._found or time.monotonic() - self._at > 0.5:
                asked = (_ask_part(name, probe) for name, probe in self._probes.items())
                self._found = list(await asyncio.gather(*asked))
                self._at = time.monotonic()
            return self._found
