"""API keys as a table."""

from __future__ import annotations

from collections.abc import Iterable

from drey_cli.contracts import access_pb2
from drey_cli.render.table import Cell, Field, Table, table_of, text_field
from drey_cli.render.times import format_time


def keys_table(keys: Iterable[access_pb2.Key], *, utc: bool) -> Table:
    """One line a key."""

    def end_cell(key: access_pb2.Key) -> Cell | str:
        if key.HasField("revoke_time"):
            return Cell(f"revoked {format_time(key.revoke_time.ToNanoseconds(), utc=utc)}", "red")
        return format_time(key.expire_time.ToNanoseconds(), utc=utc)

    return table_of(
        keys,
        text_field(
            "holder",
            lambda key: Cell(key.name, "dim strike" if key.HasField("revoke_time") else ""),
        ),
        text_field("roles", lambda key: ", ".join(grant.role for grant in key.grants), fold=True),
        text_field("begins with", lambda key: f"{key.prefix}…"),
        text_field("created", lambda key: format_time(key.create_time.ToNanoseconds(), utc=utc)),
        text_field("by", lambda key: key.created_by),
        text_field("expires", end_cell),
        text_field("id", lambda key: key.id),
    )


def roles_table(roles: Iterable[access_pb2.Role], *, permissions: bool) -> Table:
    """One line a role; with its permissions where they are asked for."""
    fields: list[Field[access_pb2.Role]] = [
        text_field("role", lambda role: role.name),
        text_field("what it is for", lambda role: role.description, fold=True),
    ]
    if permissions:
        fields.append(text_field("permissions", lambda role: " ".join(role.permissions), fold=True))
    return table_of(roles, *fields)
