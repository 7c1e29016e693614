"""Reading the catalog out of Postgres, as columns."""

from __future__ import annotations

from typing import Any, NamedTuple

from drey_runtime.database import Connection
from drey_snapshot.catalog.domain import policy as policies
from drey_snapshot.catalog.domain.default_policies import DefaultPolicy, PolicyBook
from drey_snapshot.catalog.domain.pages import last_page
from drey_snapshot.catalog.domain.table import COLUMNS, PvTable
from drey_snapshot.catalog.domain.tags import (
    Tag,
    TagBook,
    TagGroup,
    TagTombstone,
    order_groups,
    tags_ordered,
)

_CHUNK = 100_000
_EXPRESSIONS = {
    "id": "id::text",
    "policy": "coalesce(policy::text, '')",
    "tags": "array_to_string(tags, ',')",
}
# One array a column: asyncpg decodes them without an object a row.
_ARRAYS = ", ".join(
    f"coalesce(array_agg({_EXPRESSIONS.get(name, name)} ORDER BY number), '{{}}') AS {name}"
    for name in COLUMNS
)


class CatalogVersions(NamedTuple):
    """The version of the catalog, and those in which its tags and policies last changed."""

    version: int
    tags: int
    policies: int


async def read_version(conn: Connection, *, lock: bool = False) -> CatalogVersions:
    """The versions; with `lock` no other transaction changes the catalog till commit.

    Waits for the lock as long as the command's time limit allows.
    """
    suffix = " FOR UPDATE" if lock else ""
    row = await conn.fetchrow(
        "SELECT version, tags_version, policies_version FROM catalog.version" + suffix
    )
    assert row is not None, "the migration makes this row"
    return CatalogVersions(*row)


async def read_last_page(conn: Connection) -> int:
    """Number of the last page on which a channel number was ever given out; 0 where none was."""
    row = await conn.fetchrow("SELECT next_setpoint, next_readback FROM catalog.version")
    assert row is not None, "the migration makes this row"
    return last_page(*row)


async def read_changed(conn: Connection, since: int, until: int) -> PvTable:
    """PVs whose version lies in (since, until], tombstones included, ordered by number."""
    where = "version > $1 AND version <= $2" if since else "version <= $2 AND $1 = 0"
    if not since:
        where += " AND delete_time_ns = 0"
    return await _read_pvs(conn, where, since, until)


async def read_pv(conn: Connection, id: str) -> PvTable:
    """The PV of an id, living or not; no row where there is none."""
    return await _read_pvs(conn, "id = $1::uuid", id)


async def read_tombstones(conn: Connection) -> PvTable:
    """All deleted PVs."""
    return await _read_pvs(conn, "delete_time_ns <> 0")


async def _read_pvs(conn: Connection, where: str, *arguments: object) -> PvTable:
    """PVs by a condition, a chunk of numbers at a time to bound the size of one answer."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    after, place = 0, len(arguments) + 1
    while True:
        row = await conn.fetchrow(
            f"SELECT {_ARRAYS} FROM (SELECT * FROM catalog.pv WHERE number > ${place} AND {where}"
            f" ORDER BY number LIMIT {_CHUNK}) AS chunk",
            *arguments,
            after,
        )
        assert row is not None, "an aggregate has one row"
        for name in COLUMNS:
            columns[name] += row[name]
        if len(row["number"]) < _CHUNK:
            break
        after = row["number"][-1]
    columns["tags"] = _split_tags(columns["tags"])
    columns["policy"] = list(map(policies.from_json, columns["policy"]))
    return PvTable.table_of_columns(columns)


def _split_tags(texts: list[str]) -> list[tuple[int, ...]]:
    """Numbers out of `1,2,3`; equal texts share one tuple, for there are few combinations."""
    made: dict[str, tuple[int, ...]] = {"": ()}
    for text in set(texts):
        if text:
            made[text] = tuple(map(int, text.split(",")))
    return [made[text] for text in texts]


async def read_tags(conn: Connection, version: int) -> TagBook:
    """All groups and tags."""
    groups = await conn.fetch("SELECT id::text, name, description, version FROM catalog.tag_group")
    tags = await conn.fetch("SELECT number, id::text, group_id::text, name FROM catalog.tag")
    members: dict[str, list[Tag]] = {}
    for row in tags:
        members.setdefault(row["group_id"], []).append(Tag(row["number"], row["id"], row["name"]))
    return TagBook(
        version,
        order_groups(
            TagGroup(
                row["id"],
                row["name"],
                row["description"],
                row["version"],
                tags_ordered(members.get(row["id"], [])),
            )
            for row in groups
        ),
    )


async def read_policies(conn: Connection, version: int, old: PolicyBook) -> PolicyBook:
    """All policies by device and by tag; what has not changed since `old` is not read again."""
    rows = await conn.fetch(
        "SELECT id::text, device, tag, policy::text, comment, principal, role, version,"
        " create_time_ns, update_time_ns FROM catalog.default_policy WHERE version > $1",
        old.version,
    )
    by_id = old.by_id | {
        row["id"]: DefaultPolicy(**{**row, "policy": policies.from_json(row["policy"])})
        for row in rows
    }
    ids = await conn.fetch("SELECT id::text FROM catalog.default_policy ORDER BY id")
    return PolicyBook(version, tuple(by_id[id] for (id,) in ids))


async def read_tag_tombstones(conn: Connection, id: str | None = None) -> list[TagTombstone]:
    """Deleted groups and tags: those of an id, as tag or as group with its tags, or all."""
    rows = await conn.fetch(
        "SELECT id::text, group_id::text, number, name, description, pvs, delete_time_ns"
        " FROM catalog.tag_tombstone WHERE $1::uuid IS NULL OR id = $1 OR group_id = $1",
        id,
    )
    return [TagTombstone(**{**row, "pvs": tuple(row["pvs"])}) for row in rows]
