"""API keys as a table."""

from __future__ import annotations

from collections.abc import Iterable

from drey_cli.contracts import access_pb2
from drey_cli.render.table import Cell, Column, Table
from drey_cli.render.times import format_time


def keys_table(keys: Iterable[access_pb2.Key], *, utc: bool) -> Table:
    """One line a key."""
    table = Table(
        (
            Column("holder"),
            Column("roles"),
            Column("begins with"),
            Column("created"),
            Column("by"),
            Column("expires"),
            Column("id"),
        )
    )
    for key in keys:
        revoked = key.HasField("revoke_time")
        table.add(
            Cell(key.name, "dim strike" if revoked else ""),
            ", ".join(grant.role for grant in key.grants),
            f"{key.prefix}…",
            format_time(key.create_time.ToNanoseconds(), utc=utc),
            key.created_by,
            Cell(f"revoked {format_time(key.revoke_time.ToNanoseconds(), utc=utc)}", "red")
            if revoked
            else format_time(key.expire_time.ToNanoseconds(), utc=utc),
            key.id,
        )
    return table


def roles_table(roles: Iterable[access_pb2.Role], *, permissions: bool) -> Table:
    """One line a role; with its permissions where they are asked for."""
    columns = [Column("role"), Column("what it is for", fold=True)]
    table = Table((*columns, Column("permissions", fold=True)) if permissions else tuple(columns))
    for role in roles:
        more = [" ".join(role.permissions)] if permissions else []
        table.add(role.name, role.description, *more)
    return table
