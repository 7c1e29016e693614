"""API keys in Postgres: schema `access`."""

from __future__ import annotations

import asyncpg

from drey_core.errors import AlreadyExists, FailedPrecondition, NotFound, Reason
from drey_core.permissions import ADMIN
from drey_core.principal import LimitedRole
from drey_gateway.domain.keys import Key
from drey_runtime.database import Connection, Record

_COLUMNS = (
    "id, name, roles, prefix, secret_sha256, create_time_ns, expire_time_ns, revoke_time_ns,"
    " created_by, some_roles, some_selectors"
)
_LIVING = "revoke_time_ns = 0 AND (expire_time_ns = 0 OR expire_time_ns > $1)"
# Whoever makes or ends admin keys does so one after the other, so that the last one is seen.
_LOCK = 0x64726579_6B657973  # "dreykeys"


def _to_key(row: Record) -> Key:
    fields = dict(row)
    fields["roles"] = tuple(fields["roles"])
    pairs = zip(fields.pop("some_roles"), fields.pop("some_selectors"), strict=True)
    return Key(**fields, limited=tuple(LimitedRole(*pair) for pair in pairs))


async def all_keys(conn: Connection) -> list[Key]:
    """Every key, dead ones too: they are told apart from unknown ones."""
    return [_to_key(row) for row in await conn.fetch(f"SELECT {_COLUMNS} FROM access.key")]


async def page_of_keys(
    conn: Connection, after: tuple[str, str], limit: int, include_dead: bool, now_ns: int
) -> list[Key]:
    """Keys after (name, id), by name."""
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM access.key WHERE (name, id::text) > ($2, $3)"
        f" AND ($4 OR ({_LIVING})) ORDER BY name, id::text LIMIT $5",
        now_ns,
        *after,
        include_dead,
        limit,
    )
    return [_to_key(row) for row in rows]


async def insert_key(conn: Connection, key: Key) -> None:
    """Add a key in the caller's transaction. AlreadyExists where its name is taken.

    A key of the same name that has expired is revoked: names are unique among the living.
    """
    await conn.execute(
        "UPDATE access.key SET revoke_time_ns = $2 WHERE name = $1 AND revoke_time_ns = 0"
        " AND expire_time_ns <> 0 AND expire_time_ns <= $2",
        key.name,
        key.create_time_ns,
    )
    try:
        await conn.execute(
            f"INSERT INTO access.key ({_COLUMNS}) VALUES"
            " ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            key.id,
            key.name,
            list(key.roles),
            key.prefix,
            key.secret_sha256,
            key.create_time_ns,
            key.expire_time_ns,
            key.revoke_time_ns,
            key.created_by,
            [grant.role for grant in key.limited],
            [grant.selector for grant in key.limited],
        )
    except asyncpg.UniqueViolationError as error:
        raise AlreadyExists(
            f"a key of {key.name!r} is there already; revoke it first or choose another name",
            field="name",
            metadata={"resource": "key", "name": key.name},
        ) from error


async def living_admins(conn: Connection, now_ns: int) -> int:
    """How many admin keys let somebody in; holds off others that count until the commit."""
    await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    count: int = await conn.fetchval(
        f"SELECT count(*) FROM access.key WHERE $2 = ANY (roles) AND {_LIVING}", now_ns, ADMIN
    )
    return count


async def revoke_key(conn: Connection, key_id: str, now_ns: int) -> tuple[Key, bool]:
    """(the key, revoked; whether it is only now), in the caller's transaction.

    NotFound; FailedPrecondition (PROTECTED) for the last admin key that lets somebody in.
    """
    admins = await living_admins(conn, now_ns)
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM access.key WHERE id = $1 FOR UPDATE", key_id)
    if row is None:
        raise NotFound(f"no key {key_id}", field="id", metadata={"resource": "key", "id": key_id})
    key = _to_key(row)
    if key.revoke_time_ns:
        return key, False
    if ADMIN in key.roles and key.is_alive(now_ns) and admins <= 1:
        raise FailedPrecondition(
            f"{key.name!r} is the last admin key; make another one first",
            reason=Reason.PROTECTED,
            field="id",
        )
    changed = await conn.fetchrow(
        f"UPDATE access.key SET revoke_time_ns = $2 WHERE id = $1 RETURNING {_COLUMNS}",
        key_id,
        now_ns,
    )
    assert changed is not None
    return _to_key(changed), True
