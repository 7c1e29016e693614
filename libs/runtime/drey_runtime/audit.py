"""Who did what: an append-only table whose rows are chained by hash.

Each row's hash covers its content as canonical JSON and the hash of the row before, so a row that
was changed, removed or put in between shows. The database refuses updates, deletes and truncation
by triggers; the chain is for the one who may switch triggers off.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from drey_core.errors import Internal
from drey_runtime.auth import current_principal
from drey_runtime.database import Connection, Record
from drey_runtime.event_log import ResourceChange, record_events

GENESIS = bytes(32)
_ROWS = 1000
_LOCK = 0x64726579_61756469  # "dreyaudi"


@dataclass(frozen=True)
class Entry:
    """One act. `before` and `after` are JSON objects or None; `at_ns` nanoseconds since 1970.

    `address`: from where the actor called; empty: not known, or nobody did.
    """

    seq: int
    at_ns: int
    actor: str
    role: str
    action: str
    object: str
    request_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: bytes
    address: str = ""


_FIELDS = tuple(field.name for field in fields(Entry))


@dataclass(frozen=True)
class ChainFault:
    """Something wrong with the chain at row `seq`."""

    seq: int
    problem: str


def canonical_json(value: Mapping[str, Any] | None) -> str | None:
    """JSON with sorted keys, no spaces, ASCII only; raises ValueError for NaN and infinities."""
    if value is None:
        return None
    return json.dumps(
        dict(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


class HashedRow(NamedTuple):
    """What the hash of a row covers, in this order; `before` and `after` as canonical JSON."""

    seq: int
    at_ns: int
    actor: str
    role: str
    action: str
    object: str
    request_id: str
    before: str | None
    after: str | None
    address: str = ""


def chain_hash(previous: bytes, row: HashedRow) -> bytes:
    """SHA-256 of a row: of the JSON list of its fields, the previous hash first.

    An address that is not known is not in the list: rows were chained before there were any.
    """
    fields = [previous.hex(), *(row if row.address else row[:-1])]
    return hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).digest()


@dataclass(frozen=True)
class AuditedAct:
    """What somebody does, to be noted: as in `Entry`.

    A bulk action is one act with a summary in `after`. NULs in texts are refused by Postgres.
    """

    actor: str
    role: str
    action: str
    object: str
    at_ns: int
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    request_id: str = ""


async def append_entry(
    conn: Connection, act: AuditedAct, *, events: Sequence[ResourceChange]
) -> int:
    """Add one act within the caller's transaction; returns its number.

    Appends wait for each other until commit, so call it last in the transaction. `events` are what
    those who follow the changes are told of it.
    """
    if not conn.is_in_transaction():
        raise Internal("audit.append_entry() needs a transaction")
    caller = current_principal.get(None)
    # what a job does in somebody's name is not done from where they called
    address = caller.address if caller is not None and caller.name == act.actor else ""
    await record_events(conn, events, principal=act.actor, role=act.role, time_ns=act.at_ns)
    await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    last = await read_head(conn) or Head(0, GENESIS)
    row = HashedRow(
        last.seq + 1,
        act.at_ns,
        act.actor,
        act.role,
        act.action,
        act.object,
        act.request_id,
        canonical_json(act.before),
        canonical_json(act.after),
        address,
    )
    await conn.execute(_INSERT, *row, last.hash, chain_hash(last.hash, row))
    return row.seq


_INSERT = """
INSERT INTO audit.entry (seq, at_ns, actor, role, action, object, request_id, before, after,
    address, previous_hash, hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""


@dataclass(frozen=True)
class Head:
    """The last row of the chain, or an anchor of what it once was."""

    seq: int
    hash: bytes


@dataclass(frozen=True)
class AuditFilter:
    """Which acts a list shows; what is empty or 0 lets everything pass. Times in nanoseconds."""

    actor: str = ""
    action_prefix: str = ""
    object: str = ""
    from_ns: int = 0
    to_ns: int = 0


_LIST = """
SELECT * FROM audit.entry
WHERE ($1::bigint = 0 OR seq < $1) AND ($2 = '' OR actor = $2)
    AND ($3 = '' OR starts_with(action, $3)) AND ($4 = '' OR object = $4)
    AND ($5::bigint = 0 OR at_ns >= $5) AND ($6::bigint = 0 OR at_ns < $6)
ORDER BY seq DESC LIMIT $7
"""


async def read_entries(
    conn: Connection, wanted: AuditFilter = AuditFilter(), *, before_seq: int = 0, limit: int = 100
) -> list[Entry]:
    """Acts, newest first; those below `before_seq` (0: from the newest) that the filter shows."""
    rows = await conn.fetch(
        _LIST,
        before_seq,
        wanted.actor,
        wanted.action_prefix,
        wanted.object,
        wanted.from_ns,
        wanted.to_ns,
        limit,
    )
    return [_to_entry(dict(row)) for row in rows]


_FOLLOW = """
SELECT * FROM audit.entry
WHERE seq > $1 AND seq <= $2 AND ($3 = '' OR actor = $3)
    AND ($4 = '' OR starts_with(action, $4)) AND ($5 = '' OR object = $5)
ORDER BY seq LIMIT $6
"""


async def entries_after(
    conn: Connection, wanted: AuditFilter, after_seq: int, limit: int
) -> tuple[list[Entry], int]:
    """(acts after a number that the filter shows, in their order; up to where the look got).

    Times of the filter are not looked at. Numbers are given in the order of the commits, so none
    comes to stand before one that has been read.
    """
    head = await read_head(conn)
    last = head.seq if head else 0
    rows = await conn.fetch(
        _FOLLOW, after_seq, last, wanted.actor, wanted.action_prefix, wanted.object, limit
    )
    entries = [_to_entry(dict(row)) for row in rows]
    return entries, entries[-1].seq if len(entries) == limit else last


async def read_head(conn: Connection) -> Head | None:
    """The last row; None where there is none."""
    row = await conn.fetchrow("SELECT seq, hash FROM audit.entry ORDER BY seq DESC LIMIT 1")
    return Head(row["seq"], row["hash"]) if row else None


async def read_hash(conn: Connection, seq: int) -> bytes | None:
    """The hash of a row; None where there is no such row."""
    last_hash: bytes | None = await conn.fetchval(
        "SELECT hash FROM audit.entry WHERE seq = $1", seq
    )
    return last_hash


async def read_entry(conn: Connection, seq: int) -> Entry | None:
    """One act; None where there is no such row."""
    row = await conn.fetchrow("SELECT * FROM audit.entry WHERE seq = $1", seq)
    return None if row is None else _to_entry(dict(row))


def _to_entry(row: dict[str, Any]) -> Entry:
    known = {name: row[name] for name in _FIELDS}  # a newer version may have added others
    for name in ("before", "after"):
        known[name] = None if known[name] is None else json.loads(known[name])
    return Entry(**known)


async def verify_chain(conn: Connection, anchors: Iterable[Head] = ()) -> list[ChainFault]:
    """What `walk_chain` finds wrong, empty when nothing is."""
    faults, _ = await walk_chain(conn, anchors)
    return faults


async def walk_chain(
    conn: Connection, anchors: Iterable[Head] = ()
) -> tuple[list[ChainFault], Head | None]:
    """Walk the whole chain as it is now: (what is wrong, the last row that was looked at).

    Rows cut off at the end cannot be seen from inside: `anchors`, heads that were kept elsewhere
    before the walk began, tell of them.
    """
    walk = _ChainWalk(anchors)
    async with conn.transaction(readonly=True):
        cursor = await conn.cursor("SELECT * FROM audit.entry ORDER BY seq")
        while rows := await cursor.fetch(_ROWS):
            # in a thread: the hashes of a long chain would hold up all else that the loop serves
            await asyncio.to_thread(walk.look, rows)
    return walk.end_walk(), walk.head


class _ChainWalk:
    """From the first row of the chain to its last."""

    def __init__(self, anchors: Iterable[Head]) -> None:
        self._findings: list[ChainFault] = []
        self._anchored: dict[int, set[bytes]] = {}
        for anchor in anchors:
            self._anchored.setdefault(anchor.seq, set()).add(anchor.hash)
        self._previous, self._expected = GENESIS, 1

    @property
    def head(self) -> Head | None:
        """The last row that was looked at."""
        return Head(self._expected - 1, self._previous) if self._expected > 1 else None

    def look(self, rows: Iterable[Record]) -> None:
        """At the next rows."""
        for row in rows:
            fields = {name: row[name] for name in _FIELDS}
            stored_previous, stored, seq = row["previous_hash"], fields.pop("hash"), row["seq"]
            if seq != self._expected:
                self._add_fault(seq, f"rows {self._expected} to {seq - 1} are missing")
            elif stored_previous != self._previous:
                self._add_fault(seq, "does not follow the row before it")
            if chain_hash(stored_previous, HashedRow(**fields)) != stored:
                self._add_fault(seq, "its content was changed")
            if self._anchored.get(seq, {stored}) != {stored}:
                self._add_fault(seq, "is not the row that was anchored")
            self._previous, self._expected = stored, seq + 1

    def end_walk(self) -> list[ChainFault]:
        """All that is wrong; there are no more rows."""
        last, expected = max(self._anchored, default=0), self._expected
        if last >= expected:
            self._add_fault(expected, f"rows {expected} to {last} were anchored and are cut off")
        return self._findings

    def _add_fault(self, seq: int, problem: str) -> None:
        self._findings.append(ChainFault(seq, problem))
