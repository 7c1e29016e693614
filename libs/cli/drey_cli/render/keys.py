"""API keys as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from drey_cli.render.enums import short_name
from drey_cli.render.table import Cell, Column, Table
from drey_cli.render.times import format_time

if TYPE_CHECKING:
    from drey.access.v1 import access_pb2


def keys_table(keys: Iterable[access_pb2.Key], *, utc: bool) -> Table:
    """One line a key."""
    from drey.common.v1 import annotations_pb2

    table = Table(
        (
            Column("holder"),
            Column("role"),
            Column("begins with"),
            Column("created"),
            Column("by"),
            Column("expires"),
            Column("id"),
        )
    )
    for key in keys:
        revoked = bool(key.revoke_time_ns)
        table.add(
            Cell(key.name, "dim strike" if revoked else ""),
            short_name(annotations_pb2.Role, key.role),
            f"{key.prefix}…",
            format_time(key.create_time_ns, utc=utc),
            key.created_by,
            Cell(f"revoked {format_time(key.revoke_time_ns, utc=utc)}", "red")
            if revoked
            else format_time(key.expire_time_ns, utc=utc),
            key.id,
        )
    return table
