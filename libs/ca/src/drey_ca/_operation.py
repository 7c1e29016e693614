"""Bulk requests: many rows, one deadline, a bounded number under way to each server."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_ca import _dbr as dbr
from drey_ca import _libca as ca
from drey_ca._decode import Event
from drey_ca._encode import Wire
from drey_ca._inbox import Reply
from drey_ca._store import Store
from drey_ca.eca import ECA, ECA_NORMAL
from drey_ca.interface import Slots
from drey_core.values import State

WINDOW_BYTES = 128 << 10
"""Request bytes under way to one server: below what makes libca's send calls block."""

BURST = 250
"""Puts with completion that one server gets before it answers some.

An IOC announces each completion through a queue of 2,000 entries, and loses those that find it
full: such a put never completes, and the next to its channel blocks the circuit for a minute.
"""

PAUSE = 0.05
"""Seconds of silence after which a server has slow devices, not a full queue, and gets more."""

_HEADER_BYTES = 32
_PENDING = -1
_DISCONN = int(ECA.DISCONN)


@dataclass(slots=True)
class _Burst:
    """What one server was sent and has not answered, in this lap."""

    recent: int = 0
    lap: int = 0
    answers: int = 0
    last: int = 0
    timer: asyncio.TimerHandle | None = None


class Operation:
    """One bulk request. Rows not connected wait for connection until the deadline.

    A window for each server, so that one that hangs keeps no other's rows from being sent.
    Subclasses say how a row is sent (`_send`) and what a lost connection means (`_lost`).
    """

    right = 0
    burst = 1 << 30
    denied = ECA.NORDACCESS
    unsent = ECA.TIMEOUT

    def __init__(self, store: Store, slots: Slots, number: int) -> None:
        self.store, self.slots, self.number = store, slots, number
        self.code = np.full(len(slots), _PENDING, np.int32)
        self._left = len(slots)
        self._done = asyncio.Event()
        self._queue: dict[int, deque[int]] = defaultdict(deque)
        self._under_way: dict[int, int] = defaultdict(int)
        self._host = np.zeros(len(slots), np.int64)
        self._sent = np.zeros(len(slots), np.bool_)
        self._lap = np.zeros(len(slots), np.int64)
        self._bursts: dict[int, _Burst] = defaultdict(_Burst)
        self._waiting: dict[int, list[int]] = defaultdict(list)

    def start(self) -> None:
        """Send what can be sent; the rest waits for its channel."""
        connected = self.store.state[self.slots] == State.CONNECTED
        for i in np.flatnonzero(~connected).tolist():
            self._waiting[int(self.slots[i])].append(i)
        self._enqueue(np.flatnonzero(connected))
        self._finish_if_done()

    def connected(self, slots: list[int]) -> None:
        """These channels are connected now."""
        rows = [i for slot in slots for i in self._waiting.pop(slot, ())]
        if rows:
            self._enqueue(np.array(rows, np.int64))

    def removed(self, slots: set[int]) -> None:
        """These channels are gone: no answer will come."""
        for i in np.flatnonzero(np.isin(self.slots, list(slots))).tolist():
            if self.code[i] == _PENDING:
                if self._sent[i]:
                    self._answered_by(int(self._host[i]), i)
                self._settle(i, self._removed_code(i))
        for slot in slots:
            self._waiting.pop(slot, None)

    def _enqueue(self, rows: NDArray[np.int64]) -> None:
        allowed = (self.store.rights[self.slots[rows]] & self.right) != 0
        for i in rows[~allowed].tolist():
            self._settle(i, self.denied)
        rows = self._prepare(rows[allowed])
        self._host[rows] = self.store.host_id[self.slots[rows]]
        for host in np.unique(self._host[rows]).tolist():
            self._queue[host].extend(rows[self._host[rows] == host].tolist())
            self.pump(host)

    def pump(self, host: int) -> None:
        """Send to `host` until its window is full."""
        queue = self._queue[host]
        while queue and self._has_room(host, queue[0]):
            i = queue.popleft()
            if self.code[i] != _PENDING:
                continue
            status = self._send(i)
            if status == _DISCONN:
                self._waiting[int(self.slots[i])].append(i)  # libca knows before we do
            elif status != ECA_NORMAL:
                self._settle(i, status)
            elif self._answered():
                self._sent[i] = True
                self._under_way[host] += self._cost(i)
                self._bursts[host].recent += 1
                self._lap[i] = self._bursts[host].lap
            else:
                self._settle(i, ECA_NORMAL)
        ca.flush_io()
        if queue and self._bursts[host].recent >= self.burst:
            self._pause(host)

    def _has_room(self, host: int, i: int) -> bool:
        used = self._under_way[host]
        fits = used == 0 or used + self._cost(i) <= WINDOW_BYTES
        return fits and self._bursts[host].recent < self.burst

    def _pause(self, host: int) -> None:
        """Look again after a while whether `host` is silent."""
        burst = self._bursts[host]
        if burst.timer is None:
            burst.last = burst.answers
            burst.timer = asyncio.get_running_loop().call_later(PAUSE, self._after_pause, host)

    def _after_pause(self, host: int) -> None:
        burst = self._bursts[host]
        burst.timer = None
        if self._done.is_set() or not self._queue[host]:
            return
        if burst.answers == burst.last:
            burst.lap += 1
            burst.recent = 0
        self.pump(host)

    def _answered_by(self, host: int, i: int) -> None:
        burst = self._bursts[host]
        self._under_way[host] -= self._cost(i)
        burst.answers += 1
        burst.recent -= int(self._lap[i] == burst.lap)

    def reply(self, i: int, reply: Reply) -> int | None:
        """Take the answer to row i; the host whose window has room again, if one has."""
        if self.code[i] != _PENDING or not self._sent[i]:
            return None
        host = int(self._host[i])
        self._answered_by(host, i)
        if reply.status == _DISCONN:
            self._lost(i)
        else:
            self._settle(i, self._accept(i, reply))
        room = self._bursts[host].recent < self.burst // 2
        return host if room and self._under_way[host] < WINDOW_BYTES // 2 else None

    def _settle(self, i: int, code: int) -> None:
        if self.code[i] == _PENDING:
            self.code[i] = code
            self._left -= 1
            self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._left == 0:
            self._done.set()

    def stop(self) -> None:
        """Send nothing more."""
        self._queue.clear()
        for burst in self._bursts.values():
            if burst.timer is not None:
                burst.timer.cancel()

    async def finish(self, timeout: float) -> None:
        """Wait for all rows or the deadline, and give every row its code."""
        try:
            async with asyncio.timeout(max(timeout, 0)):
                await self._done.wait()
        except TimeoutError:
            pending = self.code == _PENDING
            waiting = [i for rows in self._waiting.values() for i in rows]
            self.code[pending] = np.where(self._sent[pending], ECA.TIMEOUT, self.unsent)
            self.code[[i for i in waiting if pending[i]]] = ECA.DISCONN

    def _removed_code(self, i: int) -> ECA:
        return ECA.CHANDESTROY

    def _prepare(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows

    def _answered(self) -> bool:
        return True

    def _cost(self, i: int) -> int:
        return _HEADER_BYTES

    def _token(self, i: int) -> int:
        return self.number << 32 | i

    def _accept(self, i: int, reply: Reply) -> int:
        """Keep what the answer brought, here nothing; the row's code."""
        return reply.status

    def _send(self, i: int) -> int:
        raise NotImplementedError

    def _lost(self, i: int) -> None:
        raise NotImplementedError


class ReadOperation(Operation):
    """A get of each row, repeated if the connection is lost before the answer.

    In DBR type `basic`, or where that is None in each channel's own.
    """

    right = 1

    def __init__(
        self,
        store: Store,
        slots: Slots,
        number: int,
        callback: Callable[..., None],
        basic: int | None,
    ) -> None:
        super().__init__(store, slots, number)
        self._callback, self._basic = callback, basic
        self._asked_basic = np.zeros(len(slots), np.int64)
        self.asked_count = np.zeros(len(slots), np.int64)
        self.events: dict[int, Event] = {}

    def _send(self, i: int) -> int:
        slot = int(self.slots[i])
        basic = int(self.store.native[slot]) if self._basic is None else self._basic
        chid = int(self.store.chid[slot])
        count = int(self.store.count[slot])
        self._asked_basic[i], self.asked_count[i] = basic, count
        want = 1 if count == 1 else 0
        return int(
            ca.array_get_callback(basic + dbr.TIME, want, chid, self._callback, self._token(i))
        )

    def _accept(self, i: int, reply: Reply) -> int:
        event, asked = reply.event, int(self.asked_count[i])
        if event is None:
            return reply.status
        if event.basic != self._asked_basic[i]:
            return int(ECA.BADTYPE)
        if event.elements > asked or (asked == 1 and event.elements != 1):
            return int(ECA.BADCOUNT)
        self.events[i] = event
        return reply.status

    def _lost(self, i: int) -> None:
        self._sent[i] = False
        slot = int(self.slots[i])
        self._waiting[slot].append(i)
        if self.store.state[slot] == State.CONNECTED:  # back already: no event will follow
            self.connected([slot])


class WriteOperation(Operation):
    """A put of each row; with completion a put-callback."""

    right = 2
    burst = BURST
    denied = ECA.NOWTACCESS
    unsent = ECA.UNRESPTMO

    def __init__(
        self,
        store: Store,
        slots: Slots,
        number: int,
        callback: Callable[..., None],
        encoder: Callable[[NDArray[np.int64]], Wire],
        completion: bool,
    ) -> None:
        super().__init__(store, slots, number)
        self._callback, self._encoder, self._completion = callback, encoder, completion
        n = len(slots)
        self._basic, self._count = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._size = np.zeros(n, np.int64)
        self._cell = np.zeros(n, np.uint64)
        self._blob: list[bytes | None] = [None] * n

    def _prepare(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(rows):
            return rows
        wire = self._encoder(rows)
        for i, code in zip(rows.tolist(), wire.code.tolist(), strict=True):
            if code != ECA_NORMAL:
                self._settle(i, code)
        self._basic[rows], self._count[rows] = wire.basic, wire.count
        self._cell[rows], self._size[rows] = wire.cell, wire.size()
        for i, blob in zip(rows.tolist(), wire.blob, strict=True):
            self._blob[i] = blob
        good: NDArray[np.int64] = rows[wire.code == ECA_NORMAL]
        return good

    def unanswered(self) -> dict[int, int]:
        """Slots by token of what was handed over and has no answer."""
        rows = np.flatnonzero(self._sent & ((self.code == _PENDING) | (self.code == ECA.TIMEOUT)))
        return {self._token(i): int(self.slots[i]) for i in rows.tolist()}

    def _removed_code(self, i: int) -> ECA:
        return ECA.TIMEOUT if self._sent[i] else ECA.CHANDESTROY

    def _answered(self) -> bool:
        return self._completion

    def _cost(self, i: int) -> int:
        return _HEADER_BYTES + int(self._size[i])

    def _send(self, i: int) -> int:
        blob = self._blob[i]
        data = int(self._cell.ctypes.data) + 8 * i if blob is None else blob
        head = int(self._basic[i]), int(self._count[i]), int(self.store.chid[self.slots[i]]), data
        if self._completion:
            return int(ca.array_put_callback(*head, self._callback, self._token(i)))
        return int(ca.array_put(*head))

    def _lost(self, i: int) -> None:
        # It was sent, and whether it was done nobody knows: never to be sent again by us.
        self._settle(i, ECA.TIMEOUT)
