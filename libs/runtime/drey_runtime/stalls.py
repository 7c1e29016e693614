"""Calls whose clients do not read: bounded in time and in bytes, and ended for good.

What a handler streams goes through an `Outgoing`. A message that its client does not take for too
long ends the call, and so does the longest wait of all when what waits in the whole process becomes
too much. Ending it takes three steps, as gRPC gives up nothing by itself while a client reads
nothing: the handler is left at once, which frees all that it held; the status is sent; and where
that does not get through either, the connection is closed, which frees what gRPC holds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote
from weakref import ref

import grpc
from google.protobuf.message import Message

from drey_core.errors import DreyError, Reason, ResourceExhausted

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

STALL_CUT_S = 30.0
MAX_WAITING_BYTES = 128 << 20
"""What all calls of a process may hold for clients that do not read."""
_LOOK_S = 0.25
_SLOW_S = 0.5
"""A message that waits for longer than this counts as one that waits."""
_LATE_S = 2.0
"""So does what is kept for a client that takes a little now and then, but not all of it."""
_GRACE_S = 2.0
"""For the status to get through, before the connection is closed."""
_MOST_STUCK = 8
"""Calls of one connection that wait for their status; with more it is closed in any case."""


class Outgoing:
    """The answers of one call."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.peer: str = context.peer()
        self._held = 0
        self.held_since = 0.0
        self.size = 0
        self.since: float | None = None
        self.cut_at = 0.0
        self.broken = False
        """gRPC takes no more: the client has left."""
        self._opened = False
        self._error: DreyError | None = None
        self._timer: asyncio.Timeout

    @property
    def held_bytes(self) -> int:
        """Bytes that the handler keeps for this client beside the message that waits."""
        return self._held

    @held_bytes.setter
    def held_bytes(self, size: int) -> None:
        if size and not self._held:
            self.held_since = time.monotonic()
        self._held = size

    async def write_message(self, message: Message | bytes) -> None:
        """Give a message to gRPC, and wait until it has left.

        Raises the `DreyError` of a cut, and `CancelledError` when the client has left.
        """
        try:
            await self._write_waiting(message)
        except grpc.aio.InternalError as broken:
            # gRPC says so either way, the call's task being cancelled a moment later
            self.broken = True
            raise asyncio.CancelledError from broken

    async def _write_waiting(self, message: Message | bytes) -> None:
        if not self._opened:
            # by itself: sent with a message that never leaves it would keep back the status too
            self._opened = True
            with suppress(grpc.aio.UsageError):  # the handler has done it
                await self._context.send_initial_metadata(())
        self.size = len(message) if isinstance(message, bytes) else message.ByteSize()
        self.since = time.monotonic()
        try:
            async with asyncio.timeout(None) as self._timer:
                await self._context.write(message)
        except TimeoutError:
            if self._error is None:
                raise
        finally:
            self.since = None
        # also where the message left in the moment of the cut: its connection is closed otherwise
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                # else the error, its traceback and this frame keep each other, and the message
                del error

    def cut_stream(self, error: DreyError) -> None:
        """End the call although its message still waits."""
        log.info("a call is cut: %s", error.message)
        self._error, self.cut_at = error, time.monotonic()
        self._timer.reschedule(0)


class GuardedContext:
    """The context of a call, for handlers that write their answers by themselves."""

    def __init__(self, context: Context, outgoing: Outgoing) -> None:
        self._context = context
        self.write = outgoing.write_message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


_current: ContextVar[ref[Outgoing] | None] = ContextVar("outgoing", default=None)
"""Not the call itself: what is made while it is served (a timer of a connection to Postgres) keeps
its context, and so the call with its last message, for minutes after it has ended."""


def current_outgoing() -> Outgoing | None:
    """The answers of the call that is served in this context; None where it has ended."""
    current = _current.get()
    return None if current is None else current()


