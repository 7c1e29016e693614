"""Where libca's threads leave what happened, and from where the event loop takes it.

The callbacks copy and return: the latest value of each channel replaces the one not yet taken
(which is counted), the latest connection and access state likewise. So the inbox holds at most
one entry a channel however late the loop is, beside one reply for each request under way,
whose number the operations bound. The lock guards dictionary operations only, never a call
into libca, so it cannot take part in a deadlock with libca's own locks.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
import time
from typing import Any, NamedTuple

from drey_ca import _dbr as dbr
from drey_ca import _libca as ca
from drey_ca._decode import Event, ctrl_size
from drey_ca.eca import ECA, ECA_NORMAL

log = logging.getLogger(__name__)


_thread = threading.local()


def _keep_thread_state() -> None:
    """Keep Python's state of this libca thread between callbacks.

    ctypes otherwise makes and destroys one around each callback, which costs more than the
    callback. The price is one small state kept for each server circuit until the process ends.
    """
    ctypes.pythonapi.PyGILState_Ensure()
    _thread.kept = True


class Connection(NamedTuple):
    """The latest connection state, since `at` (ns); `dropped`: it was down in between."""

    up: bool
    at: int
    dropped: bool
    native: int
    elements: int
    rights: int
    host: str


class Reply(NamedTuple):
    """The answer to one request; `event` only for a read that succeeded."""

    token: int
    status: int
    event: Event | None


class MetadataReply(NamedTuple):
    """A `dbr_ctrl_*` structure, asked for (`requested`) or by a property event."""

    token: int
    requested: bool
    basic: int
    raw: bytes | None


class Inbox:
    """Filled by libca's threads through the C callbacks it offers; emptied by one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_burst: Any) -> None:
        self._loop = loop
        self._on_burst = on_burst
        self._lock = threading.Lock()
        self._scheduled = False
        self._values: dict[int, tuple[Event, int]] = {}
        self._connections: dict[int, Connection] = {}
        self._rights: dict[int, int] = {}
        self._metadata: dict[tuple[int, bool], MetadataReply] = {}
        self._replies: list[Reply] = []
        self._host = ctypes.create_string_buffer(256)
        self.updates = 0
        self.bad_events = 0
        # The C thunks must outlive every channel: whoever holds the inbox holds them.
        self.connection_callback = ca.connection_handler(self._guard(self._on_connection))
        self.access_callback = ca.access_handler(self._guard(self._on_access))
        self.value_callback = ca.event_handler(self._guard(self._on_value))
        self.property_callback = ca.event_handler(self._guard(self._on_property))
        self.metadata_callback = ca.event_handler(self._guard(self._on_metadata))
        self.read_callback = ca.event_handler(self._guard(self._on_read))
        self.write_callback = ca.event_handler(self._guard(self._on_write))

    def _guard(self, handler: Any) -> Any:
        def guarded(args: Any) -> None:
            try:
                if not hasattr(_thread, "kept"):
                    _keep_thread_state()
                handler(args)
            except Exception:  # nothing may unwind into libca
                self.refuse(1)
                log.exception("a Channel Access callback failed")

        return guarded

    def _wake(self) -> None:
        with self._lock:
            if self._scheduled:
                return
            self._scheduled = True
        try:
            self._loop.call_soon_threadsafe(self._burst)
        except RuntimeError:
            log.debug("the event loop is closed; what libca says now has no reader")

    def _burst(self) -> None:
        with self._lock:
            self._scheduled = False
        self._on_burst()

    def _on_connection(self, args: Any) -> None:
        chid, at = args.chid, time.time_ns()
        token = ca.user_token(chid)
        if args.op == ca.CONNECTION_UP:
            ca.get_host_name(chid, self._host, len(self._host))
            rights = ca.read_access(chid) & 1 | (ca.write_access(chid) & 1) << 1
            now = Connection(
                True,
                at,
                False,
                ca.field_type(chid),
                ca.element_count(chid),
                rights,
                self._host.value.decode("latin-1"),
            )
        else:
            now = Connection(False, at, True, -1, 0, 0, "")
        with self._lock:
            before = self._connections.get(token)
            if before is not None and before.dropped:
                now = now._replace(dropped=True)
            self._connections[token] = now
        self._wake()

    def _on_access(self, args: Any) -> None:
        token = ca.user_token(args.chid)
        with self._lock:
            self._rights[token] = args.rights & 3
        self._wake()

    def _on_value(self, args: Any) -> None:
        received = time.time_ns()
        if args.status != ECA_NORMAL:
            # Lost connection or access, which come as events of their own too.
            expected = args.status in (ECA.DISCONN, ECA.NORDACCESS, ECA.CHANDESTROY)
            self.refuse(not expected)
            return
        token, event = args.usr, _copy(args, received)
        if not isinstance(event, Event):
            self.refuse(1)
            return
        with self._lock:
            before = self._values.get(token)
            self._values[token] = (event, 0 if before is None else before[1] + 1)
            self.updates += 1
            wake = len(self._values) == 1 and before is None
        if wake:
            self._wake()

    def _on_property(self, args: Any) -> None:
        if args.status == ECA_NORMAL:
            self._put_metadata(args, requested=False)

    def _on_metadata(self, args: Any) -> None:
        self._put_metadata(args, requested=True)

    def _put_metadata(self, args: Any, *, requested: bool) -> None:
        basic = args.type - dbr.CTRL
        ok = args.status == ECA_NORMAL
        if ok and (basic == dbr.DBR_STRING or not _basic(basic)):
            self.refuse(1)
            ok = False
        raw = ca.string_at(args.dbr, ctrl_size(basic)) if ok else None
        token = args.usr
        with self._lock:
            self._metadata[token, requested] = MetadataReply(token, requested, basic, raw)
        self._wake()

    def _on_read(self, args: Any) -> None:
        received = time.time_ns()
        if args.status != ECA_NORMAL:
            self._reply(Reply(args.usr, args.status, None))
            return
        event = _copy(args, received)
        if isinstance(event, Event):
            self._reply(Reply(args.usr, ECA_NORMAL, event))
        else:
            self._reply(Reply(args.usr, event, None))

    def _on_write(self, args: Any) -> None:
        self._reply(Reply(args.usr, args.status, None))

    def _reply(self, reply: Reply) -> None:
        with self._lock:
            self._replies.append(reply)
        self._wake()

    def refuse(self, events: int) -> None:
        """Count events that are not what was asked for."""
        with self._lock:
            self.bad_events += events

    @property
    def has_values(self) -> bool:
        """Whether a value waits to be taken."""
        return bool(self._values)

    def take_values(self) -> dict[int, tuple[Event, int]]:
        """Latest value of each token and how many it replaced, in order of first arrival."""
        with self._lock:
            taken, self._values = self._values, {}
        return taken

    def take_connections(self) -> tuple[dict[int, Connection], dict[int, int]]:
        """Connection changes and access rights by token."""
        with self._lock:
            taken, self._connections = self._connections, {}
            rights, self._rights = self._rights, {}
        return taken, rights

    def take_metadata(self) -> list[MetadataReply]:
        """Metadata that came."""
        with self._lock:
            taken, self._metadata = self._metadata, {}
        return list(taken.values())

    def take_replies(self) -> list[Reply]:
        """Answers to reads and writes."""
        with self._lock:
            taken, self._replies = self._replies, []
        return taken

    def forget(self, tokens: list[int]) -> None:
        """Drop what waits for these channels."""
        with self._lock:
            for token in tokens:
                self._values.pop(token, None)
                self._connections.pop(token, None)
                self._rights.pop(token, None)
                self._metadata.pop((token, False), None)
                self._metadata.pop((token, True), None)


def _basic(code: int) -> bool:
    return dbr.DBR_STRING <= code <= dbr.DBR_DOUBLE


def _copy(args: Any, received: int) -> Event | ECA:
    """The event, or what is wrong with it: libca passes on whatever the server claims."""
    basic, count = args.type - dbr.TIME, args.count
    if not _basic(basic):
        return ECA.BADTYPE
    if count < 0 or (count > 1 and count > ca.element_count(args.chid)):
        return ECA.BADCOUNT
    return Event(basic, count, received, ca.string_at(args.dbr, dbr.time_size(basic, count)))
