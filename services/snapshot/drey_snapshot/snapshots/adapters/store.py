"""Snapshots in Postgres. Raises `Unavailable` while it is away, at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from drey_core.errors import Internal
from drey_core.page_storage import load_text, store_text
from drey_core.pages import HASH_BYTES, PageHash
from drey_core.values import I8
from drey_runtime.clock import now_ns
from drey_runtime.database import Connection, Database
from drey_runtime.database import Record as Row
from drey_snapshot.snapshots.domain.gates import MissingPv
from drey_snapshot.snapshots.domain.records import (
    Facts,
    GoldenMark,
    Labels,
    Record,
    ShardStamp,
    Skew,
    StateCounts,
)

T = TypeVar("T")

_GOLDEN = """(
    SELECT json_agg(
        json_build_object('scope', g.scope, 'label', g.label, 'principal', g.principal,
            'roles', g.roles, 'reason', g.reason, 'mark_time_ns', g.mark_time_ns)
        ORDER BY g.scope, g.label)
    FROM snapshot.golden g WHERE g.snapshot_no = s.no
) AS golden"""
_RECORD = f"""
SELECT s.*, l.title, l.comment, l.labels, l.version, l.delete_time_ns, p.data AS chosen, {_GOLDEN}
FROM snapshot.snapshot s JOIN snapshot.label l ON l.snapshot_no = s.no
LEFT JOIN snapshot.page p ON p.hash = s.selector_hash
"""
_LISTED = f"""
SELECT s.*, l.title, l.comment, l.labels, l.version, l.delete_time_ns, NULL AS chosen, {_GOLDEN}
FROM snapshot.snapshot s JOIN snapshot.label l ON l.snapshot_no = s.no
"""
# One statement, so that a snapshot costs one round trip before its pages.
_INSERT = """
WITH made AS (
    INSERT INTO snapshot.snapshot (id, job_id, time_ns, digest, directory_hash, catalog_version,
        source, principal, role, scope, pv_count, counts, skew, shards, duration_ns, selector_hash)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
        $22)
    ON CONFLICT (job_id) DO NOTHING RETURNING no
), labelled AS (
    INSERT INTO snapshot.label (snapshot_no, title, comment, labels)
    SELECT no, $16, $17, $18::text[] FROM made
), listed AS (
    INSERT INTO snapshot.manifest (page_no, snapshot_no, value_hash, times_hash)
    SELECT new.page_no, made.no, new.value_hash, new.times_hash
    FROM made, unnest($19::integer[], $20::bytea[], $21::bytea[])
        AS new (page_no, value_hash, times_hash)
)
SELECT no FROM made
"""
# In order of the hash, so that two that store the same pages wait for each other and never in a
# circle. What is said to be there already is looked for, in the same round trip.
_PAGES = """
WITH added AS (
    INSERT INTO snapshot.page (hash, data)
    SELECT hash, data FROM unnest($1::bytea[], $2::bytea[]) AS new (hash, data) ORDER BY hash
    ON CONFLICT (hash) DO NOTHING
)
SELECT hash FROM unnest($3::bytea[]) AS believed (hash)
WHERE NOT EXISTS (SELECT FROM snapshot.page WHERE page.hash = believed.hash)
"""
_RELABEL = """
UPDATE snapshot.label SET title = $2, comment = $3, labels = $4,
    delete_time_ns = $5, version = version + 1
WHERE snapshot_no = $1
"""
_LOCK = """
SELECT FROM snapshot.label l JOIN snapshot.snapshot s ON s.no = l.snapshot_no
WHERE s.id = $1 FOR UPDATE OF l
"""
_MOVED = """
UPDATE snapshot.label l SET version = version + 1
FROM snapshot.golden g JOIN snapshot.snapshot s ON s.no = g.snapshot_no
WHERE g.scope = $1 AND g.label = $2 AND g.snapshot_no <> $3 AND l.snapshot_no = g.snapshot_no
RETURNING s.id
"""
_MARK = """
INSERT INTO snapshot.golden (scope, label, snapshot_no, principal, roles, reason, mark_time_ns)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (scope, label) DO UPDATE SET snapshot_no = $3, principal = $4, roles = $5,
    reason = $6, mark_time_ns = $7
