"""The rows of a table: what is known of each channel, in columns that grow by doubling."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_ca._dbr import LIMITS, SCALAR_KIND
from drey_ca._decode import Decoded, metadata
from drey_ca.interface import InfoColumns, Slots
from drey_core.values import ARRAY, KIND_NONE, Columns, Kind, Origin, State, heap_mask

_COLUMNS: dict[str, Any] = {
    "chid": np.uint64,
    "generation": np.int64,
    "used": np.bool_,
    "long_string": np.bool_,
    "wanted": np.bool_,
    "native": np.int64,
    "count": np.int64,
    "rights": np.uint8,
    "host_id": np.int64,
    "state_time": np.int64,
    "value_sub": np.uint64,
    "property_sub": np.uint64,
    "kind": np.uint8,
    "state": np.uint8,
    "severity": np.uint8,
    "status": np.uint16,
    "source_time": np.int64,
    "receive_time": np.int64,
    "data": np.uint64,
    "merged": np.int64,
    "dirty": np.bool_,
    "unseen": np.bool_,
    "info_dirty": np.bool_,
    "precision": np.int16,
}


class Store:
    """Columns by slot. A freed slot is used again last, under a new generation."""

    chid: NDArray[np.uint64]
    generation: NDArray[np.int64]
    used: NDArray[np.bool_]
    long_string: NDArray[np.bool_]
    wanted: NDArray[np.bool_]
    native: NDArray[np.int64]
    count: NDArray[np.int64]
    rights: NDArray[np.uint8]
    host_id: NDArray[np.int64]
    state_time: NDArray[np.int64]
    value_sub: NDArray[np.uint64]
    property_sub: NDArray[np.uint64]
    kind: NDArray[np.uint8]
    state: NDArray[np.uint8]
    severity: NDArray[np.uint8]
    status: NDArray[np.uint16]
    source_time: NDArray[np.int64]
    receive_time: NDArray[np.int64]
    data: NDArray[np.uint64]
    merged: NDArray[np.int64]
    dirty: NDArray[np.bool_]
    unseen: NDArray[np.bool_]
    info_dirty: NDArray[np.bool_]
    precision: NDArray[np.int16]

    def __init__(self) -> None:
        self._capacity = 0
        self._free: deque[int] = deque()
        self._cursor = 0
        for name, dtype in _COLUMNS.items():
            setattr(self, name, np.zeros(0, dtype))
        self.limits = np.zeros((0, len(LIMITS)))
        self.blob: list[bytes | None] = []
        self.units: list[bytes] = []
        self.said: list[bytes] = []
        self.labels: list[tuple[bytes, ...]] = []
        self.host: list[str] = []

    def allocate(self, long_string: list[bool]) -> Slots:
        """Fresh slots, one for each entry, in a never-connected state."""
        n = len(long_string)
        if len(self._free) < n:
            self._grow(n - len(self._free))
        slots = np.array([self._free.popleft() for _ in range(n)], np.int64)
        for name in _COLUMNS:
            if name != "generation":
                getattr(self, name)[slots] = 0
        self.used[slots] = True
        self.long_string[slots] = long_string
        self.native[slots] = -1
        self.state[slots] = State.NEVER_CONNECTED
        for slot in slots.tolist():
            self._clear_lists(slot)
        self.forget_metadata(slots)
        return slots

    def release(self, slots: Slots) -> None:
        """Give slots back; tokens of their generation are dead from here on."""
        self.used[slots] = False
        self.dirty[slots] = False
        self.info_dirty[slots] = False
        self.generation[slots] += 1
        self._free.extend(slots.tolist())
        for slot in slots.tolist():
            self._clear_lists(slot)

    def _clear_lists(self, slot: int) -> None:
        self.blob[slot], self.units[slot], self.labels[slot] = None, b"", ()
        self.host[slot], self.said[slot] = "", b""

    def _grow(self, needed: int) -> None:
        old = self._capacity
        new = max(64, 2 * old, old + needed)
        for name, dtype in _COLUMNS.items():
            column = np.zeros(new, dtype)
            column[:old] = getattr(self, name)
            setattr(self, name, column)
        self.limits = np.vstack([self.limits, np.full((new - old, len(LIMITS)), np.nan)])
        self.blob += [None] * (new - old)
        self.units += [b""] * (new - old)
        self.said += [b""] * (new - old)
        self.labels += [()] * (new - old)
        self.host += [""] * (new - old)
        self._free.extend(range(old, new))
        self._capacity = new

    def check(self, slots: Slots) -> Slots:
        """`slots` as int64; KeyError naming the first that is not in use."""
        rows = np.asarray(slots, np.int64).reshape(-1)
        inside = (rows >= 0) & (rows < self._capacity)
        if not inside.all():
            raise KeyError(int(rows[~inside][0]))
        known = self.used[rows]
        if not known.all():
            raise KeyError(int(rows[~known][0]))
        return rows

    def token(self, slot: int) -> int:
        """The integer that libca hands back for this slot's present generation."""
        return int(self.generation[slot]) << 32 | slot

    def slot(self, token: int) -> int:
        """The slot of a token, or -1 when that slot has been removed since."""
        slot = token & 0xFFFF_FFFF
        alive = slot < self._capacity and self.used[slot]
        return slot if alive and self.generation[slot] == token >> 32 else -1

    def is_array(self, slots: Slots) -> NDArray[np.bool_]:
        """Which of them have values of more than one element."""
        array: NDArray[np.bool_] = (self.count[slots] != 1) & ~self.long_string[slots]
        return array

    def store(self, slots: Slots, got: Decoded, received: list[int], merged: list[int]) -> None:
        """Make decoded events the latest values; what they replace unseen counts as merged."""
        self.merged[slots] += np.asarray(merged, np.int64) + self.unseen[slots]
        self.kind[slots], self.data[slots] = got.kind, got.data
        self.severity[slots], self.status[slots] = got.severity, got.status
        self.source_time[slots] = got.source_time
        self.receive_time[slots] = received
        self.dirty[slots] = True
        self.unseen[slots] = True
        for slot, blob in zip(slots.tolist(), got.blob, strict=True):
            self.blob[slot] = blob

    def forget_value(self, slots: Slots) -> None:
        """No value any more: what comes next is of another type."""
        self.kind[slots], self.data[slots], self.severity[slots] = KIND_NONE, 0, 0
        self.unseen[slots] = False
        self.status[slots], self.source_time[slots], self.receive_time[slots] = 0, 0, 0
        for slot in slots.tolist():
            self.blob[slot] = None

    def forget_metadata(self, slots: Slots) -> None:
        """No metadata any more, for the same reason."""
        self.precision[slots] = -1
        self.limits[slots] = np.nan
        for slot in slots.tolist():
            self.units[slot], self.labels[slot], self.said[slot] = b"", (), b""

    def store_metadata(self, slot: int, basic: int, raw: bytes) -> None:
        """Keep a `dbr_ctrl_*` structure of DBR type `basic`, and mark the slot if it is news."""
        said = raw[4:]  # after status and severity, which belong to the value
        if said == self.said[slot]:
            return
        self.said[slot] = said
        got = metadata(basic, raw)
        self.precision[slot], self.limits[slot] = got.precision, got.limits
        self.units[slot], self.labels[slot] = got.units, got.labels
        self.info_dirty[slot] = True

    def take_dirty(self, max_heap: int) -> Columns:
        """The dirty rows, ascending, as far as `max_heap` allows, and no longer dirty."""
        slots = np.flatnonzero(self.dirty)
        slots, heap, cells = self._gather(slots, max_heap)
        self.dirty[slots] = False
        self.unseen[slots] = False
        merged = np.minimum(self.merged[slots], 0xFFFF_FFFF).astype(np.uint32)
        self.merged[slots] = 0
        kind = self.kind[slots]
        return Columns(
            slots,
            kind,
            self.state[slots],
            np.where(kind == KIND_NONE, Origin.NONE, Origin.MONITOR).astype(np.uint8),
            self.severity[slots],
            self.status[slots],
            self.source_time[slots],
            self.receive_time[slots],
            cells,
            merged,
            heap,
        )

    def _gather(self, slots: Slots, max_heap: int) -> tuple[Slots, bytes, NDArray[np.uint64]]:
        """Slots within the budget, their heap and their `data` cells."""
        heaped = slots[heap_mask(self.kind[slots])]
        # Begin where the last drain stopped, so that a busy low slot starves no high one.
        turn = np.roll(heaped, -int(np.searchsorted(heaped, self._cursor)))
        left: list[int] = []
        chosen: list[int] = []
        room = max_heap
        for at, slot in enumerate(turn.tolist()):
            size = len(self.blob[slot] or b"")
            if chosen and size > room:
                left = turn[at:].tolist()
                self._cursor = slot
                break
            room -= size
            chosen.append(slot)
        if left:
            slots = np.setdiff1d(slots, np.array(left, np.int64), assume_unique=True)
        heap, cells = join_heap(sorted(chosen), self.blob)
        data = self.data[slots]
        data[np.searchsorted(slots, np.array(sorted(chosen), np.int64))] = cells
        return slots, heap, data

    def info(self, slots: Slots) -> InfoColumns:
        """See `ChannelTable.info`."""
        rights = self.rights[slots]
        listed = slots.tolist()
        limits = {name: self.limits[slots, i] for i, name in enumerate(LIMITS)}
        return InfoColumns(
            slot=slots.copy(),
            kind=self._native_kind(slots),
            count=self.count[slots],
            state_time=self.state_time[slots],
            readable=(rights & 1).astype(np.bool_),
            writable=(rights & 2).astype(np.bool_),
            precision=self.precision[slots],
            units=[self.units[i] for i in listed],
            labels=[self.labels[i] for i in listed],
            host=[self.host[i] for i in listed],
            **limits,
        )

    def _native_kind(self, slots: Slots) -> NDArray[np.uint8]:
        native = self.native[slots]
        table = np.array([*SCALAR_KIND, KIND_NONE], np.uint8)  # -1 finds the last
        array = np.where(self.is_array(slots) & (native >= 0), ARRAY, 0)
        kind = table[native] | array.astype(np.uint8)
        long_string = self.long_string[slots] & (native >= 0)
        return np.where(long_string, np.uint8(Kind.STRING), kind).astype(np.uint8)


def join_heap(rows: list[int], blob: list[bytes | None]) -> tuple[bytes, NDArray[np.uint64]]:
    """The heap of `rows` laid end to end, and the `data` cell of each."""
    parts = [blob[row] or b"" for row in rows]
    length = np.fromiter(map(len, parts), np.uint64, len(parts))
    end = np.cumsum(length, dtype=np.uint64)
    cells: NDArray[np.uint64] = (length << np.uint64(32)) | (end - length)
    return b"".join(parts), cells
