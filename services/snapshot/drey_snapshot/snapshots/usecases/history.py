"""One PV through all snapshots: one index range for each of its channels' pages.

The newest snapshots are listed first, and the others while the pages of these are fetched. The
pages of some snapshots are fetched while those of the snapshots before are taken apart, and of each
page only the slots of the PV are looked at.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT
from drey_core.errors import NotFound
from drey_core.page_storage import load_times_slots, load_value_slots
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PageHash
from drey_core.values import I8, Columns, State
from drey_core.wire import RowEncoder, chunk_rows
from drey_core.wire_values import MAX_CHUNK_BYTES, wrap_payload
from drey_runtime.database import Connection, Record
from drey_snapshot.snapshots.adapters.store import HistoryList, SnapshotFilter, SnapshotStore

T = TypeVar("T")

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FIRST_SNAPSHOTS = 8
_MOST_SNAPSHOTS = 400
_FIRST_LISTED = 200
_HEX = np.array([[*b"%02x" % byte] for byte in range(256)], np.uint8)
_DIGITS = [place for place in range(36) if place not in (8, 13, 18, 23)]
"""Where the digits of a UUID stand in its usual form."""
_HEAD = np.dtype(
    [("id_tag", "<u2"), ("id", "u1", 36), ("time_tag", "u1"), ("time", "<i8"), ("row_tag", "u1")]
)
"""Fields 1 and 2 of a point, as they lie on the wire, and the tag of field 3."""
_GROUP_BYTES = 16 << 20
"""Stored pages held at a time: pages with large arrays come a few snapshots at a time."""


@dataclass(frozen=True, slots=True)
class HistoryOrder:
    """A request for a PV's history, checked. `role` 0: both channels. Times 0: no bound."""

    number: int
    name: str
    role: int
    from_time_ns: int
    to_time_ns: int


@dataclass(frozen=True, slots=True)
class _Pv:
    """A PV with all channels that it ever had: number and role of each."""

    number: int
    name: str
    channels: I8
    roles: I8


@dataclass(frozen=True, slots=True)
class _Group:
    """Entries of some snapshots, and their stored pages, of values and of times."""

    history: HistoryList
    entries: range
    stored: Mapping[PageHash, bytes]

    @property
    def size(self) -> int:
        """Bytes of the pages."""
        return sum(map(len, self.stored.values()))


