"""Writing a change of the catalog into Postgres, in bulk, within the caller's transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT
from drey_core.pv_table import Policy
from drey_runtime.database import Connection
from drey_snapshot.catalog.domain import policy as policies
from drey_snapshot.catalog.domain.changes import Changes, Counters
from drey_snapshot.catalog.domain.draft import Draft, table_of
from drey_snapshot.catalog.domain.table import COLUMNS, PvTable

T = TypeVar("T")
_LINES = 5000
_STATEMENT_ROWS = 50_000
"""Rows of one statement, so that none takes longer the larger the site is: each has a limit."""
_CHANNEL = ("number", "pv_number", "role", "address", "protocol", "create_time_ns")

_SETS = ", ".join(f"{name} = new.{name}" for name in COLUMNS if name not in ("number", "id"))


async def read_counters(conn: Connection) -> Counters:
    """The next numbers; read under the catalog's lock."""
    row = await conn.fetchrow(
        "SELECT next_pv, next_setpoint, next_readback, next_tag FROM catalog.version"
    )
    assert row is not None, "the migration makes this row"
    return Counters(*row)


async def write_changes(conn: Connection, changes: Changes) -> None:
    """Write everything and the new version. The transaction holds the catalog's lock."""
    if changes.tags_changed:
        await _write_tags(conn, changes)
    if changes.policies_changed:
        await _write_policies(conn, changes)
    if changes.updated:
        # before the inserts: a name that an update frees may be taken by one of them
        await _update_rows(conn, changes.updated)
    if changes.inserted:
        await _copy_lines(conn, "pv", "catalog", COLUMNS, _copy_rows(table_of(changes.inserted)))
    if len(changes.added):
        await _copy_lines(conn, "pv", "catalog", COLUMNS, _copy_rows(changes.added))
    await _write_channels(conn, changes)
    await conn.execute(
        "UPDATE catalog.version SET version = $1, next_pv = $2, next_setpoint = $3,"
        " next_readback = $4, next_tag = $5,"
        " tags_version = CASE WHEN $6 THEN $1 ELSE tags_version END,"
        " policies_version = CASE WHEN $7 THEN $1 ELSE policies_version END",
        changes.version,
        changes.counters.pv,
        changes.counters.setpoint,
        changes.counters.readback,
        changes.counters.tag,
        changes.tags_changed,
        changes.policies_changed,
    )


async def _update_rows(conn: Connection, drafts: Sequence[Draft]) -> None:
    await conn.execute(
        "CREATE TEMPORARY TABLE pv_new (LIKE catalog.pv INCLUDING DEFAULTS) ON COMMIT DROP"
    )
    await _copy_lines(conn, "pv_new", None, COLUMNS, _copy_rows(table_of(drafts)))
    numbers = sorted(draft.number for draft in drafts)
    # names are made free first, by ones that nobody can have: two PVs may exchange theirs
    for some in _slice_items(numbers):
        await conn.execute(
            "UPDATE catalog.pv SET name = chr(1) || pv.number FROM pv_new AS new"
            " WHERE pv.number = new.number AND new.number BETWEEN $1 AND $2"
            " AND pv.delete_time_ns = 0 AND (pv.name <> new.name OR new.delete_time_ns <> 0)",
            *(some[0], some[-1]),
        )
    for some in _slice_items(numbers):
        await conn.execute(
            f"UPDATE catalog.pv SET {_SETS} FROM pv_new AS new"
            " WHERE pv.number = new.number AND new.number BETWEEN $1 AND $2",
            *(some[0], some[-1]),
        )
    await conn.execute("DROP TABLE pv_new")


async def _write_channels(conn: Connection, changes: Changes) -> None:
    for numbers, retire_time_ns in ((changes.retired, changes.now_ns), (changes.revived, 0)):
        for some in _slice_items(numbers):
            await conn.execute(
                "UPDATE catalog.channel SET retire_time_ns = $2 WHERE number = ANY($1::bigint[])",
                *(some, retire_time_ns),
            )
    if changes.channels:
        lines = (_channel_line(*channel, changes.now_ns) for channel in changes.channels)
        await _copy_lines(conn, "channel", "catalog", _CHANNEL, lines)
    if len(changes.added):
        await _copy_lines(conn, "channel", "catalog", _CHANNEL, _added_channels(changes))


def _added_channels(changes: Changes) -> Iterator[str]:
    """Lines of the channels of PVs added in bulk, in order of their numbers."""
    added = changes.added
    numbers, places = changes.added_channels
    rows = places >> 1
    pairs = zip(
        _text_cells(added.setpoint_address), _text_cells(added.readback_address), strict=True
    )
    addresses = [address for pair in pairs for address in pair]
    if len(places) < len(addresses):
        addresses = [addresses[place] for place in places.tolist()]
    return _joined_cells(
        [
            _plain_cells(numbers),
            _plain_cells(added.number[rows]),
            _plain_cells(np.where(places & 1, ROLE_READBACK, ROLE_SETPOINT)),
            addresses,
            _plain_cells(added.protocol[rows]),
            [str(changes.now_ns)] * len(numbers),
        ]
    )