"""
# The second of several that forget at once finds nothing left to do; nobody waits for anybody.
_ADD_REFUSAL = """
WITH added AS (
    INSERT INTO snapshot.refusal (id, create_time_ns, missing) VALUES ($1, $2, $3)
    ON CONFLICT (id) DO NOTHING
)
DELETE FROM snapshot.refusal WHERE id IN (
    SELECT id FROM snapshot.refusal ORDER BY no DESC OFFSET $4 FOR UPDATE SKIP LOCKED
)
"""
_KEPT_REFUSALS = 1000
_CHOSEN = """
WHERE (l.delete_time_ns = 0 OR $9)
    AND ($1::bigint IS NULL OR (s.time_ns, s.no) < ($1, $2))
    AND ($3 = '' OR position(lower($3) IN lower(l.title)) > 0
         OR position(lower($3) IN lower(l.comment)) > 0)
    AND (cardinality($4::text[]) = 0 OR l.labels @> $4)
    AND (NOT $5 OR EXISTS (SELECT FROM snapshot.golden g WHERE g.snapshot_no = s.no))
    AND ($6::bigint = 0 OR s.time_ns >= $6) AND ($7::bigint = 0 OR s.time_ns < $7)
    AND ($10 = '' OR s.scope = $10) AND ($11 = '' OR s.principal = $11)
    AND ($12::bytea IS NULL OR s.digest = $12)
    AND ($13::bigint[] IS NULL OR s.no = ANY($13))
"""
_LIST = _LISTED + _CHOSEN + "ORDER BY s.time_ns DESC, s.no DESC LIMIT $8"
_COUNT = f"""
SELECT count(*) FROM (
    SELECT FROM snapshot.snapshot s JOIN snapshot.label l ON l.snapshot_no = s.no
    {_CHOSEN} LIMIT $8
) AS chosen
"""
_HISTORY_OF = """
SELECT array_agg(page_no), string_agg(value_hash, ''), string_agg(times_hash, ''),
    array_agg(no), array_agg(time_ns), string_agg(uuid_send(id), '')
FROM (
    SELECT m.page_no, m.value_hash, m.times_hash, s.no, s.time_ns, s.id
    FROM ({chosen}) AS s JOIN snapshot.manifest m ON m.snapshot_no = s.no
    WHERE m.page_no = ANY($1::integer[])
    ORDER BY s.time_ns DESC, s.no DESC, m.page_no
) AS found
"""
"""One row of whole columns: a row of Python's own for each page of each snapshot takes longer than
Postgres needs to find them."""
_LIVING = """
    SELECT s.no, s.time_ns, s.id
    FROM snapshot.snapshot s JOIN snapshot.label l ON l.snapshot_no = s.no
    WHERE ($4 OR l.delete_time_ns = 0)
        AND ($2::bigint = 0 OR s.time_ns >= $2) AND ($3::bigint = 0 OR s.time_ns < $3)
