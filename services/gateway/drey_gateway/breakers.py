"""What administrators say of the circuit breakers of IOCs: kept in Postgres, told on NATS."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from drey.events.v1.instances_pb2 import BreakersForced
from drey_core.breaker import AUTOMATIC
from drey_core.errors import ResourceExhausted, Unavailable
from drey_gateway.domain.instances import Override
from drey_gateway.mapping_system import breakers_forced
from drey_runtime import audit
from drey_runtime.auth import Principal
from drey_runtime.bus import Bus
from drey_runtime.clock import now_ns
from drey_runtime.database import Connection, Database

log = logging.getLogger(__name__)

_TELL_S = 2.0
_DEADLINE_S = 1.0
MAX_LIST_BYTES = 512 << 10
"""Of the list as it is told, which is one message: NATS takes 1 MiB where nobody has set more."""


class BreakerOverrides:
    """Those that are held, in memory as Postgres had them last; told again each two seconds.

    While Postgres is away what was last read goes on to be told.
    """

    def __init__(self, db: Database, bus: Bus) -> None:
        self._db, self._bus = db, bus
        self._every: list[Override] = []
        self._news = asyncio.Event()

    @property
    def held_overrides(self) -> list[Override]:
        """Those that are held now."""
        return [each for each in self._every if each.mode != AUTOMATIC]

    async def force_breaker(self, override: Override, principal: Principal) -> Override:
        """Keep it, and have it told at once. Setting what is set already does nothing.

        Raises `ResourceExhausted` when all that are held are more than can be told.
        """
        async with self._db.begin_transaction() as conn:
            # one after the other, so that the time of the last change grows
            await conn.execute("LOCK TABLE access.breaker IN SHARE ROW EXCLUSIVE MODE")
            every = {each.ioc: each for each in await _read_overrides(conn)}
            old = every.get(override.ioc)
            mode = old.mode if old else AUTOMATIC
            if old is not None and (mode, old.reason) == (override.mode, override.reason):
                return old
            every[override.ioc] = override
            if override.mode != AUTOMATIC:
                _require_tellable([each for each in every.values() if each.mode != AUTOMATIC])
            await conn.execute(
                "INSERT INTO access.breaker (ioc, mode, reason, principal, roles, time_ns)"
                " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (ioc) DO UPDATE SET"
                " mode = $2, reason = $3, principal = $4, roles = $5, time_ns = $6",
                override.ioc,
                override.mode,
                override.reason,
                override.principal,
                override.roles,
                override.time_ns,
            )
            await audit.append_entry(
                conn,
                audit.AuditedAct(
                    actor=principal.name,
                    role=principal.roles_text,
                    action="system.breaker.force",
                    object=f"iocs/{override.ioc}",
                    before={"mode": mode},
                    after={"mode": override.mode, "reason": override.reason},
                    at_ns=override.time_ns,
                    request_id=principal.request_id,
                ),
                events=(),
            )
        self._news.set()
        return override

    async def run(self) -> None:
        """Read and tell, for ever."""
        while True:
            self._news.clear()
            with suppress(Unavailable):
                self._every = await self._db.run_reading(_read_overrides)
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_DEADLINE_S):
                    await self._bus.publish(
                        self._bus.full_subject("breakers"),
                        self._list_overrides().SerializeToString(),
                    )
            with suppress(TimeoutError):
                async with asyncio.timeout(_TELL_S):
                    await self._news.wait()

    def _list_overrides(self) -> BreakersForced:
        return breakers_forced(
            self.held_overrides, max((each.time_ns for each in self._every), default=0)
        )


def _require_tellable(held: list[Override]) -> None:
    size = breakers_forced(held, 0).ByteSize()
    if size > MAX_LIST_BYTES:
        raise ResourceExhausted(
            f"{len(held)} breakers would be held, with {size} bytes of addresses and reasons; at"
            f" most {MAX_LIST_BYTES} can be told to all processes: let some be automatic again, or"
            " give shorter reasons",
            metadata={"limit": str(MAX_LIST_BYTES), "scope": "breakers"},
        )


async def _read_overrides(conn: Connection) -> list[Override]:
    rows = await conn.fetch(
        "SELECT ioc, mode, reason, principal, roles, time_ns FROM access.breaker ORDER BY ioc"
    )
    return [Override(**dict(row)) for row in rows]


def override_of(ioc: str, mode: int, reason: str, principal: Principal) -> Override:
    """What a principal says now."""
    return Override(ioc, mode, reason, principal.name, principal.roles_text, now_ns())
