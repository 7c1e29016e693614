"""The asyncio side of the native channel table: `drey_ca.interface.ChannelTable` over `_native`."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from drey_ca import _process
from drey_ca._dbr import LIMITS, dbr_type
from drey_ca._encode import encode_value
from drey_ca._native import Bulk, Table
from drey_ca.eca import ECA, ECA_NORMAL, name
from drey_ca.interface import (
    Connections,
    InfoColumns,
    ReadResult,
    ServedTwice,
    Slots,
    TableStats,
)
from drey_ca.names import checked_names
from drey_core.distinct import distinct_values
from drey_core.errors import InvalidArgument
from drey_core.values import Columns, Kind, State, heap_mask

log = logging.getLogger(__name__)

_READ, _WRITE_AND_WAIT, _WRITE_ONLY = range(3)
_CLOSE_SECONDS = 0.8
_SETTLE_SECONDS = 0.002
"""How long connection events are gathered before waiters are looked at."""

_SERVED_TWICE = re.compile(r'Channel: "(.*)", Connecting to: (.*), Ignored: (.*)')

_open_tables: weakref.WeakSet[NativeTable] = weakref.WeakSet()


class NativeTable:
    """`drey_ca.interface.ChannelTable` in C. Use it as a scope, inside the loop that opened it.

    Opening starts the table's thread and its Channel Access context, which reads `EPICS_CA_*` as
    they are then; leaving the scope ends both. Raises `RuntimeError` in a process that was forked
    from one that used Channel Access: libca's threads did not come along.
    """

    withdraws_writes = True

    def __init__(self) -> None:
        self._process = _process.claim_process()
        self._loop = asyncio.get_running_loop()
        self._loop_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._table = Table(self._loop_fd, self._thread_fd)
        self._thread = threading.Thread(target=self._table.run, name="drey-ca", daemon=True)
        self._commands: dict[int, asyncio.Future[None]] = {}
        self._bulks: dict[Bulk, asyncio.Event] = {}
        self._waiters: dict[asyncio.Event, _ConnectionWait] = {}
        self._wake = asyncio.Event()
        self._started: asyncio.Future[int] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._changes = 0
        self._settling: asyncio.TimerHandle | None = None
        self._exceptions = 0
        self._closed = False

    async def __aenter__(self) -> NativeTable:
        self._loop.add_reader(self._loop_fd, self._on_wake)
        _open_tables.add(self)
        self._thread.start()
        code = await self._started
        if code != ECA_NORMAL:
            await self.close_table()
            raise RuntimeError(f"libca gave no Channel Access context: {name(code)}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close_table()

    @property
    def implementation_name(self) -> str:
        """`native`."""
        return "native"

    # -- channels ---------------------------------------------------------------------------

    async def add_channels(self, names: Sequence[str]) -> Slots:
        """See `ChannelTable.add_channels`. Cancelled half-way, it takes back what it had made."""
        self._check_open()
        slots, command = self._table.add(checked_names(names))
        try:
            await self._command_done(command)
            code = self._table.add_failure()
            if code != 0:
                raise InvalidArgument(f"no channel can be made: {name(code)}", field="names")
        except BaseException:
            if not self._closed and len(slots):
                self._table.remove(slots)
            raise
        return slots

    async def remove_slots(self, slots: Slots) -> None:
        """See `ChannelTable.remove_slots`. Cancelled, they are removed all the same."""
        self._check_open()
        command = self._table.remove(distinct_values(self._checked_slots(slots)))
        await self._command_done(command)

    async def _command_done(self, number: int) -> None:
        if number:
            done = self._commands[number] = self._loop.create_future()
            await done
            self._check_open()

    async def wait_connected(self, slots: Slots, timeout: float) -> NDArray[np.bool_]:
        """See `ChannelTable.wait_connected`. Of slots removed meanwhile: False."""
        self._check_open()
        rows = self._checked_slots(slots).copy()
        wait = _ConnectionWait(self._table, rows)
        if not wait.wait_over():
            event = asyncio.Event()
            self._waiters[event] = wait
            try:
                async with asyncio.timeout(max(timeout, 0)):
                    await event.wait()
            except TimeoutError:
                pass  # the answer says which are missing
            finally:
                del self._waiters[event]
        return wait.connected()

    # -- values -----------------------------------------------------------------------------

    async def subscribe_slots(self, slots: Slots) -> None:
        """See `ChannelTable.subscribe_slots`."""
        self._check_open()
        self._table.want(self._checked_slots(slots))

    async def wait_dirty(self) -> None:
        """See `ChannelTable.wait_dirty`."""
        self._check_open()
        while not self._table.has_dirty():
            self._wake.clear()
            await self._wake.wait()
            self._check_open()

    def drain_updates(self, max_heap: int = 64 << 20) -> Columns:
        """See `ChannelTable.drain_updates`."""
        self._check_open()
        return _result_columns(self._table.drain(max_heap))

    def drain_info(self) -> Slots:
        """See `ChannelTable.drain_info`."""
        self._check_open()
        return self._table.drain_info()

    def read_info(self, slots: Slots) -> InfoColumns:
        """See `ChannelTable.read_info`."""
        self._check_open()
        rows = self._checked_slots(slots).copy()
        kind, count, when, readable, writable, precision, limits, *texts = self._table.info(rows)
        units, labels, host = texts
        return InfoColumns(
            slot=rows,
            kind=kind,
            count=count,
            state_time=when,
            readable=readable,
            writable=writable,
            precision=precision,
            units=units,
            labels=labels,
            host=host,
            **{name: limits[:, i].copy() for i, name in enumerate(LIMITS)},
        )

    # -- bulk requests ----------------------------------------------------------------------

    async def read_values(
        self, slots: Slots, timeout: float, *, kind: Kind | None = None
    ) -> ReadResult:
        """See `ChannelTable.read_values`."""
        self._check_open()
        rows = self._checked_slots(slots)
        asked = -1 if kind is None else self._asked_type(rows, kind)
        bulk = Bulk(self._table, rows, _READ, asked)
        try:
            await self._run_bulk(bulk, None, timeout)
            codes = bulk.finish()
            if self._closed:
                codes[codes == ECA.TIMEOUT] = ECA.CHANDESTROY
            return ReadResult(_result_columns(bulk.values(codes)), codes)
        finally:
            bulk.close()

    def _asked_type(self, rows: Slots, kind: Kind) -> int:
        """The DBR type of `kind`; ValueError where a long string is among the rows."""
        basic = dbr_type(kind)
        texts = rows[self._table.shape(rows)[2]]
        if len(texts):
            raise ValueError(f"the long string in slot {texts[0]} takes no kind")
        return basic

    async def write_values(
        self,
        slots: Slots,
        values: Columns,
        timeout: float,
        *,
        completion: bool = True,
        connected_at: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int32]:
        """See `ChannelTable`. ECA_TIMEOUT also where the server was lost after sending."""
        self._check_open()
        rows = self._checked_slots(slots)
        if len(values) != len(rows):
            raise ValueError(f"{len(values)} values for {len(rows)} slots")
        bulk = Bulk(self._table, rows, _WRITE_AND_WAIT if completion else _WRITE_ONLY, -1)
        try:
            await self._run_bulk(bulk, _Encoder(self._table, rows, values, connected_at), timeout)
            codes = bulk.finish()
            if self._closed:
                codes[(codes == ECA.UNRESPTMO) | (codes == ECA.DISCONN)] = ECA.CHANDESTROY
            return codes
        finally:
            bulk.close()

    def unanswered_slots(self, slots: Slots) -> NDArray[np.bool_]:
        """See `ChannelTable.unanswered_slots`."""
        self._check_open()
        return self._table.unanswered(self._checked_slots(slots)).view(np.bool_)

    async def _run_bulk(self, bulk: Bulk, encoder: _Encoder | None, timeout: float) -> None:
        """Send what can be sent, again whenever there is news, until all is settled."""
        deadline = self._loop.time() + max(timeout, 0)
        event = self._bulks[bulk] = asyncio.Event()
        try:
            while True:
                event.clear()
                rows = bulk.ready()
                if len(rows):
                    if encoder is not None:
                        rows = encoder.load_rows(bulk, rows)
                    bulk.enqueue(rows)
                if bulk.left == 0 or self._closed:
                    return
                async with asyncio.timeout_at(deadline):
                    await event.wait()
        except TimeoutError:
            return  # every row gets its code from what became of it
        finally:
            del self._bulks[bulk]

    # -- wake-ups ---------------------------------------------------------------------------

    def _on_wake(self) -> None:
        with suppress(BlockingIOError):  # taken already
            os.eventfd_read(self._loop_fd)
        start, commands, changes, operation_news, dirty, exceptions, gone = self._table.news()
        if start >= 0 and not self._started.done():
            self._started.set_result(start)
        for number in [n for n in self._commands if n <= commands]:
            future = self._commands.pop(number)
            if not future.done():
                future.set_result(None)
        if changes != self._changes:
            self._changes = changes
            if self._settling is None:
                self._settling = self._loop.call_later(_SETTLE_SECONDS, self._on_connections)
        if operation_news:
            for event in self._bulks.values():
                event.set()
        if dirty:
            self._wake.set()
        if exceptions != self._exceptions:
            self._exceptions = exceptions
            self._report_exception()
        if gone:
            self._on_gone()

    def _on_connections(self) -> None:
        self._settling = None
        for event, wait in self._waiters.items():
            if wait.wait_over():
                event.set()
        for event in self._bulks.values():
            event.set()

    def _on_gone(self) -> None:
        self._gone.set()
        if not self._started.done():
            self._started.set_result(int(ECA.INTERNAL))

    def _report_exception(self) -> None:
        code, context = self._table.last_exception()
        count = self._exceptions
        log.warning("Channel Access reports %s: %s (%d so far)", name(code), context, count)

    # -- servers ----------------------------------------------------------------------------

    def connection_columns(self) -> Connections:
        """See `ChannelTable.connection_columns`."""
        self._check_open()
        server, up, askable, unheard_ns, names = self._table.connections()
        if len(set(names)) < len(names):
            distinct_names = sorted(set(names))
            index = {name: i for i, name in enumerate(distinct_names)}
            places = np.array([index[name] for name in names] + [-1], np.int32)
            server, names = places[server], distinct_names
        return Connections(names, server, up, askable, unheard_ns)

    def take_served_twice(self) -> list[ServedTwice]:
        """See `ChannelTable.take_served_twice`."""
        self._check_open()
        matches = map(_SERVED_TWICE.fullmatch, self._table.take_doubles())
        return list(dict.fromkeys(ServedTwice(*each.groups()) for each in matches if each))

    # -- the rest ---------------------------------------------------------------------------

    def table_stats(self) -> TableStats:
        """See `ChannelTable.table_stats`. `merged` counts as rows are drained."""
        return TableStats(*self._table.stats())

    async def close_table(self) -> None:
        """See `ChannelTable.close_table`. Reads and writes under way end with ECA_CHANDESTROY."""
        if self._closed:
            return
        self._closed = True
        if self._settling is not None:
            self._settling.cancel()
        self._wake.set()
        for event in [*self._bulks.values(), *self._waiters]:
            event.set()
        for future in self._commands.values():
            if not future.done():
                future.set_result(None)
        if self._thread.ident is not None and os.getpid() == self._process:
            await self._stop_thread()

    async def _stop_thread(self) -> None:
        self._table.stop()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._gone.wait()
        except TimeoutError:
            # It goes on waiting for a server that takes nothing, and ends by itself.
            log.warning("a Channel Access server does not let go; its circuit ends in background")
        finally:
            self._loop.remove_reader(self._loop_fd)
            _open_tables.discard(self)
        if self._gone.is_set():
            self._thread.join()
            os.close(self._loop_fd)
            os.close(self._thread_fd)

    def _checked_slots(self, slots: Slots) -> Slots:
        rows = np.ascontiguousarray(np.asarray(slots, np.int64).reshape(-1))
        bad = self._table.unknown(rows)
        if bad >= 0:
            raise KeyError(int(rows[bad]))
        return rows

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the channel table is closed")
        _process.check_process(self._process)


class _ConnectionWait:
    """Whether all of some slots are connected, looked at again from where it last stood."""

    def __init__(self, table: Table, slots: Slots) -> None:
        self._table, self._slots = table, slots
        self._generations = table.generations(slots)
        self._at = 0

    def wait_over(self) -> bool:
        """All are connected or removed. One lost meanwhile is waited for again."""
        self._at = self._first_open(self._at)
        if self._at == len(self._slots):
            self._at = self._first_open(0)
        return self._at == len(self._slots)

    def _first_open(self, start: int) -> int:
        return self._table.first_unconnected(self._slots, self._generations, start)

    def connected(self) -> NDArray[np.bool_]:
        """Which are connected now."""
        up: NDArray[np.bool_] = (
            self._table.states(self._slots, self._generations) == State.CONNECTED
        )
        return up


class _Encoder:
    """Encodes rows of a write for the types that their channels have at the time."""

    def __init__(
        self,
        table: Table,
        slots: Slots,
        values: Columns,
        connected_at: NDArray[np.int64] | None,
    ) -> None:
        self._table, self._slots, self._values = table, slots, values
        self._connected_at = connected_at

    def load_rows(self, bulk: Bulk, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give `bulk` what these rows write; those that can be sent."""
        native, count, long_string, subject, since = self._table.shape(self._slots[rows])
        wire = encode_value(self._values.take_rows(rows), native, count, long_string)
        bad = (wire.code != ECA_NORMAL) & (wire.code != ECA.DISCONN)
        if self._connected_at is not None:
            other = (native >= 0) & (since != self._connected_at[rows])
            bad |= other
            wire.code[other] = ECA.DISCONN
        bulk.refuse(rows[bad], wire.code[bad])
        good = np.flatnonzero(wire.code == ECA_NORMAL)
        heap, offset = _join_heaps(wire.blob, good, heap_mask(self._values.kind[rows[good]]))
        bulk.load(
            rows[good],
            wire.basic[good].astype(np.int16),
            wire.count[good],
            wire.cell[good],
            subject[good],
            since[good],
            offset,
            heap,
        )
        return rows[good]


def _join_heaps(
    blobs: list[bytes | None], rows: NDArray[np.int64], heaped: NDArray[np.bool_]
) -> tuple[bytes, NDArray[np.int64]]:
    """What `rows` have in the heap, end to end, and where each begins, -1 where nothing is."""
    offset = np.full(len(rows), -1, np.int64)
    parts, position = [], 0
    for i in np.flatnonzero(heaped).tolist():
        blob = blobs[rows[i]] or b""
        offset[i] = position
        # An element begins where its type may lie.
        padded = blob + bytes(-len(blob) % 8)
        parts.append(padded)
        position += len(padded)
    return b"".join(parts), offset


def _result_columns(parts: tuple[object, ...]) -> Columns:
    return Columns(*parts)  # type: ignore[arg-type]


@atexit.register
def _stop_all() -> None:
    """End what was left open, so that no callback runs while the interpreter goes away."""
    for table in list(_open_tables):
        if os.getpid() == table._process and table._thread.is_alive():
            table._table.stop()
            table._thread.join(_CLOSE_SECONDS)
