"""One PV through all snapshots: one index range for each of its channels' pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np

from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT
from drey_core.errors import NotFound
from drey_core.pages import PAGE_MASK, PAGE_SHIFT
from drey_core.values import I8, Columns, State
from drey_core.wire import MAX_CHUNK_BYTES, RowEncoder, chunk, wrap
from drey_runtime.database import Connection
from drey_snapshot.snapshots.adapters.library import Library
from drey_snapshot.snapshots.adapters.store import HistoryEntry, SnapshotStore
from drey_snapshot.snapshots.domain.codec import join_pages

_SNAPSHOTS_AT_ONCE = 500


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


class Historian:
    """Reads histories."""

    def __init__(self, store: SnapshotStore, library: Library) -> None:
        self._store, self._library = store, library

    async def history(self, order: HistoryOrder) -> AsyncIterator[bytes]:
        """`GetPvHistoryResponse` messages, newest first; deleted PVs too. `NotFound`.

        A PV whose address was changed has the values of whichever channel it had then. Enums come
        without labels.
        """
        pv = await self._find(order)
        pages = np.unique(pv.channels >> PAGE_SHIFT).tolist()
        entries = await self._store.history(pages, order.from_time_ns, order.to_time_ns)
        for group in _by_snapshot(entries):
            values = await self._columns(pv, group)
            for message in chunk(_points(pv, group, values)):
                yield message

    async def _find(self, order: HistoryOrder) -> _Pv:
        async def fetch(conn: Connection) -> _Pv | None:
            row = await conn.fetchrow(
                "SELECT number, name FROM catalog.pv WHERE CASE WHEN $1::bigint <> 0"
                " THEN number = $1 ELSE name = $2 END ORDER BY delete_time_ns = 0 DESC,"
                " number DESC LIMIT 1",
                order.number,
                order.name,
            )
            if row is None:
                return None
            channels = await conn.fetch(
                "SELECT number, role FROM catalog.channel WHERE pv_number = $1"
                " AND ($2::smallint = 0 OR role = $2) ORDER BY number",
                row["number"],
                order.role,
            )
            return _Pv(
                row["number"],
                row["name"],
                np.array([c["number"] for c in channels], np.int64),
                np.array([c["role"] for c in channels], np.int64),
            )

        async with self._store.db.acquire() as conn:
            found = await fetch(conn)
        if found is None:
            wanted = order.name if not order.number else str(order.number)
            raise NotFound(
                f"no PV was ever called {wanted}",
                field="number" if order.number else "name",
                metadata={"resource": "pv", "id": wanted},
            )
        return found

    async def _columns(self, pv: _Pv, group: Sequence[HistoryEntry]) -> list[Columns]:
        """For setpoint and readback: a row for each snapshot of the group."""
        values, times = await asyncio.gather(
            self._library.value_pages([e.entry.value_hash for e in group]),
            self._library.times_pages([e.entry.times_hash for e in group]),
        )
        # All pages of the group as one set: page i of it is entry i.
        pages = join_pages(
            np.arange(len(group)),
            [values[e.entry.value_hash] for e in group],
            [times[e.entry.times_hash] for e in group],
        )
        state = pages.values["state"]
        number = np.array([e.entry.page for e in group])
        snapshot = _ranks([e.no for e in group])
        n = int(snapshot[-1]) + 1
        out = []
        for role in (ROLE_SETPOINT, ROLE_READBACK):
            asked = np.full(n, len(group) << PAGE_SHIFT, np.int64)
            real = np.zeros(n, np.int64)
            for channel in pv.channels[pv.roles == role].tolist():
                slot = channel & PAGE_MASK
                entry = np.flatnonzero(number == channel >> PAGE_SHIFT)
                entry = entry[state[entry, slot] != State.ABSENT]
                asked[snapshot[entry]] = entry << PAGE_SHIFT | slot
                real[snapshot[entry]] = channel
            out.append(pages.columns(asked).with_key(real))
        return out


def _ranks(numbers: Sequence[int]) -> I8:
    """Which of the different ones, in their order, each is; equal ones stand together."""
    array = np.array(numbers)
    ranks: I8 = np.cumsum(np.concatenate([[False], array[1:] != array[:-1]]))
    return ranks


def _by_snapshot(entries: Sequence[HistoryEntry]) -> list[list[HistoryEntry]]:
    """Groups of whole snapshots, in order."""
    groups: list[list[HistoryEntry]] = []
    seen = 0
    last: int | None = None
    for entry in entries:
        if entry.no != last:
            if seen % _SNAPSHOTS_AT_ONCE == 0:
                groups.append([])
            seen, last = seen + 1, entry.no
        groups[-1].append(entry)
    return groups


def _points(pv: _Pv, group: Sequence[HistoryEntry], values: Sequence[Columns]) -> list[bytes]:
    """The field `points = 1` of each snapshot that has the PV."""
    setpoint, readback = values
    firsts = list({e.no: e for e in reversed(group)}.values())[::-1]
    has = (setpoint.state != State.ABSENT) | (readback.state != State.ABSENT)
    rows = np.flatnonzero(has)
    n = len(rows)
    encoder = RowEncoder([pv.name] * n, np.full(n, pv.number, np.int64))
    sp, rb = setpoint.take(rows), readback.take(rows)
    encoded = encoder.encode(
        np.arange(n),
        sp,
        rb,
        sp_present=sp.state != State.ABSENT,
        rb_present=rb.state != State.ABSENT,
    )
    out: list[bytes] = []
    for at, row in zip(rows.tolist(), encoded, strict=True):
        entry = firsts[at]
        head = (
            wrap(1, entry.id.encode()) + b"\x11" + entry.time_ns.to_bytes(8, "little", signed=True)
        )
        # A row is field 1 of its own message; here it is field 3. One that was split into parts
        # becomes as many points of the same snapshot.
        fields = [row] if len(row) <= MAX_CHUNK_BYTES else chunk([row], 1)
        out += [wrap(1, head + b"\x1a" + field[1:]) for field in fields]
    return out