"""
_HISTORY = _HISTORY_OF.format(chosen=_LIVING)
_NEWEST_HISTORY = _HISTORY_OF.format(chosen=_LIVING + "ORDER BY s.time_ns DESC, s.no DESC LIMIT $5")


class ManifestEntry(NamedTuple):
    """One page of a snapshot."""

    page: int
    value_hash: PageHash
    times_hash: PageHash


class HistoryList(NamedTuple):
    """Pages in snapshots, newest snapshot first, by page within one; n entries in columns."""

    page: I8
    value_hash: list[PageHash]
    times_hash: list[PageHash]
    no: I8
    time_ns: I8
    id: list[bytes]


@dataclass(frozen=True, slots=True)
class SnapshotFilter:
    """Which snapshots a list shows; `after` is the (time, no) of the last one seen.

    `among` are the numbers of those that hold `pv`; None: not looked up, or no such filter.
    """

    search: str = ""
    labels: tuple[str, ...] = ()
    golden_only: bool = False
    from_time_ns: int = 0
    to_time_ns: int = 0
    include_deleted: bool = False
    scope: str = ""
    principal: str = ""
    digest: bytes | None = None
    pv: str = ""
    among: tuple[int, ...] | None = None
    after: tuple[int, int] | None = None


class SnapshotStore:
    """The tables of schema `snapshot`."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def insert_snapshot(
        self,
        conn: Connection,
        facts: Facts,
        labels: Labels,
        page_numbers: list[int],
        value_hashes: list[PageHash],
        times_hashes: list[PageHash],
    ) -> int | None:
        """Add a snapshot without its pages, in the caller's transaction: `insert_pages` follows.

        The manifest is given as columns, a row for each page.
        Returns its number, or None where the job has made one before: nothing is added then.
        """
        no: int | None = await conn.fetchval(
            _INSERT,
            facts.id,
            facts.job_id or None,
            facts.time_ns,
            facts.digest,
            facts.directory_hash,
            facts.catalog_version,
            facts.source,
            facts.principal,
            facts.role,
            facts.scope,
            facts.pv_count,
            json.dumps(asdict(facts.counts)),
            json.dumps(asdict(facts.skew)),
            json.dumps([asdict(s) for s in facts.shards]),
            facts.duration_ns,
            labels.title,
            labels.comment,
            list(labels.labels),
            page_numbers,
            value_hashes,
            times_hashes,
            facts.selector_hash,
        )
        return no

    async def insert_pages(
        self, conn: Connection, pages: Mapping[PageHash, bytes], believed: Collection[PageHash]
    ) -> list[PageHash]:
        """Add pages by hash, in the caller's transaction; those that are there stay.

        Returns which of the pages that are `believed` to be there are not.
        """
        rows = await conn.fetch(_PAGES, list(pages), list(pages.values()), list(believed))
        return [row[0] for row in rows]

    async def by_id(self, snapshot_id: str) -> Record | None:
        """A snapshot by id, deleted or not; None where there never was one."""

        async def fetch_row(conn: Connection) -> Row | None:
            return await conn.fetchrow(_RECORD + " WHERE s.id = $1", snapshot_id)

        row = await self._read_once(fetch_row)
        return _to_record(row) if row else None

    async def by_job(self, job_id: str) -> Record | None:
        """The snapshot that a job made; None where it made none."""

        async def fetch_row(conn: Connection) -> Row | None:
            return await conn.fetchrow(_RECORD + " WHERE s.job_id = $1", job_id)

        row = await self._read_once(fetch_row)
        return _to_record(row) if row else None

    async def lock_snapshot(self, conn: Connection, snapshot_id: str) -> Record | None:
        """A snapshot whose labels nobody else changes until the transaction ends."""
        await conn.execute(_LOCK, snapshot_id)
        # In a statement of its own, which sees what was committed while this one waited.
        row = await conn.fetchrow(_RECORD + " WHERE s.id = $1", snapshot_id)
        return _to_record(row) if row else None

    async def golden(self, scope: str, label: str) -> Record | None:
        """The living snapshot with a golden mark; None where there is none."""

        async def fetch_row(conn: Connection) -> Row | None:
            return await conn.fetchrow(
                _RECORD + " JOIN snapshot.golden m ON m.snapshot_no = s.no"
                " WHERE m.scope = $1 AND m.label = $2 AND l.delete_time_ns = 0",
                scope,
                label,
            )

        row = await self._read_once(fetch_row)
        return _to_record(row) if row else None

    async def lock_golden(self, conn: Connection) -> None:
        """Nobody else sets or clears a golden mark until the transaction ends; others read them."""
        await conn.execute("LOCK TABLE snapshot.golden IN SHARE ROW EXCLUSIVE MODE")

    async def set_golden(self, conn: Connection, no: int, mark: GoldenMark) -> str:
        """Set a mark; the id of the other snapshot that had it, whose version grows, or none."""
        moved: str | None = await conn.fetchval(_MOVED, mark.scope, mark.label, no)
        await conn.execute(
            _MARK,
            *(mark.scope, mark.label, no, mark.principal, mark.roles, mark.reason),
            mark.mark_time_ns,
        )
        return str(moved or "")

    async def clear_golden(self, conn: Connection, scope: str, label: str) -> None:
        """Take a mark away."""
        await conn.execute(
            "DELETE FROM snapshot.golden WHERE scope = $1 AND label = $2", scope, label
        )

    async def replace_labels(self, conn: Connection, no: int, labels: Labels) -> None:
        """Store changed labels; their version grows by one."""
        await conn.execute(
            _RELABEL,
            no,
            labels.title,
            labels.comment,
            list(labels.labels),
            labels.delete_time_ns,
        )

    async def list_records(self, chosen: SnapshotFilter, limit: int) -> list[Record]:
        """Snapshots, newest first."""

        async def fetch_rows(conn: Connection) -> list[Row]:
            return await conn.fetch(_LIST, *_query_arguments(chosen, limit))

        return [_to_record(row) for row in await self._read_once(fetch_rows)]

    async def count_records(self, chosen: SnapshotFilter, most: int) -> int:
        """How many there are, `most` where there are more."""

        async def fetch_count(conn: Connection) -> Row | None:
            return await conn.fetchrow(_COUNT, *_query_arguments(chosen, most))

        row = await self._read_once(fetch_count)
        assert row is not None, "an aggregate has one row"
        return int(row[0])

    async def read_manifest(self, no: int) -> list[ManifestEntry]:
        """The pages of a snapshot, by page number: one index range."""

        async def fetch_rows(conn: Connection) -> list[Row]:
            return await conn.fetch(
                "SELECT page_no, value_hash, times_hash FROM snapshot.manifest"
                " WHERE snapshot_no = $1 ORDER BY page_no",
                no,
            )

        return [ManifestEntry(*row) for row in await self._read_once(fetch_rows)]

    async def page_data(self, hashes: Sequence[PageHash]) -> dict[PageHash, bytes]:
        """Stored pages by hash. Raises `Internal` where one is not there."""
        page_data = await self.page_data_or_less(hashes)
        if len(page_data) < len(set(hashes)):
            lost = next(h for h in hashes if h not in page_data)
            raise Internal(f"page {lost.hex()} of a snapshot is not in the database")
        return page_data

    async def page_data_or_less(self, hashes: Sequence[PageHash]) -> dict[PageHash, bytes]:
        """Stored pages by hash, those not there left out."""
        if not hashes:
            return {}

        async def fetch_rows(conn: Connection) -> list[Row]:
            return await conn.fetch(
                "SELECT hash, data FROM snapshot.page WHERE hash = ANY($1::bytea[])", list(hashes)
            )

        return {row[0]: row[1] for row in await self._read_once(fetch_rows)}

    async def read_history(
        self,
        pages: Sequence[int],
        begin: int,
        end: int,
        *,
        deleted: bool = False,
        newest: int | None = None,
    ) -> HistoryList:
        """Some pages through all living snapshots, or deleted ones too: one index range a page.

        With `newest` through so many snapshots only, which takes the less time the fewer they are.
        """

        async def fetch_history(conn: Connection) -> Row | None:
            chosen = (list(pages), begin, end, deleted)
            if newest is None:
                return await conn.fetchrow(_HISTORY, *chosen)
            return await conn.fetchrow(_NEWEST_HISTORY, *chosen, newest)

        row = await self._read_once(fetch_history)
        assert row is not None, "an aggregate has one row"
        page, values, times, no, time_ns, ids = (column or b"" for column in row)
        return HistoryList(
            np.array(list(page), np.int64),
            _cut_hashes(values, HASH_BYTES),
            _cut_hashes(times, HASH_BYTES),
            np.array(list(no), np.int64),
            np.array(list(time_ns), np.int64),
            _cut_hashes(ids, 16),
        )

    async def add_refusal(self, refusal_id: str, missing: Sequence[MissingPv]) -> None:
        """Keep what was missing, once an id; the oldest of more than 1,000 lists are forgotten."""
        stored = await asyncio.to_thread(lambda: store_text(json.dumps(missing).encode()))
        async with self.db.acquire_connection() as conn:
            await conn.execute(_ADD_REFUSAL, refusal_id, now_ns(), stored, _KEPT_REFUSALS - 1)

    async def read_refusal(self, refusal_id: str) -> list[MissingPv] | None:
        """What was missing; None where there is no such list, or not any more."""

        async def fetch_refusal(conn: Connection) -> Row | None:
            return await conn.fetchrow(
                "SELECT missing FROM snapshot.refusal WHERE id = $1", refusal_id
            )

        row = await self._read_once(fetch_refusal)
        if row is None:
            return None
        return await asyncio.to_thread(_missing_pvs, row[0])

    async def _read_once(self, action: Callable[[Connection], Awaitable[T]]) -> T:
        """Not repeated while Postgres is away: the caller is told at once."""
        async with self.db.acquire_connection() as conn:
            return await action(conn)