class StallGuard:
    """All calls of a server that stream answers."""

    def __init__(self, cut_s: float, max_bytes: int) -> None:
        self._cut_s, self._max_bytes = cut_s, max_bytes
        self._open: set[Outgoing] = set()

    @contextmanager
    def watch_stream(self, context: Context) -> Iterator[Outgoing]:
        """The answers of a call, looked at until the call has ended in gRPC too."""
        outgoing = Outgoing(context)
        self._open.add(outgoing)
        context.add_done_callback(lambda _: self._open.discard(outgoing))  # type: ignore[arg-type]
        token = _current.set(ref(outgoing))
        try:
            yield outgoing
        finally:
            outgoing.held_bytes = outgoing.size = 0
            _current.reset(token)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            begin = time.monotonic()
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            self._forgive_delay(now - begin - _LOOK_S, now)
            self._cut_waiting(now)
            self._close_stuck(now)

    def _forgive_delay(self, late_s: float, now: float) -> None:
        """While this process stood still nothing could leave, however fast its clients read."""
        for each in self._open:
            each.held_since = min(now, each.held_since + late_s)
            if each.since is not None:
                each.since = min(now, each.since + late_s)

    def _cut_waiting(self, now: float) -> None:
        waits = {o: now - o.since for o in self._open if o.since is not None and not o.cut_at}
        kept = {o: now - o.held_since if o.held_bytes else 0.0 for o in waits}
        slow = [o for o in waits if waits[o] > _SLOW_S or kept[o] > _LATE_S]
        slow.sort(key=lambda o: max(waits[o], kept[o]), reverse=True)
        total = sum(o.held_bytes + o.size for o in slow)
        for index, each in enumerate(slow):
            error = None
            if waits[each] > self._cut_s:
                error = _too_slow(f"nothing was read for {waits[each]:.0f} s")
            # one that reads on may be sent more than the limit, where it is the only one
            elif total > self._max_bytes and (waits[each] > _SLOW_S or index < len(slow) - 1):
                error = _too_slow("too much waits for clients that read slowly, or not at all")
            if error is not None:
                total -= each.held_bytes + each.size
                each.cut_stream(error)

    def _close_stuck(self, now: float) -> None:
        stuck: dict[str, int] = {}
        reading = {o.peer for o in self._open if not o.cut_at}
        for each in self._open:
            if each.cut_at and now - each.cut_at > _GRACE_S:
                stuck[each.peer] = stuck.get(each.peer, 0) + 1
        for peer, calls in stuck.items():
            # a proxy may carry others over the same connection: what is held for a few is little
            if (peer not in reading or calls > _MOST_STUCK) and close_connection(peer):
                log.info("the connection of a client that reads nothing is closed: %s", peer)


def close_connection(peer: str) -> bool:
    """Close the TCP connection with a peer (as gRPC names it) below gRPC; False: there is none.

    gRPC has no way to reset one call, or a connection, from the side of a handler. Of Unix sockets
    the peers have no names; their other ends are parts of Drey, which leave calls properly.
    """
    family, _, address = unquote(peer).partition(":")
    host, _, port = address.rpartition(":")
    if family not in ("ipv4", "ipv6") or not port.isdigit():
        return False
    wanted = (host.strip("[]").partition("%")[0], int(port))
    closed = False
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            # of a copy: the number may mean another file by now
            copy = os.dup(int(each.name))
            try:
                closed |= _shut_down(copy, wanted)
            finally:
                os.close(copy)
    return closed


def _shut_down(number: int, peer: tuple[str, int]) -> bool:
    """Whether an open file is the connection with `peer`; it is closed for both sides then."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        return False
    duplicate = socket.socket(fileno=number)
    try:
        if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        host, port = duplicate.getpeername()[:2]
        # a socket that listens for both families has peers of IPv4 as mapped ones
        if (host.removeprefix("::ffff:").partition("%")[0], port) != peer:
            return False
        duplicate.shutdown(socket.SHUT_RDWR)
        return True
    finally:
        duplicate.detach()


def _too_slow(why: str) -> ResourceExhausted:
    return ResourceExhausted(
        f"{why}; connect again with the last token", reason=Reason.READER_TOO_SLOW
    )
