# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: embedsignature=False, binding=True
"""The native channel table: libca's callbacks write slots, the event loop drains columns.

One thread of its own for each table (`Table.run`) holds the Channel Access context and makes all
calls into libca. Everything shared lies behind one mutex, held for the time of one copy by a
callback and for the time of a stride of rows by a drain; nobody calls libca or Python while
holding it. `drey_ca.native_table` is the asyncio side.
"""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport (
    int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t)
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset, strlen, strncpy

from drey_ca._native.blob cimport *
from drey_ca._native.decode cimport *
from drey_ca._native.libca cimport *
from drey_ca._native.state cimport *

include "callbacks.pxi"
include "worker.pxi"


cdef class Table:
    """One channel table. Everything but `run` belongs to the event loop's thread.

    No method blocks, except for the mutex: at most the time that a callback needs to copy a
    scalar, or another thread a stride of rows. Slot arrays are int64, contiguous.
    """

    cdef Shared* t
    cdef dict _kept
    cdef int64_t _commands, _let_go

    def __cinit__(self, int loop_fd, int thread_fd):
        cdef int number
        self._kept = {}
        for number in range(256):
            if tables[number] == NULL:
                break
        else:
            raise RuntimeError("more than 256 channel tables are open in this process")
        self.t = <Shared*>calloc(1, sizeof(Shared))
        if self.t == NULL:
            raise MemoryError
        pthread_mutex_init(&self.t.mutex, NULL)
        self.t.number = number
        self.t.start_code = -1
        self.t.loop_fd, self.t.thread_fd = loop_fd, thread_fd
        tables[number] = self.t

    def __dealloc__(self):
        # `run` holds a reference while it is under way: the context is gone by now.
        cdef int64_t i
        cdef Shared* t = self.t
        cdef Command* command
        if t == NULL:
            return
        tables[t.number] = NULL
        for i in range(OPERATIONS):
            if t.operations[i] != NULL:
                free_operation(t.operations[i])
        free_discarded(t)
        for i in range(t.capacity):
            forget_value(t, &t.slots[i])
        for i in range(t.host_count * ASKS):
            free(t.hosts[i // ASKS].queues[i % ASKS].items)
        while t.first != NULL:
            command = t.first
            t.first = command.next
            free(command.slots)
            free(command)
        free(t.slots)
        free(t.dirty.items)
        free(t.info_dirty.items)
        free(t.attend.items)
        free(t.free.items)
        free(t.hosts)
        free(t.discarded)
        pthread_mutex_destroy(&t.mutex)
        free(t)

    def run(self):
        """Hold the context until `stop`. Blocks; for a thread of its own."""
        with nogil:
            run_thread(self.t)

    def stop(self):
        """Have `run` end."""
        with nogil:
            lock(self.t)
            self.t.closing = True
            tell_thread(self.t)
            unlock(self.t)

    def news(self):
        """What happened since the last wake-up was taken; the next one may come from here on.

        (ECA code of the context's start or -1, commands done, connection changes, whether an
        operation has news, whether a drain would give something, how many error messages libca
        passed on, closed).
        """
        cdef Shared* t = self.t
        cdef int32_t start_code
        cdef int64_t commands_done, connection_changes
        cdef uint64_t exceptions
        cdef bint operation_news, dirty, closed
        with nogil:
            lock(t)
            t.loop_told = False
            operation_news = t.operation_news
            t.operation_news = False
            start_code, commands_done = t.start_code, t.commands_done
            connection_changes, exceptions = t.connection_changes, t.exceptions
            dirty, closed = t.dirty.size > 0 or t.info_dirty.size > 0, t.closed
            unlock(t)
        while self._let_go < commands_done:
            self._let_go += 1
            self._kept.pop(self._let_go, None)
        return (
            start_code, commands_done, connection_changes, operation_news, dirty, exceptions,
            closed)

    def has_dirty(self):
        """Whether a drain would give something."""
        cdef bint out
        with nogil:
            lock(self.t)
            out = self.t.dirty.size > 0 or self.t.info_dirty.size > 0
            unlock(self.t)
        return out

    # -- channels ---------------------------------------------------------------------------

    def add(self, list names):
        """Slots for `names` (bytes), and the number of the command that makes the channels.

        Raises MemoryError with nothing changed.
        """
        cdef Shared* t = self.t
        cdef int64_t i, n = len(names)
        slots = np.empty(n, np.int64)
        cdef int64_t[::1] out = slots
        dollars = np.fromiter((name.endswith(b"$") for name in names), np.uint8, n)
        cdef uint8_t[::1] dollar = dollars
        cdef bint enough = True
        cdef Slot* slot
        if n == 0:
            return slots, 0
        with nogil:
            lock(t)
            if queued(&t.free) < n:
                enough = grow(t, max(64, 2 * t.capacity, t.capacity + n))
            if enough:
                for i in range(n):
                    out[i] = pop(&t.free)
                    slot = &t.slots[out[i]]
                    fresh_slot(slot)
                    slot.dollar = dollar[i]
                t.used += n
            unlock(t)
        if not enough:
            raise MemoryError("no memory for more channels")
        return slots, self._command(ADD, slots, b"\0".join(names))

    def remove(self, const int64_t[::1] slots):
        """Forget these (distinct, in use); the number of the command that clears them."""
        cdef Shared* t = self.t
        cdef int64_t i, n = len(slots)
        cdef Slot* slot
        if n == 0:
            return 0
        with nogil:
            lock(t)
            for i in range(n):
                slot = &t.slots[slots[i]]
                slot.used = False
                slot.dying = True
                slot.dirty = slot.info_dirty = False
                t.used -= 1
                t.connected -= slot.state == CONNECTED
                t.wanted -= slot.wanted
            for i in range(OPERATIONS):
                if t.operations[i] != NULL:
                    drop_dying(t, t.operations[i])
            t.connection_changes += 1
            tell_loop(t)
            unlock(t)
        return self._command(REMOVE, np.asarray(slots), b"")

    cdef _command(self, CommandKind kind, slots, bytes names):
        cdef Shared* t = self.t
        cdef const int64_t[::1] items = slots
        cdef int64_t i
        cdef Command* command = <Command*>calloc(1, sizeof(Command))
        cdef int32_t* kept = <int32_t*>malloc(4 * max(1, len(items)))
        if command == NULL or kept == NULL:
            free(command)
            free(kept)
            raise MemoryError
        for i in range(len(items)):
            kept[i] = <int32_t>items[i]
        self._commands += 1
        self._kept[self._commands] = names
        command.kind, command.slots, command.size = kind, kept, len(items)
        command.names, command.number = PyBytes_AS_STRING(names), self._commands
        with nogil:
            lock(t)
            if t.last == NULL:
                t.first = command
            else:
                t.last.next = command
            t.last = command
            tell_thread(t)
            unlock(t)
        return self._commands

    def add_failure(self):
        """The first ECA code since last asked with which a channel could not be made, or 0."""
        cdef int32_t code
        with nogil:
            lock(self.t)
            code = self.t.add_failure
            self.t.add_failure = 0
            unlock(self.t)
        return code

    def want(self, const int64_t[::1] slots):
        """Subscribe these, now or when they connect."""
        cdef Shared* t = self.t
        cdef int64_t i
        cdef Slot* slot
        with nogil:
            lock(t)
            for i in range(len(slots)):
                slot = &t.slots[slots[i]]
                if not slot.wanted:
                    slot.wanted = True
                    t.wanted += 1
                    if slot.state == CONNECTED:
                        attend(t, <int32_t>slots[i])
            unlock(t)

    def unknown(self, const int64_t[::1] slots):
        """Index of the first entry that is no slot in use, or -1."""
        cdef Shared* t = self.t
        cdef int64_t i, out = -1
        with nogil:
            lock(t)
            for i in range(len(slots)):
                if not 0 <= slots[i] < t.capacity or not t.slots[slots[i]].used:
                    out = i
                    break
            unlock(t)
        return out

    def generations(self, const int64_t[::1] slots):
        """What tells these slots from later ones of the same number; uint32, shape (n,)."""
        out = np.empty(len(slots), np.uint32)
        cdef uint32_t[::1] to = out
        cdef int64_t i
        with nogil:
            lock(self.t)
            for i in range(len(slots)):
                to[i] = self.t.slots[slots[i]].generation
            unlock(self.t)
        return out

    def unanswered(self, const int64_t[::1] slots):
        """Which have a write of an ended operation that may still happen; uint8, shape (n,)."""
        out = np.empty(len(slots), np.uint8)
        cdef uint8_t[::1] to = out
        cdef int64_t i
        cdef Slot* slot
        with nogil:
            lock(self.t)
            for i in range(len(slots)):
                slot = &self.t.slots[slots[i]]
                to[i] = slot.unanswered != 0 or slot.doubt > self.t.hosts[slot.doubt_host].taken
            unlock(self.t)
        return out

    def states(self, const int64_t[::1] slots, const uint32_t[::1] generations):
        """Connection states, `State.ABSENT` for what has been removed; uint8, shape (n,)."""
        out = np.empty(len(slots), np.uint8)
        cdef uint8_t[::1] to = out
        cdef int64_t i
        cdef Slot* slot
        with nogil:
            lock(self.t)
            for i in range(len(slots)):
                slot = &self.t.slots[slots[i]]
                to[i] = slot.state if slot.used and slot.generation == generations[i] else 0
            unlock(self.t)
        return out

    def first_unconnected(
        self, const int64_t[::1] slots, const uint32_t[::1] generations, int64_t start
    ):
        """Index from `start` of the first not connected and not removed, or n."""
        cdef int64_t i
        cdef Slot* slot
        with nogil:
            lock(self.t)
            for i in range(start, len(slots)):
                slot = &self.t.slots[slots[i]]
                if slot.used and slot.generation == generations[i] and slot.state != CONNECTED:
                    break
            else:
                i = len(slots)
            unlock(self.t)
        return i

    # -- draining ---------------------------------------------------------------------------

    def drain(self, int64_t max_heap):
        """The dirty rows as (key, kind, state, origin, severity, status, source_time,
        receive_time, data, merged, heap); see `ChannelTable.drain_updates`. All are the caller's own.
        """
        cdef Shared* t = self.t
        cdef int64_t size, i
        with nogil:
            lock(t)
            size = t.dirty.size
            unlock(t)
        listed = np.empty(size, np.int32)
        cdef int32_t[::1] items = listed
        with nogil:
            lock(t)
            size = min(size, t.dirty.size)
            if size:
                memcpy(&items[0], t.dirty.items, 4 * size)
                drop_first(&t.dirty, size)
            unlock(t)
        listed = listed[:size]
        listed.sort()
        return _Drain(size)._take(t, listed, max_heap)

    def drain_info(self):
        """Slots whose metadata changed, ascending."""
        cdef Shared* t = self.t
        cdef int64_t i, n = 0
        cdef Slot* slot
        cdef int64_t size
        with nogil:
            lock(t)
            size = t.info_dirty.size
            unlock(t)
        out = np.empty(size, np.int64)
        cdef int64_t[::1] to = out
        with nogil:
            lock(t)
            size = min(size, t.info_dirty.size)
            for i in range(size):
                slot = &t.slots[t.info_dirty.items[i]]
                if slot.info_dirty:
                    to[n] = t.info_dirty.items[i]
                    n += 1
                slot.info_dirty = slot.info_listed = False
            drop_first(&t.info_dirty, size)
            unlock(t)
        out = out[:n]
        out.sort()
        return out

    def info(self, const int64_t[::1] slots):
        """(kind, count, state_time, readable, writable, precision, limits (n, 8), units, labels,
        host) of slots in use; limits in the order of `dbr_ctrl_double`.
        """
        cdef Shared* t = self.t
        cdef int64_t i, k, at = 0, stop, n = len(slots)
        kinds = np.zeros(n, np.uint8)
        counts, times = np.zeros(n, np.int64), np.zeros(n, np.int64)
        rights, precisions = np.zeros(n, np.uint8), np.full(n, -1, np.int16)
        all_limits = np.full((n, 8), np.nan)
        all_units, hosts = np.zeros(n, "V8"), np.full(n, -1, np.int32)
        cdef uint8_t[::1] kind = kinds
        cdef int64_t[::1] count = counts
        cdef int64_t[::1] time = times
        cdef uint8_t[::1] right = rights
        cdef int16_t[::1] precision = precisions
        cdef double[:, ::1] limits = all_limits
        units_bytes = all_units.view(np.uint8)
        cdef uint8_t[::1] units = units_bytes
        cdef int32_t[::1] host = hosts
        cdef Slot* slot
        cdef Blob** blobs = <Blob**>calloc(n + 1, sizeof(Blob*))
        if blobs == NULL:
            raise MemoryError
        with nogil:
            while at < n:
                stop = min(n, at + 1024)
                lock(t)
                for i in range(at, stop):
                    slot = &t.slots[slots[i]]
                    kind[i] = native_kind(slot)
                    count[i], time[i] = slot.count, slot.state_time
                    right[i], host[i] = slot.rights, slot.host if slot.native >= 0 else -1
                    if slot.meta == NULL:
                        continue
                    precision[i] = slot.meta.precision
                    for k in range(8):
                        limits[i, k] = slot.meta.limits[k]
                    memcpy(&units[8 * i], slot.meta.units, 8)
                    if slot.meta.labels != NULL:
                        blobs[i] = slot.meta.labels
                        blobs[i].references += 1
                unlock(t)
                at = stop
        labels = self._label_list(blobs, n)
        return (
            kinds, counts, times, (rights & READ_RIGHT).astype(np.bool_),
            (rights & WRITE_RIGHT).astype(np.bool_), precisions, all_limits,
            _unit_list(units_bytes, n), labels, self._host_list(hosts))

    cdef _label_list(self, Blob** blobs, int64_t n):
        """The labels in `blobs`, of each its own; frees the array."""
        cdef int64_t i
        cdef dict tuples = {}
        try:
            labels = [()] * n
            for i in range(n):
                if blobs[i] != NULL:
                    labels[i] = _labels(tuples, PyBytes_FromStringAndSize(
                        blob_data(blobs[i]), blobs[i].size))
            return labels
        finally:
            with nogil:
                lock(self.t)
                for i in range(n):
                    blob_release(blobs[i])
                unlock(self.t)
            free(blobs)

    def _host_list(self, numbers):
        cdef int32_t i
        cdef char host[64]
        names = {-1: ""}
        for i in np.unique(numbers):
            if i >= 0:
                with nogil:
                    lock(self.t)
                    memcpy(host, self.t.hosts[i].name, 64)
                    unlock(self.t)
                names[i] = (<bytes>host).decode("latin-1")
        return [names[i] for i in numbers.tolist()]

    # -- operations -------------------------------------------------------------------------

    def shape(self, const int64_t[::1] slots):
        """(basic type or -1 where not connected, count, long string, subject, when the connection
        was last made or lost) of slots."""
        cdef int64_t i, n = len(slots)
        basics, counts = np.empty(n, np.int64), np.empty(n, np.int64)
        longs, subjects = np.empty(n, np.uint8), np.empty(n, np.uint32)
        times = np.empty(n, np.int64)
        cdef int64_t[::1] basic = basics
        cdef int64_t[::1] count = counts
        cdef uint8_t[::1] long_string = longs
        cdef uint32_t[::1] subject = subjects
        cdef int64_t[::1] time = times
        cdef Slot* slot
        with nogil:
            lock(self.t)
            for i in range(n):
                slot = &self.t.slots[slots[i]]
                basic[i] = slot.native if slot.state == CONNECTED else -1
                count[i], long_string[i], subject[i] = slot.count, slot.long_string, slot.subject
                time[i] = slot.state_time
            unlock(self.t)
        return basics, counts, longs.view(np.bool_), subjects, times

    def stats(self):
        """(channels, connected, wanted, updates, merged, bad events, late completions, asking)."""
        cdef Shared* t = self.t
        cdef int64_t used, connected, wanted, i, asking = 0
        cdef int ask
        cdef uint64_t updates, merged, bad_events, late
        with nogil:
            lock(t)
            used, connected, wanted = t.used, t.connected, t.wanted
            updates, merged, bad_events, late = t.updates, t.merged, t.bad_events, t.late
            for i in range(t.host_count):
                asking += t.hosts[i].under_way - t.hosts[i].properties
                for ask in range(PROPERTIES):
                    asking += queued(&t.hosts[i].queues[ask])
            unlock(t)
        return used, connected, wanted, updates, merged, bad_events, late, asking

    def connections(self):
        """(server's number or -1, connected, can be asked, unheard for, server names) of all slots.

        Can be asked: connected, a readable scalar. Unheard for: ns since its subscription was asked
        for, 0 where something came of it, or nothing can. A server may stand among the names twice: once
        as it was known before the name service had answered.
        """
        cdef Shared* t = self.t
        cdef int64_t at = 0, stop, i, n
        cdef int32_t k
        cdef Slot* slot
        with nogil:
            lock(t)
            n = t.capacity
            t.naming = True
            tell_thread(t)
            unlock(t)
        servers = np.empty(n, np.int32)
        up, askable = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
        unheard = np.zeros(n, np.int64)
        cdef int64_t when
        cdef int64_t[::1] unheard_for = unheard
        cdef int32_t[::1] server = servers
        cdef uint8_t[::1] is_up = up
        cdef uint8_t[::1] can = askable
        with nogil:
            while at < n:
                stop = min(n, at + 4096)
                lock(t)
                when = ticks()
                for i in range(at, stop):
                    slot = &t.slots[i]
                    server[i] = slot.host if slot.used and slot.native >= 0 else -1
                    is_up[i] = slot.used and slot.state == CONNECTED
                    can[i] = is_up[i] and slot.count == 1 and slot.rights & READ_RIGHT
                    if is_up[i] and slot.unheard_since and slot.rights & READ_RIGHT:
                        unheard_for[i] = when - slot.unheard_since
                unlock(t)
                at = stop
        names = []
        cdef char host[64]
        for k in range(t.host_count):
            with nogil:
                lock(t)
                memcpy(host, t.hosts[k].name, 64)
                unlock(t)
            names.append((<bytes>host).decode("latin-1"))
        return servers, up.view(np.bool_), askable.view(np.bool_), unheard, names

    def take_doubles(self):
        """libca's words on names that two servers have, since last asked; `DOUBLES` at most."""
        cdef char text[DOUBLE_TEXT]
        cdef list out = []
        cdef int32_t i, n
        with nogil:
            lock(self.t)
            n = self.t.double_count
            unlock(self.t)
        for i in range(n):
            with nogil:
                lock(self.t)
                memcpy(text, self.t.doubles[i], DOUBLE_TEXT)
                unlock(self.t)
            out.append((<bytes>text).decode("latin-1"))
        with nogil:
            lock(self.t)
            self.t.double_count -= n
            memmove(self.t.doubles[0], self.t.doubles[n], DOUBLE_TEXT * self.t.double_count)
            memset(self.t.doubles[self.t.double_count], 0, DOUBLE_TEXT * (DOUBLES - self.t.double_count))
            unlock(self.t)
        return out

    def last_exception(self):
        """(ECA code, context) of the last error message that libca passed on."""
        cdef Shared* t = self.t
        cdef char context[160]
        cdef int32_t code
        with nogil:
            lock(t)
            code = t.last_exception
            memcpy(context, t.last_context, 160)
            unlock(t)
        return code, (<bytes>context).decode("latin-1")


cdef inline void fresh_slot(Slot* slot) noexcept nogil:
    """A never-connected channel's. Lists that still name this slot keep their marks."""
    cdef Slot old = slot[0]
    memset(slot, 0, sizeof(Slot))
    slot.generation, slot.subject = old.generation, old.subject
    slot.listed, slot.info_listed, slot.attended = old.listed, old.info_listed, old.attended
    slot.used = True
    slot.native = -1
    slot.state = NEVER_CONNECTED


cdef inline void drop_dying(Shared* t, Operation* op) noexcept nogil:
    """Settle the rows of an operation whose channels are being removed."""
    cdef int64_t i
    cdef Request* row
    for i in range(op.size):
        row = &op.rows[i]
        if row.phase != SETTLED and t.slots[row.slot].dying:
            if row.phase == SENT:
                note_answer(t, op, row, ECA_CHANDESTROY)
            settle(
                t, op, row,
                ECA_TIMEOUT if row.phase == SENT and op.purpose != READ else ECA_CHANDESTROY)


cdef inline uint8_t native_kind(const Slot* slot) noexcept nogil:
    if slot.native < 0:
        return KIND_NONE
    if slot.long_string:
        return KIND_STRING
    return kind_of(slot.native) | (KIND_ARRAY if slot.count != 1 else 0)


cdef _labels(dict tuples, bytes raw):
    found = tuples.get(raw)
    if found is None:
        cells = [raw[i:i + 26].split(b"\0", 1)[0] for i in range(0, len(raw), 26)]
        found = tuples[raw] = tuple(cells)
    return found


cdef _unit_list(raw, int64_t n):
    cells = np.ascontiguousarray(raw).view("S8").tolist()
    return cells if n else []


cdef class _Drain:
    """The columns of one drain while they are filled."""

    cdef int64_t n
    cdef object columns
    cdef uint8_t[::1] kind, state, origin, severity, keep
    cdef uint16_t[::1] status
    cdef int64_t[::1] key, source_time, receive_time
    cdef uint64_t[::1] data
    cdef uint32_t[::1] merged

    def __cinit__(self, int64_t n):
        self.n = n
        self.columns = (
            np.empty(n, np.int64), np.empty(n, np.uint8), np.empty(n, np.uint8),
            np.empty(n, np.uint8), np.empty(n, np.uint8), np.empty(n, np.uint16),
            np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.uint64),
            np.empty(n, np.uint32))
        (self.key, self.kind, self.state, self.origin, self.severity, self.status,
         self.source_time, self.receive_time, self.data, self.merged) = self.columns
        self.keep = np.zeros(n, np.uint8)

    cdef _take(self, Shared* t, listed, int64_t max_heap):
        cdef const int32_t[::1] items = listed
        cdef int64_t at, stop, i, heaped = 0
        cdef int64_t n = len(listed)
        cdef Slot* slot
        heap_rows = np.empty(n, np.int64)
        cdef int64_t[::1] heap_row = heap_rows
        with nogil:
            at = 0
            while at < n:
                stop = min(n, at + 2048)
                lock(t)
                for i in range(at, stop):
                    slot = &t.slots[items[i]]
                    if not slot.dirty or withheld(slot):
                        slot.dirty = slot.listed = False
                    elif slot.value.blob != NULL:
                        heap_row[heaped] = i
                        heaped += 1
                    else:
                        self._copy(t, slot, items[i], i)
                unlock(t)
                at = stop
        heap = self._take_heap(t, items, heap_rows[:heaped], max_heap) if heaped else b""
        keep = np.asarray(self.keep).view(np.bool_)
        columns = self.columns
        if not keep.all():
            columns = tuple([column[keep] for column in columns])
        return (*columns, heap)

    cdef inline void _copy(self, Shared* t, Slot* slot, int32_t index, int64_t i) noexcept nogil:
        cdef uint64_t merged = slot.merged
        self.key[i] = index
        self.kind[i] = slot.value.kind
        # until a value of this connection has come, the row is that of the former one
        self.state[i] = DISCONNECTED if slot.bygone else slot.state
        self.origin[i] = origin_of(slot)
        self.severity[i] = slot.value.severity
        self.status[i] = slot.value.status
        self.source_time[i] = slot.value.source_time
        self.receive_time[i] = slot.value.receive_time
        self.data[i] = slot.value.data
        self.merged[i] = <uint32_t>min(merged, <uint64_t>0xFFFF_FFFFu)
        self.keep[i] = True
        t.merged += merged
        slot.merged = 0
        slot.dirty = slot.listed = slot.unseen = False

    cdef _take_heap(self, Shared* t, const int32_t[::1] items, rows, int64_t max_heap):
        """Rows with heap values, as far as the budget goes, beginning where the last drain ended.

        So a busy low slot starves no high one. At least one is taken. What is left stays dirty.
        """
        cdef int64_t[::1] row = rows
        cdef int64_t n = len(row), k, i, room = max_heap, taken = 0, total = 0, first = 0
        cdef Slot* slot
        cdef Blob** blobs = <Blob**>calloc(n, sizeof(Blob*))
        if blobs == NULL:
            self._put_back(t, items, rows)
            raise MemoryError
        while first < n and items[row[first]] < t.heap_cursor:
            first += 1
        with nogil:
            lock(t)
            for k in range(n):
                i = row[(first + k) % n]
                slot = &t.slots[items[i]]
                if not slot.dirty:
                    slot.listed = False
                    continue
                if slot.value.blob != NULL:
                    if taken and slot.value.blob.size > room:
                        break
                    room -= slot.value.blob.size
                    taken += 1
                    total += slot.value.blob.size
                    blobs[(first + k) % n] = slot.value.blob
                    slot.value.blob.references += 1
                self._copy(t, slot, items[i], i)
            else:
                k = n
            if k < n:
                t.heap_cursor = items[row[(first + k) % n]]
                for k in range(k, n):
                    relist(t, items[row[(first + k) % n]])
            unlock(t)
        try:
            return self._join(row, blobs, n, total)
        finally:
            with nogil:
                lock(t)
                for k in range(n):
                    blob_release(blobs[k])
                unlock(t)
            free(blobs)

    cdef _put_back(self, Shared* t, const int32_t[::1] items, int64_t[::1] row):
        cdef int64_t k
        with nogil:
            lock(t)
            for k in range(len(row)):
                relist(t, items[row[k]])
            unlock(t)

    cdef _join(self, int64_t[::1] row, Blob** blobs, int64_t n, int64_t total):
        cdef int64_t k
        cdef uint64_t at = 0
        heap = PyBytes_FromStringAndSize(NULL, total)
        cdef char* to = PyBytes_AS_STRING(heap)
        with nogil:
            for k in range(n):
                if blobs[k] != NULL:
                    memcpy(to + at, blob_data(blobs[k]), blobs[k].size)
                    self.data[row[k]] = <uint64_t>blobs[k].size << 32 | at
                    at += blobs[k].size
        return heap


cdef inline uint8_t origin_of(const Slot* slot) noexcept nogil:
    """Number of `drey_core.values.Origin`: none, by a subscription's event, by a get."""
    if slot.value.kind == KIND_NONE:
        return 0
    return 1 if slot.fed else 2


cdef inline void relist(Shared* t, int32_t index) noexcept nogil:
    """Put back on the list what a drain took off it and left dirty."""
    cdef Slot* slot = &t.slots[index]
    slot.listed = False
    if slot.dirty:
        mark_dirty(t, index)


cdef class Bulk:
    """One bulk request: n rows, each with its slot, phase and ECA code.

    The owner calls `ready`, encodes where it is a write, and `enqueue`s; again whenever
    connections changed or `Table.news` says so; until `left` is 0 or its deadline, then
    `finish`. After `finish`, or when it is collected, no late answer finds it.
    """

    cdef Table table
    cdef Operation* op

    def __cinit__(self, Table table, const int64_t[::1] slots, int purpose, int asked):
        cdef int64_t i, n = len(slots)
        cdef Shared* t = table.t
        cdef bint found
        self.table = table
        self.op = <Operation*>calloc(1, sizeof(Operation))
        if self.op != NULL:
            self.op.rows = <Request*>calloc(max(n, 1), sizeof(Request))
        if self.op == NULL or self.op.rows == NULL:
            free(self.op)
            self.op = NULL
            raise MemoryError
        self.op.size = self.op.left = self.op.waiting = n
        self.op.purpose, self.op.asked = <uint8_t>purpose, asked
        with nogil:
            lock(t)
            for i in range(n):
                self.op.rows[i].slot = <int32_t>slots[i]
                self.op.rows[i].generation = t.slots[slots[i]].generation
                self.op.rows[i].code = -1
            found = self._register(t)
            unlock(t)
        if not found:
            free(self.op.rows)
            free(self.op)
            self.op = NULL
            raise RuntimeError(f"more than {OPERATIONS} bulk requests at one time")

    cdef bint _register(self, Shared* t) noexcept nogil:
        cdef int32_t i
        for i in range(OPERATIONS):
            t.operation_number = (t.operation_number + 1) & 0xFF_FFFFu
            if t.operations[t.operation_number % OPERATIONS] == NULL:
                self.op.number = t.operation_number
                t.operations[t.operation_number % OPERATIONS] = self.op
                t.operations_open += 1
                return True
        return False

    def __dealloc__(self):
        self._close()

    cdef void _close(self) noexcept:
        """Hand the operation to the CA thread, which may be about to send of it."""
        cdef Shared* t
        cdef Operation** grown
        if self.op == NULL:
            return
        t = self.table.t
        with nogil:
            lock(t)
            close_operation(t, self.op)
            if t.discarded_count == t.discarded_room:
                grown = <Operation**>realloc(
                    t.discarded, sizeof(Operation*) * (2 * t.discarded_room + 16))
                if grown != NULL:
                    t.discarded, t.discarded_room = grown, 2 * t.discarded_room + 16
            if t.discarded_count < t.discarded_room:
                t.discarded[t.discarded_count] = self.op
                t.discarded_count += 1
            tell_thread(t)
            unlock(t)
        self.op = NULL

    @property
    def left(self):
        """Rows that have no code yet."""
        return self.op.left

    def ready(self):
        """Rows (int64) that wait and whose channels are connected now."""
        cdef Shared* t = self.table.t
        cdef int64_t i, n = 0
        cdef Request* row
        out = np.empty(self.op.waiting, np.int64)
        cdef int64_t[::1] to = out
        with nogil:
            lock(t)
            for i in range(self.op.size):
                row = &self.op.rows[i]
                if row.phase != WAITING:
                    continue
                if t.slots[row.slot].state == CONNECTED and n < len(to):
                    to[n] = i
                    n += 1
            unlock(t)
        return out[:n]

    def refuse(self, const int64_t[::1] rows, const int32_t[::1] codes):
        """Settle rows with codes of the owner's."""
        cdef int64_t i
        with nogil:
            lock(self.table.t)
            for i in range(len(rows)):
                settle(self.table.t, self.op, &self.op.rows[rows[i]], codes[i])
            unlock(self.table.t)

    def load(
        self, const int64_t[::1] rows, const int16_t[::1] basic, const int64_t[::1] count,
        const uint64_t[::1] cell, const uint32_t[::1] subject, const int64_t[::1] since,
        const int64_t[::1] offset, bytes heap
    ):
        """Give waiting rows what they write: `count` elements of type `basic`, in `cell`, or
        from `offset` of `heap` where that is not negative; encoded for the slot's `subject`, and
        for the connection that it has `since` then.

        The operation keeps a copy: the CA thread may be at it when this object is gone.
        """
        cdef int64_t i, size = len(heap)
        cdef Request* row
        cdef const char* given = PyBytes_AS_STRING(heap)
        cdef char* base
        cdef Chunk* chunk = <Chunk*>malloc(sizeof(Chunk) + size)
        if chunk == NULL:
            raise MemoryError
        base = <char*>(chunk + 1)
        with nogil:
            memcpy(base, given, size)
        with nogil:
            lock(self.table.t)
            chunk.next = self.op.chunks
            self.op.chunks = chunk
            for i in range(len(rows)):
                row = &self.op.rows[rows[i]]
                row.basic, row.count, row.cell = basic[i], <uint32_t>count[i], cell[i]
                row.subject, row.since = subject[i], since[i]
                row.payload = base + offset[i] if offset[i] >= 0 else NULL
            unlock(self.table.t)

    def enqueue(self, const int64_t[::1] rows):
        """Have waiting rows sent, in order, or settled where access rights forbid it."""
        cdef Shared* t = self.table.t
        cdef Operation* op = self.op
        cdef int64_t i
        cdef bint enough = True
        with nogil:
            lock(t)
            for i in range(len(rows)):
                enough = enough and queue_row(t, op, <int32_t>rows[i])
            op.pump = True
            tell_thread(t)
            unlock(t)
        if not enough:
            raise MemoryError

    def finish(self):
        """Codes (int32) of all rows: what has none by now timed out or was not connected."""
        cdef int64_t i
        cdef Request* row
        cdef Shared* t = self.table.t
        out = np.empty(self.op.size, np.int32)
        cdef int32_t[::1] to = out
        with nogil:
            lock(t)
            close_operation(t, self.op)
            for i in range(self.op.size):
                row = &self.op.rows[i]
                if row.phase <= QUEUED and t.slots[row.slot].state != CONNECTED:
                    to[i] = ECA_DISCONN
                else:
                    to[i] = row.code if row.phase == SETTLED else (
                        ECA_TIMEOUT if row.phase == SENT or self.op.purpose == READ else ECA_UNRESPTMO)
            unlock(t)
        return out

    def values(self, codes):
        """What a finished read gave: as `Table.drain`'s tuple, one row a slot asked, in order."""
        cdef int64_t i, n = self.op.size, total = 0
        cdef Request* row
        cdef Shared* t = self.table.t
        cdef _Drain out = _Drain(n)
        cdef const int32_t[::1] code = codes
        cdef bint ok
        with nogil:
            lock(t)
            for i in range(n):
                row = &self.op.rows[i]
                ok = code[i] == ECA_NORMAL
                out.key[i] = row.slot
                out.state[i] = CONNECTED if ok else (
                    0 if code[i] == ECA_CHANDESTROY else t.slots[row.slot].state)
                out.kind[i] = row.value.kind
                out.origin[i] = 2 if ok else 0
                out.severity[i], out.status[i] = row.value.severity, row.value.status
                out.source_time[i] = row.value.source_time
                out.receive_time[i] = row.value.receive_time
                out.data[i], out.merged[i] = row.value.data, 0
                if row.value.blob != NULL:
                    total += row.value.blob.size
            unlock(t)
        heap = PyBytes_FromStringAndSize(NULL, total)
        cdef char* to = PyBytes_AS_STRING(heap)
        cdef uint64_t at = 0
        with nogil:  # closed by `finish`: nobody else touches the rows
            for i in range(n):
                row = &self.op.rows[i]
                if row.value.blob != NULL:
                    memcpy(to + at, blob_data(row.value.blob), row.value.blob.size)
                    out.data[i] = <uint64_t>row.value.blob.size << 32 | at
                    at += row.value.blob.size
        return (*out.columns, heap)

    def close(self):
        """Let go of it; idempotent."""
        self._close()


cdef inline void close_operation(Shared* t, Operation* op) noexcept nogil:
    """No answer finds it any more."""
    cdef int64_t i
    cdef Request* row
    if not op.closed:
        op.closed = True
        for i in range(op.size if op.purpose != READ else 0):
            row = &op.rows[i]
            if row.phase == SENT and t.slots[row.slot].generation == row.generation:
                t.slots[row.slot].unanswered += 1
        t.operations[op.number % OPERATIONS] = NULL
        t.operations_open -= 1
        tell_thread(t)  # which may ask more by now


cdef inline bint queue_row(Shared* t, Operation* op, int32_t at) noexcept nogil:
    cdef Request* row = &op.rows[at]
    cdef Slot* slot = &t.slots[row.slot]
    cdef int32_t lane
    if row.phase != WAITING:
        return True
    if not slot.used or slot.generation != row.generation:
        settle(t, op, row, ECA_CHANDESTROY)
        return True
    if slot.state != CONNECTED:
        return True
    if not slot.rights & (READ_RIGHT if op.purpose == READ else WRITE_RIGHT):
        settle(t, op, row, ECA_NORDACCESS if op.purpose == READ else ECA_NOWTACCESS)
        return True
    if op.asked >= 0 and slot.long_string:
        settle(t, op, row, ECA_BADTYPE)
        return True
    lane = lane_of(op, slot.host)
    if lane < 0 or not push(&op.lanes[lane].queue, at):
        return False
    row.lane = lane
    row.phase = QUEUED
    op.waiting -= 1
    return True


cdef inline int32_t lane_of(Operation* op, int32_t host) noexcept nogil:
    """The lane to a server, made if there is none; -1: no memory."""
    cdef int32_t i
    cdef Lane* grown
    for i in range(op.lane_count - 1, -1, -1):
        if op.lanes[i].host == host:
            return i
    grown = <Lane*>realloc(op.lanes, sizeof(Lane) * (op.lane_count + 1))
    if grown == NULL:
        return -1
    op.lanes = grown
    memset(&grown[op.lane_count], 0, sizeof(Lane))
    grown[op.lane_count].host = host
    op.lane_count += 1
    return op.lane_count - 1