def _query_arguments(chosen: SnapshotFilter, limit: int) -> tuple[object, ...]:
    """What `_CHOSEN` and its limit take, by number."""
    return (
        *(chosen.after or (None, None)),
        *(chosen.search, list(chosen.labels), chosen.golden_only),
        *(chosen.from_time_ns, chosen.to_time_ns, limit, chosen.include_deleted),
        *(chosen.scope, chosen.principal, chosen.digest),
        None if chosen.among is None else list(chosen.among),
    )


def _missing_pvs(stored: bytes) -> list[MissingPv]:
    return [MissingPv(*fields) for fields in json.loads(load_text([stored])[0])]


def _cut_hashes(joined: bytes, size: int) -> list[bytes]:
    return [joined[start : start + size] for start in range(0, len(joined), size)]


def _to_record(row: Row) -> Record:
    facts = Facts(
        id=row["id"],
        job_id=row["job_id"] or "",
        time_ns=row["time_ns"],
        digest=row["digest"],
        directory_hash=row["directory_hash"],
        catalog_version=row["catalog_version"],
        source=row["source"],
        principal=row["principal"],
        role=row["role"],
        scope=row["scope"],
        pv_count=row["pv_count"],
        counts=StateCounts(**json.loads(row["counts"])),
        skew=Skew(**json.loads(row["skew"])),
        shards=tuple(ShardStamp(**s) for s in json.loads(row["shards"])),
        duration_ns=row["duration_ns"],
        selector_hash=row["selector_hash"],
    )
    labels = Labels(
        title=row["title"],
        comment=row["comment"],
        labels=tuple(row["labels"]),
        version=row["version"],
        delete_time_ns=row["delete_time_ns"],
    )
    marks = tuple(GoldenMark(**mark) for mark in json.loads(row["golden"] or "[]"))
    return Record(row["no"], facts, labels, row["chosen"], marks)
