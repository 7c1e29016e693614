"""The channel table over `aioca`'s Channel Access context and `epicscorelibs`' libca."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from drey_ca import _dbr as dbr
from drey_ca import _libca as ca
from drey_ca import _process
from drey_ca._decode import Event, decode
from drey_ca._encode import Wire, encode
from drey_ca._inbox import Connection, Inbox
from drey_ca._metadata import MetadataFetcher
from drey_ca._operation import Operation, ReadOperation, WriteOperation
from drey_ca._store import Store, join_heap
from drey_ca.eca import ECA, ECA_NORMAL, name
from drey_ca.interface import InfoColumns, ReadResult, Slots, TableStats
from drey_ca.names import checked_names
from drey_core.errors import InvalidArgument
from drey_core.values import Columns, Kind, Origin, State

_STRIDE = 1_000
"""Channels made or cleared between two turns of the event loop."""


def is_attached() -> bool:
    """Whether the process's one aioca context exists: it has read its environment for good."""
    return ca.is_attached()


class AiocaTable:
    """`drey_ca.interface.ChannelTable` in Python. Make it inside the loop that will use it."""

    def __init__(self) -> None:
        self._process = _process.claim()
        ca.attach()
        self._store = Store()
        self._inbox = Inbox(asyncio.get_running_loop(), self._on_burst)
        self._fetcher = MetadataFetcher(self._store, self._inbox.metadata_callback)
        self._names: dict[int, bytes] = {}
        self._hosts: dict[str, int] = {}
        self._operations: dict[int, Operation] = {}
        self._operation_number = 0
        self._wake = asyncio.Event()
        self._connection_waiters: list[tuple[Slots, asyncio.Event]] = []
        self._late = 0
        self._unanswered: dict[int, int] = {}
        self._merged = 0
        self._closed = False

    async def __aenter__(self) -> AiocaTable:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def implementation(self) -> str:
        """`aioca`."""
        return "aioca"

    # -- channels ---------------------------------------------------------------------------

    async def add(self, names: Sequence[str]) -> Slots:
        """See `ChannelTable.add`. Cancelled half-way, it takes back what it had made."""
        self._check_open()
        raw = checked_names(names)
        slots = self._store.allocate([text.endswith(b"$") for text in raw])
        listed = slots.tolist()
        self._names.update(zip(listed, raw, strict=True))
        try:
            for at in range(0, len(listed), _STRIDE):
                for slot in listed[at : at + _STRIDE]:
                    self._create(slot)
                ca.flush_io()
                await asyncio.sleep(0)
                self._check_open()
        except BaseException:
            if not self._closed:
                self._drop(listed)
            raise
        return slots

    def _create(self, slot: int) -> None:
        handle = ctypes.c_void_p()
        text, inbox = self._names[slot], self._inbox
        token = self._store.token(slot)
        status = ca.create_channel(text, inbox.connection_callback, token, 0, handle)
        if status != ECA_NORMAL:
            raise InvalidArgument(
                f"no channel can be made for {text.decode()!r}: {name(status)}", field="names"
            )
        self._store.chid[slot] = handle.value or 0
        ca.replace_access_rights_event(handle, inbox.access_callback)

    async def remove(self, slots: Slots) -> None:
        """See `ChannelTable.remove`. Cancelled half-way, the rest remain."""
        self._check_open()
        listed = np.unique(self._store.check(slots)).tolist()
        for at in range(0, len(listed), _STRIDE):
            self._drop([s for s in listed[at : at + _STRIDE] if s in self._names])
            await asyncio.sleep(0)
            if self._closed:
                return

    def _drop(self, slots: list[int]) -> None:
        """Clear the channels; libca ends their subscriptions and requests with them."""
        store = self._store
        tokens = [store.token(slot) for slot in slots]
        for slot in slots:
            if store.chid[slot]:
                ca.clear_channel(int(store.chid[slot]))
            self._names.pop(slot, None)
        ca.flush_io()
        self._inbox.forget(tokens)
        store.release(np.array(slots, np.int64))
        self._forget_writes(set(slots))
        self._fetcher.finished(tokens)
        gone = set(slots)
        for operation in list(self._operations.values()):
            operation.removed(gone)
        self._tell_connection_waiters()

    def _forget_writes(self, slots: set[int]) -> None:
        """They were removed, or their server is back: earlier answers do not come any more."""
        self._unanswered = {t: s for t, s in self._unanswered.items() if s not in slots}

    async def wait_connected(self, slots: Slots, timeout: float) -> NDArray[np.bool_]:
        """See `ChannelTable.wait_connected`. Of slots removed meanwhile: False."""
        self._check_open()
        rows = self._store.check(slots).copy()
        waiter = (rows, asyncio.Event())
        if not self._connected(rows).all():
            self._connection_waiters.append(waiter)
            try:
                async with asyncio.timeout(max(timeout, 0)):
                    await waiter[1].wait()
            except TimeoutError:
                pass  # the answer says which are missing
            finally:
                self._connection_waiters = [w for w in self._connection_waiters if w is not waiter]
        return self._connected(rows)

    def _connected(self, rows: Slots) -> NDArray[np.bool_]:
        up: NDArray[np.bool_] = (self._store.state[rows] == State.CONNECTED) & self._store.used[
            rows
        ]
        return up

    def _tell_connection_waiters(self) -> None:
        for rows, event in self._connection_waiters:
            if (self._connected(rows) | ~self._store.used[rows]).all():
                event.set()

    # -- subscriptions ----------------------------------------------------------------------

    async def subscribe(self, slots: Slots) -> None:
        """See `ChannelTable.subscribe`."""
        self._check_open()
        rows = np.unique(self._store.check(slots))
        self._store.wanted[rows] = True
        now = rows[self._connected(rows) & (self._store.value_sub[rows] == 0)].tolist()
        for at in range(0, len(now), _STRIDE):
            part = np.array(now[at : at + _STRIDE], np.int64)
            still = self._connected(part) & (self._store.value_sub[part] == 0)
            self._subscribe(part[still & self._store.wanted[part]].tolist())
            await asyncio.sleep(0)
            if self._closed:
                return

    def _subscribe(self, slots: list[int]) -> None:
        store, inbox = self._store, self._inbox
        for slot in slots:
            native, chid = int(store.native[slot]), int(store.chid[slot])
            token = store.token(slot)
            want = 1 if store.count[slot] == 1 else 0
            store.value_sub[slot] = _subscription(
                native + dbr.TIME,
                want,
                chid,
                ca.DBE_VALUE | ca.DBE_ALARM,
                inbox.value_callback,
                token,
            )
            if native != dbr.DBR_STRING:
                # Its first event is the metadata as of now, and comes again on reconnection.
                store.property_sub[slot] = _subscription(
                    native + dbr.CTRL, 1, chid, ca.DBE_PROPERTY, inbox.property_callback, token
                )
        ca.flush_io()

    def _unsubscribe(self, slot: int) -> None:
        for column in (self._store.value_sub, self._store.property_sub):
            if column[slot]:
                ca.clear_subscription(int(column[slot]))
                column[slot] = 0

    async def wait_dirty(self) -> None:
        """See `ChannelTable.wait_dirty`."""
        self._check_open()
        if not self._has_news():
            self._wake.clear()
            await self._wake.wait()
            self._check_open()

    def _has_news(self) -> bool:
        store = self._store
        return self._inbox.has_values or bool(store.dirty.any() or store.info_dirty.any())

    def drain(self, max_heap: int = 64 << 20) -> Columns:
        """See `ChannelTable.drain`."""
        self._check_open()
        self._take_values()
        out = self._store.take_dirty(max_heap)
        self._merged += int(out.merged.sum())
        return out

    def drain_info(self) -> Slots:
        """See `ChannelTable.drain_info`."""
        self._check_open()
        slots = np.flatnonzero(self._store.info_dirty)
        self._store.info_dirty[slots] = False
        return slots

    def info(self, slots: Slots) -> InfoColumns:
        """See `ChannelTable.info`."""
        self._check_open()
        return self._store.info(self._store.check(slots))

    # -- what libca said --------------------------------------------------------------------

    def _on_burst(self) -> None:
        if self._closed:
            return
        self._take_connections()
        self._take_metadata()
        self._take_replies()
        if self._has_news():
            self._wake.set()

    def _take_values(self) -> None:
        """Decode what waits. Values that are not of the channel's type and count are dropped."""
        taken = self._inbox.take_values()
        store = self._store
        bad = 0
        slots, events, merged = [], [], []
        for token, (event, replaced) in taken.items():
            slot = store.slot(token)
            if slot < 0:
                continue
            if store.native[slot] == event.basic and _agreed(event, int(store.count[slot])):
                slots.append(slot)
                events.append(event)
                merged.append(replaced)
            else:
                bad += 1
        self._inbox.refuse(bad)
        if not slots:
            return
        rows = np.array(slots, np.int64)
        got = decode(events, store.long_string[rows], store.is_array(rows))
        store.store(rows, got, [e.received for e in events], merged)

    def _take_connections(self) -> None:
        connections, rights = self._inbox.take_connections()
        if connections:
            # Values that came before a loss of connection are the last known ones.
            self._take_values()
            pairs = [(self._store.slot(token), c) for token, c in connections.items()]
            alive = [(slot, c) for slot, c in pairs if slot >= 0]
            self._lose([(slot, c) for slot, c in alive if not c.up])
            self._gain([(slot, c) for slot, c in alive if c.up])
        self._take_rights(rights)

    def _take_rights(self, rights: dict[int, int]) -> None:
        store = self._store
        readable = []
        for token, right in rights.items():
            slot = store.slot(token)
            # libca withdraws all rights of a lost channel; what was last known stays instead.
            if slot >= 0 and store.state[slot] == State.CONNECTED and store.rights[slot] != right:
                if right & ~store.rights[slot] & 1:
                    readable.append(slot)
                store.rights[slot] = right
                store.info_dirty[slot] = True
        # Who could not read on connection has no metadata yet.
        self._fetcher.request(readable)

    def _lose(self, pairs: list[tuple[int, Connection]]) -> None:
        slots = [slot for slot, _ in pairs]
        self._store.state[slots] = State.DISCONNECTED
        self._store.state_time[slots] = [c.at for _, c in pairs]
        self._store.dirty[slots] = True

    def _gain(self, pairs: list[tuple[int, Connection]]) -> None:
        if not pairs:
            return
        store = self._store
        slots = np.array([slot for slot, _ in pairs], np.int64)
        native = np.array([c.native for _, c in pairs], np.int64)
        count = np.array([c.elements for _, c in pairs], np.int64)
        known = store.native[slots] >= 0
        changed = known & ((store.native[slots] != native) | (store.count[slots] != count))
        self._retype(slots[changed])
        store.native[slots], store.count[slots] = native, count
        store.state_time[slots] = [c.at for _, c in pairs]
        store.rights[slots] = [c.rights for _, c in pairs]
        store.host_id[slots] = [self._host_id(c.host) for _, c in pairs]
        for slot, connection in pairs:
            store.host[slot] = connection.host
            long_string = self._names[slot].endswith(b"$") and connection.native == dbr.DBR_CHAR
            store.long_string[slot] = long_string
        store.state[slots] = State.CONNECTED
        self._forget_writes(set(slots.tolist()))
        store.dirty[slots] = True
        store.info_dirty[slots] = True
        wanted = store.wanted[slots]
        self._subscribe(slots[wanted & (store.value_sub[slots] == 0)].tolist())
        self._fetcher.request(slots[~wanted].tolist())
        self._tell_connection_waiters()
        for operation in list(self._operations.values()):
            operation.connected(slots.tolist())

    def _retype(self, slots: Slots) -> None:
        """The server came back with another type: nothing of the old one stays."""
        for slot in slots.tolist():
            self._unsubscribe(slot)
        self._store.forget_value(slots)
        self._store.forget_metadata(slots)

    def _host_id(self, host: str) -> int:
        return self._hosts.setdefault(host, len(self._hosts))

    def _take_metadata(self) -> None:
        replies = self._inbox.take_metadata()
        for reply in replies:
            slot = self._store.slot(reply.token)
            fits = slot >= 0 and self._store.native[slot] == reply.basic
            if reply.raw is not None and fits:
                self._store.store_metadata(slot, reply.basic, reply.raw)
        asked = [reply.token for reply in replies if reply.requested]
        if asked:
            self._fetcher.finished(asked)

    def _take_replies(self) -> None:
        room: set[tuple[Operation, int]] = set()
        for reply in self._inbox.take_replies():
            operation = self._operations.get(reply.token >> 32)
            if operation is None:
                self._late += 1
                if reply.status != ECA.DISCONN:
                    self._unanswered.pop(reply.token, None)
                continue
            host = operation.reply(reply.token & 0xFFFF_FFFF, reply)
            if host is not None:
                room.add((operation, host))
        for operation, host in room:
            operation.pump(host)

    # -- bulk requests ----------------------------------------------------------------------

    async def read(self, slots: Slots, timeout: float, *, kind: Kind | None = None) -> ReadResult:
        """See `ChannelTable.read`. ValueError too for a `kind` asked of a long string."""
        self._check_open()
        rows = self._store.check(slots).copy()
        basic = None if kind is None else self._asked(rows, kind)
        callback = self._inbox.read_callback
        operation = ReadOperation(self._store, rows, self._next_number(), callback, basic)
        await self._run(operation, timeout)
        return self._result(operation)

    def _asked(self, rows: Slots, kind: Kind) -> int:
        """The DBR type of `kind`."""
        basic = dbr.dbr_type(kind)
        texts = rows[self._store.long_string[rows]]
        if len(texts):
            address = self._names[int(texts[0])].decode("utf-8", "backslashreplace")
            raise ValueError(f"the long string {address!r} takes no kind")
        return basic

    async def write(
        self, slots: Slots, values: Columns, timeout: float, *, completion: bool = True
    ) -> NDArray[np.int32]:
        """See `ChannelTable.write`. ECA_TIMEOUT also where the server was lost after sending."""
        self._check_open()
        rows = self._store.check(slots).copy()
        if len(values) != len(rows):
            raise ValueError(f"{len(values)} values for {len(rows)} slots")
        store = self._store

        def encoder(which: NDArray[np.int64]) -> Wire:
            at = rows[which]
            part = values.take(which)
            return encode(part, store.native[at], store.count[at], store.long_string[at])

        operation = WriteOperation(
            store, rows, self._next_number(), self._inbox.write_callback, encoder, completion
        )
        try:
            await self._run(operation, timeout)
        finally:
            if not self._closed:
                self._unanswered |= operation.unanswered()
        return operation.code

    def unanswered(self, slots: Slots) -> NDArray[np.bool_]:
        """See `ChannelTable.unanswered`."""
        self._check_open()
        rows = self._store.check(slots)
        out: NDArray[np.bool_] = np.isin(rows, list(self._unanswered.values()))
        return out

    def _next_number(self) -> int:
        self._operation_number = self._operation_number % 0x7FFF_FFFF + 1
        return self._operation_number

    async def _run(self, operation: Operation, timeout: float) -> None:
        self._operations[operation.number] = operation
        try:
            operation.start()
            await operation.finish(timeout)
        finally:
            operation.stop()
            self._operations.pop(operation.number, None)

    def _result(self, operation: ReadOperation) -> ReadResult:
        store, slots = self._store, operation.slots
        out = Columns.empty(len(slots)).with_key(slots)
        # A slot removed and given out again while we waited is another channel by now.
        gone = operation.code == ECA.CHANDESTROY
        out.state[:] = np.where(gone, State.ABSENT, store.state[slots])
        at = np.array(sorted(operation.events), np.int64)
        if not len(at):
            return ReadResult(out, operation.code)
        events = [operation.events[i] for i in at.tolist()]
        rows = slots[at]
        # What the channel is now may differ from what it was when it was asked.
        array = operation.asked_count[at] != 1
        long_string = store.long_string[rows] & np.array([e.basic == dbr.DBR_CHAR for e in events])
        got = decode(events, long_string, array & ~long_string)
        heaped = [i for i, blob in enumerate(got.blob) if blob is not None]
        heap, got.data[heaped] = join_heap(heaped, got.blob)
        out.kind[at], out.data[at] = got.kind, got.data
        out.severity[at], out.status[at] = got.severity, got.status
        out.source_time[at] = got.source_time
        out.receive_time[at] = [e.received for e in events]
        out.state[at], out.origin[at] = State.CONNECTED, Origin.READ
        return ReadResult(replace(out, heap=heap), operation.code)

    # -- the rest ---------------------------------------------------------------------------

    def stats(self) -> TableStats:
        """See `ChannelTable.stats`. `merged` counts as rows are drained."""
        used = self._store.used
        connected = self._store.state[used] == State.CONNECTED
        return TableStats(
            channels=int(used.sum()),
            connected=int(connected.sum()),
            subscribed=int(self._store.wanted[used].sum()),
            updates=self._inbox.updates,
            merged=self._merged,
            bad_events=self._inbox.bad_events,
            late_completions=self._late,
        )

    async def close(self) -> None:
        """See `ChannelTable.close`. Reads and writes under way end with ECA_CHANDESTROY."""
        self._closed = True
        self._wake.set()
        for rows, event in self._connection_waiters:
            del rows
            event.set()
        listed = list(self._names)
        for at in range(0, len(listed), _STRIDE):
            self._drop([s for s in listed[at : at + _STRIDE] if s in self._names])
            await asyncio.sleep(0)

    def _check_open(self) -> None:
        _process.check(self._process)
        if self._closed:
            raise RuntimeError("the channel table is closed")


def _agreed(event: Event, count: int) -> bool:
    """Whether an event has as many elements as a channel of `count` may have."""
    return event.elements == 1 if count == 1 else event.elements <= count


def _subscription(kind: int, count: int, chid: int, mask: int, callback: object, token: int) -> int:
    """A new subscription's id, or 0 if the channel is lost: it is made on reconnection then."""
    handle = ctypes.c_void_p()
    status = ca.create_subscription(kind, count, chid, mask, callback, token, handle)
    return handle.value or 0 if status == ECA_NORMAL else 0
