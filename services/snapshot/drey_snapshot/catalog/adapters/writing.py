"""Writing a change of the catalogue into Postgres, in bulk, within the caller's transaction."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Sequence
from typing import Any

from drey_runtime.database import Connection
from drey_snapshot.catalog.domain import policy as policies
from drey_snapshot.catalog.domain.draft import Draft
from drey_snapshot.catalog.domain.edit import Changes, Counters
from drey_snapshot.catalog.domain.table import COLUMNS

_SETS = ", ".join(f"{name} = new.{name}" for name in COLUMNS if name not in ("number", "id"))


async def read_counters(conn: Connection) -> Counters:
    """The next numbers; read under the catalogue's lock."""
    row = await conn.fetchrow("SELECT next_pv, next_channel, next_tag FROM catalog.version")
    assert row is not None, "the migration makes this row"
    return Counters(row["next_pv"], row["next_channel"], row["next_tag"])


async def write(conn: Connection, changes: Changes) -> None:
    """Write everything and the new version. The transaction holds the catalogue's lock."""
    if changes.tags_changed:
        await _write_tags(conn, changes)
    if changes.updated:
        # before the inserts: a name that an update frees may be taken by one of them
        await _update(conn, changes.updated)
    if changes.inserted:
        await _copy(conn, "pv", "catalog", COLUMNS, _lines(changes.inserted))
    await _write_channels(conn, changes)
    await conn.execute(
        "UPDATE catalog.version SET version = $1, next_pv = $2, next_channel = $3, next_tag = $4,"
        " tags_version = CASE WHEN $5 THEN $1 ELSE tags_version END",
        changes.version,
        changes.counters.pv,
        changes.counters.channel,
        changes.counters.tag,
        changes.tags_changed,
    )


async def _update(conn: Connection, drafts: Sequence[Draft]) -> None:
    await conn.execute(
        "CREATE TEMPORARY TABLE pv_new (LIKE catalog.pv INCLUDING DEFAULTS) ON COMMIT DROP"
    )
    await _copy(conn, "pv_new", None, COLUMNS, _lines(drafts))
    # names are made free first, by ones that nobody can have: two PVs may exchange theirs
    await conn.execute(
        "UPDATE catalog.pv SET name = chr(1) || pv.number FROM pv_new AS new"
        " WHERE pv.number = new.number AND pv.delete_time_ns = 0"
        " AND (pv.name <> new.name OR new.delete_time_ns <> 0)"
    )
    await conn.execute(
        f"UPDATE catalog.pv SET {_SETS} FROM pv_new AS new WHERE pv.number = new.number"
    )
    await conn.execute("DROP TABLE pv_new")


async def _write_channels(conn: Connection, changes: Changes) -> None:
    if changes.retired:
        await conn.execute(
            "UPDATE catalog.channel SET retire_time_ns = $2 WHERE number = ANY($1::bigint[])",
            changes.retired,
            changes.now_ns,
        )
    if changes.revived:
        await conn.execute(
            "UPDATE catalog.channel SET retire_time_ns = 0 WHERE number = ANY($1::bigint[])",
            changes.revived,
        )
    if changes.channels:
        await conn.copy_records_to_table(
            "channel",
            schema_name="catalog",
            columns=("number", "pv_number", "role", "address", "protocol", "create_time_ns"),
            records=[(*channel, changes.now_ns) for channel in changes.channels],
        )


async def _write_tags(conn: Connection, changes: Changes) -> None:
    if changes.dropped_tags:
        await conn.execute(
            "DELETE FROM catalog.tag WHERE number = ANY($1::integer[])", changes.dropped_tags
        )
    if changes.dropped_groups:
        await conn.execute(
            "DELETE FROM catalog.tag_group WHERE id = ANY($1::uuid[])", changes.dropped_groups
        )
    await conn.executemany(
        "INSERT INTO catalog.tag_group (id, name, folded, description, version)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE SET name = excluded.name,"
        " folded = excluded.folded, description = excluded.description,"
        " version = excluded.version",
        [(g.id, g.name, g.name.casefold(), g.description, g.version) for g in changes.groups],
    )
    await conn.executemany(
        "INSERT INTO catalog.tag (number, id, group_id, name, folded) VALUES ($1, $2, $3, $4, $5)",
        [(t.number, t.id, group, t.name, t.name.casefold()) for group, t in changes.new_tags],
    )
    await conn.executemany(
        "UPDATE catalog.tag SET name = $2, folded = $3 WHERE number = $1",
        [(t.number, t.name, t.name.casefold()) for t in changes.renamed_tags],
    )


async def _copy(
    conn: Connection,
    table: str,
    schema: str | None,
    columns: Sequence[str],
    lines: Iterable[str],
) -> None:
    """COPY in text form: the binary form would need an encoder for each type in Python."""
    # in a thread: for a whole machine this is a tenth of a second that the loop would stand still
    source = io.BytesIO(await asyncio.to_thread(lambda: "".join(lines).encode()))
    await conn.copy_to_table(
        table, schema_name=schema, columns=list(columns), source=source, format="text"
    )


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _text(text: str) -> str:
    # two quick looks, for nearly no text needs more
    plain = text.isprintable() and "\\" not in text
    return text if plain else text.translate(_ESCAPES)


def _policy(draft: Draft) -> str:
    said = policies.to_json(draft.policy)
    return _text(said) if said else "\\N"


def _lines(drafts: Iterable[Draft]) -> Iterable[str]:
    """One line of COPY's text form a PV, columns in the order of `COLUMNS`."""
    arrays: dict[tuple[int, ...], str] = {}
    known_policies: dict[Any, str] = {}
    for d in drafts:
        tags = arrays.get(d.tags)
        if tags is None:
            tags = arrays[d.tags] = "{" + ",".join(map(str, d.tags)) + "}"
        policy = known_policies.get(d.policy)
        if policy is None:
            policy = known_policies[d.policy] = _policy(d)
        yield (
            f"{d.number}\t{d.id}\t{_text(d.name)}\t{_text(d.device)}\t{_text(d.description)}\t"
            f"{d.protocol}\t{'t' if d.read_only else 'f'}\t{d.setpoint_channel}\t"
            f"{d.readback_channel}\t{_text(d.setpoint_address)}\t{_text(d.readback_address)}\t"
            f"{d.setpoint_absolute!r}\t{d.setpoint_relative!r}\t{d.readback_absolute!r}\t"
            f"{d.readback_relative!r}\t{policy}\t{tags}\t{d.version}\t{d.create_time_ns}\t"
            f"{d.update_time_ns}\t{d.delete_time_ns}\n"
        )