def _channel_line(number: int, pv: int, role: int, address: str, protocol: int, now: int) -> str:
    return f"{number}\t{pv}\t{role}\t{_text_cell(address)}\t{protocol}\t{now}\n"


async def _write_tags(conn: Connection, changes: Changes) -> None:
    if changes.dropped_tags:
        await conn.execute(
            "DELETE FROM catalog.tag WHERE number = ANY($1::integer[])", changes.dropped_tags
        )
    if changes.dropped_groups:
        await conn.execute(
            "DELETE FROM catalog.tag_group WHERE id = ANY($1::uuid[])", changes.dropped_groups
        )
    if changes.undeleted_tags:
        await conn.execute(
            "DELETE FROM catalog.tag_tombstone WHERE id = ANY($1::uuid[])", changes.undeleted_tags
        )
    await conn.executemany(
        "INSERT INTO catalog.tag_tombstone"
        " (id, group_id, number, name, description, pvs, delete_time_ns)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [
            (t.id, t.group_id, t.number, t.name, t.description, list(t.pvs), t.delete_time_ns)
            for t in changes.tag_tombstones
        ],
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


async def _write_policies(conn: Connection, changes: Changes) -> None:
    await conn.execute(
        "DELETE FROM catalog.default_policy WHERE id = ANY($1::uuid[])",
        [policy.id for policy in (*changes.policies, *changes.dropped_policies)],
    )
    await conn.executemany(
        "INSERT INTO catalog.default_policy (id, device, tag, policy, comment, principal, role,"
        " version, create_time_ns, update_time_ns)"
        " VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, $7, $8, $9, $10)",
        [
            (
                *(p.id, p.device, p.tag, policies.to_json(p.policy), p.comment),
                *(p.principal, p.role, p.version, p.create_time_ns, p.update_time_ns),
            )
            for p in changes.policies
        ],
    )


async def _copy_lines(
    conn: Connection,
    table: str,
    schema: str | None,
    columns: Sequence[str],
    lines: Iterable[str],
) -> None:
    """COPY in text form: the binary form would need an encoder for each type in Python."""
    made = iter(lines)
    while first := await _next_chunk(made):
        await conn.copy_to_table(
            table,
            schema_name=schema,
            columns=list(columns),
            source=_join_chunks(first, made),
            format="text",
        )


async def _join_chunks(first: bytes, lines: Iterator[str]) -> AsyncIterator[bytes]:
    """The lines of one statement, so that Postgres stores some while the next are made."""
    yield first
    for _ in range(_STATEMENT_ROWS // _LINES - 1):
        if not (chunk := await _next_chunk(lines)):
            return
        yield chunk


async def _next_chunk(lines: Iterator[str]) -> bytes:
    """A few thousand lines, made in a thread: the loop would stand still for those of a site."""
    return await asyncio.to_thread(lambda: "".join(islice(lines, _LINES)).encode())


def _slice_items(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[i : i + _STATEMENT_ROWS] for i in range(0, len(items), _STATEMENT_ROWS))


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _text_cell(text: str) -> str:
    # two quick looks, for nearly no text needs more
    plain = text.isprintable() and "\\" not in text
    return text if plain else text.translate(_ESCAPES)


def _tags_cell(tags: tuple[int, ...]) -> str:
    return "{" + ",".join(map(str, tags)) + "}"


def _policy_cell(policy: Policy) -> str:
    policy_text = policies.to_json(policy)
    return _text_cell(policy_text) if policy_text else "\\N"


def _make_cells(column: Sequence[T], make: Callable[[T], str]) -> list[str]:
    """Cells of a column, equal ones made once; the same object is not compared with itself."""
    objects = {id(value): value for value in column}
    cell_of = {value: make(value) for value in set(objects.values())}
    cell_of_id = {key: cell_of[value] for key, value in objects.items()}
    return list(map(cell_of_id.__getitem__, map(id, column)))


def _text_cells(column: list[str]) -> list[str]:
    joined = "".join(column)
    plain = joined.isprintable() and "\\" not in joined
    return column if plain else list(map(_text_cell, column))


def _plain_cells(column: NDArray[Any]) -> list[str]:
    """Cells of numbers and flags, which Postgres reads as Python writes them."""
    if len(column) and (column == column[0]).all():
        return [repr(column[0].item())] * len(column)
    return list(map(repr, column.tolist()))


def _joined_cells(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    return ("\t".join(row) + "\n" for row in zip(*cells, strict=True))


def _copy_rows(table: PvTable) -> Iterator[str]:
    """One line of COPY's text form a PV, columns in the order of `COLUMNS`."""
    cells: list[Sequence[str]] = []
    for name in COLUMNS:
        column = getattr(table, name)
        if name in _CELLS:
            cells.append(_make_cells(column, _CELLS[name]))
        else:
            cells.append(_text_cells(column) if isinstance(column, list) else _plain_cells(column))
    return _joined_cells(cells)


_CELLS: dict[str, Callable[[Any], str]] = {"tags": _tags_cell, "policy": _policy_cell}