class Historian:
    def __init__(self, store: SnapshotStore) -> None:
        self._store = store

    async def read_history(self, order: HistoryOrder) -> AsyncIterator[bytes]:
        """`GetPvHistoryResponse` messages, newest first; deleted PVs too. `NotFound`.

        A PV whose address was changed has the values of whichever channel it had then. Enums come
        without labels.
        """
        pv = await self._find_pv(order)
        fetched = self._fetch_groups(self._list_parts(pv, order))
        async with aclosing(_one_ahead(fetched)) as groups:
            async for group in groups:
                points = await asyncio.to_thread(_point_fields, pv, group)
                for message in chunk_rows(points):
                    yield message

    async def _list_parts(self, pv: _Pv, order: HistoryOrder) -> AsyncGenerator[HistoryList, None]:
        """The newest snapshots, which are found soon, and the older ones, looked for meanwhile."""
        pages = np.unique(pv.channels >> PAGE_SHIFT).tolist()
        bounds = order.from_time_ns, order.to_time_ns
        looking = asyncio.ensure_future(self._store.read_history(pages, *bounds))
        try:
            newest = await self._store.read_history(pages, *bounds, newest=_FIRST_LISTED)
            yield newest
            yield _older_part(await looking, newest)
        finally:
            await _end_task(looking)

    async def snapshots_with(self, chosen: SnapshotFilter) -> list[int]:
        """Numbers of the snapshots that hold the filter's PV, by name or id. `NotFound`.

        Of those between its times, up to where the page begins. A PV whose address was changed is
        held where any channel is that it had then.
        """
        id = chosen.pv if _UUID.fullmatch(chosen.pv) else None
        pv = await self._find_pv(HistoryOrder(0, chosen.pv, 0, 0, 0), id)
        pages = np.unique(pv.channels >> PAGE_SHIFT).tolist()
        end = chosen.to_time_ns
        if chosen.after is not None:
            last = chosen.after[0] + 1
            end = min(end, last) if end else last
        listed = await self._store.read_history(
            pages, chosen.from_time_ns, end, deleted=chosen.include_deleted
        )
        distinct = list(dict.fromkeys(listed.value_hash))
        held: set[int] = set()
        for start in range(0, len(distinct), _MOST_SNAPSHOTS):
            values = await self._store.page_data(distinct[start : start + _MOST_SNAPSHOTS])
            held |= await asyncio.to_thread(_holding_snapshots, pv, listed, values)
        return sorted(held)

    async def _fetch_groups(
        self, parts: AsyncGenerator[HistoryList, None]
    ) -> AsyncGenerator[_Group, None]:
        """Whole snapshots in groups, of as many as are not too large together."""
        count = _FIRST_SNAPSHOTS
        async with aclosing(parts):
            async for history in parts:
                starts = np.flatnonzero(np.diff(history.no, prepend=-1)).tolist()
                ends = [*starts[1:], len(history.no)]
                start = 0
                while start < len(starts):
                    last = min(start + count, len(starts))
                    group = await self._fetch_group(history, range(starts[start], ends[last - 1]))
                    each = max(group.size // (last - start), 1)
                    count = min(max(_GROUP_BYTES // each, 1), _MOST_SNAPSHOTS)
                    start = last
                    yield group
                    del group  # while the next is fetched

    async def _fetch_group(self, history: HistoryList, entries: range) -> _Group:
        first, last = entries.start, entries.stop
        hashes = (*history.value_hash[first:last], *history.times_hash[first:last])
        return _Group(history, entries, await self._store.page_data(list(dict.fromkeys(hashes))))

    async def _find_pv(self, order: HistoryOrder, id: str | None = None) -> _Pv:
        async def fetch_record(conn: Connection) -> Record | None:
            return await conn.fetchrow(
                "SELECT pv.number, pv.name, array_agg(c.number ORDER BY c.number) AS channels,"
                " array_agg(c.role ORDER BY c.number) AS roles"
                " FROM (SELECT number, name FROM catalog.pv WHERE CASE WHEN $4::uuid IS NOT NULL"
                " THEN id = $4 WHEN $1::bigint <> 0 THEN number = $1 ELSE name = $2 END"
                " ORDER BY delete_time_ns = 0 DESC, number DESC LIMIT 1) AS pv"
                " LEFT JOIN catalog.channel c ON c.pv_number = pv.number"
                " AND ($3::smallint = 0 OR c.role = $3) GROUP BY pv.number, pv.name",
                order.number,
                order.name,
                order.role,
                id,
            )

        async with self._store.db.acquire_connection() as conn:
            row = await fetch_record(conn)
        if row is None:
            wanted = order.name if not order.number else str(order.number)
            raise NotFound(
                f"no PV was ever called {wanted}",
                field="number" if order.number else "name",
                metadata={"resource": "pv", "id": wanted},
            )
        # of a PV that has no channel of the role the join gives one row of nothing
        channels = [number for number in row["channels"] if number is not None]
        roles = [role for role in row["roles"] if role is not None]
        return _Pv(
            row["number"], row["name"], np.array(channels, np.int64), np.array(roles, np.int64)
        )


async def _one_ahead(items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The same items, the next made while the caller has one."""
    coming = asyncio.ensure_future(anext(items, None))
    try:
        while (item := await coming) is not None:
            coming = asyncio.ensure_future(anext(items, None))
            yield item
    finally:
        await _end_task(coming)
        await items.aclose()


async def _end_task(task: asyncio.Future[Any]) -> None:
    """Cancel it where it runs yet, and wait; what it raised was raised already, or is late."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _older_part(every: HistoryList, newest: HistoryList) -> HistoryList:
    """The entries of `every` that come after the last of `newest`."""
    if len(newest.no) == 0:
        return every
    time_ns, no = newest.time_ns[-1], newest.no[-1]
    older = (every.time_ns < time_ns) | (every.time_ns == time_ns) & (every.no < no)
    start = len(older) - int(older.sum())
    page, values, times, number, when, ids = every
    return HistoryList(
        page[start:], values[start:], times[start:], number[start:], when[start:], ids[start:]
    )


def _holding_snapshots(pv: _Pv, listed: HistoryList, values: Mapping[PageHash, bytes]) -> set[int]:
    """Of the entries whose page is among `values`: snapshots that have a channel of the PV."""
    held: set[int] = set()
    for page in np.unique(listed.page).tolist():
        entries = [
            entry
            for entry in np.flatnonzero(listed.page == page).tolist()
            if listed.value_hash[entry] in values
        ]
        if not entries:
            continue
        slots = (pv.channels[pv.channels >> PAGE_SHIFT == page] & PAGE_MASK).tolist()
        blobs, which = _distinct_pages([listed.value_hash[entry] for entry in entries], values)
        for columns in load_value_slots(blobs, slots):
            here = (columns.state != State.ABSENT)[which]
            held.update(listed.no[np.array(entries)[here]].tolist())
    return held


def _history_columns(pv: _Pv, group: _Group, snapshot: I8, count: int) -> tuple[Columns, Columns]:
    """Setpoint and readback, a row for each of `count` snapshots, `snapshot` of each entry."""
    history = group.history
    first, last = group.entries.start, group.entries.stop
    pages = history.page[first:last]
    parts: dict[int, list[Columns]] = {ROLE_SETPOINT: [], ROLE_READBACK: []}
    ranks: dict[int, list[I8]] = {ROLE_SETPOINT: [], ROLE_READBACK: []}
    for page in np.unique(pv.channels >> PAGE_SHIFT).tolist():
        mine = np.flatnonzero(pv.channels >> PAGE_SHIFT == page)
        entries = np.flatnonzero(pages == page)
        if len(entries) == 0:
            continue
        slots = (pv.channels[mine] & PAGE_MASK).tolist()
        value_hashes = [history.value_hash[first + e] for e in entries.tolist()]
        times_hashes = [history.times_hash[first + e] for e in entries.tolist()]
        blobs, which = _distinct_pages(value_hashes, group.stored)
        values = load_value_slots(blobs, slots)
        blobs, when = _distinct_pages(times_hashes, group.stored)
        times = load_times_slots(blobs, slots)
        for channel, columns, (receive_time, origin) in zip(
            mine.tolist(), values, times, strict=True
        ):
            whole = replace(
                columns.take_rows(which), receive_time=receive_time[when], origin=origin[when]
            )
            here = whole.state != State.ABSENT
            key = np.full(int(here.sum()), pv.channels[channel])
            role = int(pv.roles[channel])
            parts[role].append(whole.take_rows(here).with_key(key))
            ranks[role].append(snapshot[entries[here]])
    setpoint, readback = (
        _by_snapshot(parts[role], ranks[role], count) for role in (ROLE_SETPOINT, ROLE_READBACK)
    )
    return setpoint, readback


def _distinct_pages(
    hashes: Sequence[PageHash], pages: Mapping[PageHash, bytes]
) -> tuple[list[bytes], I8]:
    """(the different pages among those called so, which of these each is)."""
    places = {h: i for i, h in enumerate(dict.fromkeys(hashes))}
    return [pages[h] for h in places], np.array([places[h] for h in hashes], np.int64)


def _by_snapshot(parts: Sequence[Columns], ranks: Sequence[I8], count: int) -> Columns:
    """A row for each of `count` snapshots: those of the parts by their ranks, else absent."""
    every = Columns.concat_columns([Columns.empty_columns(1), *parts])
    row = np.zeros(count, np.int64)
    if ranks:
        rank = np.concatenate(ranks)
        row[rank] = np.arange(1, len(rank) + 1)
    return every.take_rows(row)


def _point_fields(pv: _Pv, group: _Group) -> list[bytes]:
    """The field `points = 1` of each snapshot that has the PV."""
    history = group.history
    first, last = group.entries.start, group.entries.stop
    begins = np.diff(history.no[first:last], prepend=-1) != 0
    snapshot: I8 = np.cumsum(begins) - 1
    begin = first + np.flatnonzero(begins)
    setpoint, readback = _history_columns(pv, group, snapshot, len(begin))
    rows = np.flatnonzero((setpoint.state != State.ABSENT) | (readback.state != State.ABSENT))
    n = len(rows)
    encoder = RowEncoder([pv.name], np.array([pv.number], np.int64))
    sp, rb = setpoint.take_rows(rows), readback.take_rows(rows)
    encoded = encoder.encode_rows(
        np.zeros(n, np.int64),
        sp,
        rb,
        sp_present=sp.state != State.ABSENT,
        rb_present=rb.state != State.ABSENT,
    )
    out: list[bytes] = []
    for head, row in zip(_point_heads(history, begin[rows]), encoded, strict=True):
        # A row is field 1 of its own message; here it is field 3. One that was split into parts
        # becomes as many points of the same snapshot.
        fields = [row] if len(row) <= MAX_CHUNK_BYTES else chunk_rows([row], 1)
        out += [wrap_payload(1, head + field[1:]) for field in fields]
    return out


def _point_heads(history: HistoryList, entries: I8) -> list[bytes]:
    """What comes before the row in the points of these entries, the tag of the row included."""
    heads = np.empty(len(entries), _HEAD)
    heads["id_tag"], heads["time_tag"], heads["row_tag"] = 0x240A, 0x11, 0x1A
    heads["time"] = history.time_ns[entries]
    ids = np.frombuffer(b"".join(history.id[entry] for entry in entries.tolist()), np.uint8)
    digits = _HEX[ids].reshape(len(entries), 32)
    text = heads["id"]
    text[:] = ord("-")
    text[:, _DIGITS] = digits
    raw = heads.tobytes()
    return [raw[start : start + _HEAD.itemsize] for start in range(0, len(raw), _HEAD.itemsize)]
