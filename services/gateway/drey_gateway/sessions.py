"""Sessions: several watches over one stream, changed by calls beside it while it lives.

A session lives in the gateway that has its stream, and ends with it. All its watches take their
turns in the one task of the stream, so what comes of a change comes in one order: the
acknowledgement, PVs that leave, PVs that join, then differences.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import dataclass

from drey_core.errors import DreyError, NotFound, ResourceExhausted
from drey_gateway.context import WatchContext
from drey_gateway.domain.wanted import SubscriptionChange, Wanted
from drey_gateway.mapping_told import ack_message, idle_message, of_subscription, opened_message
from drey_gateway.watching import CHECKPOINT_S, Watch
from drey_runtime.auth import current_principal

MAX_WAITING = 1000
"""Changes that wait for a stream whose client does not read."""
MAX_SUBSCRIPTIONS = 100
_ID_BYTES = 16


@dataclass(slots=True)
class _Subscription:
    """A watch of a session, and the place that it takes."""

    watch: Watch
    place: ExitStack

    def end_subscription(self) -> None:
        self.watch.leave_rows()
        self.place.close()


class Session:
    """One session; `run` is its stream."""

    def __init__(self, context: WatchContext, session_id: str) -> None:
        self.id = session_id
        self.key_id = current_principal.get().key_id
        self._context = context
        self._subscriptions: dict[str, _Subscription] = {}
        self._changes: deque[SubscriptionChange] = deque()
        self._last_change = 0
        self._waiting: asyncio.Timeout | None = None
        self._next_checkpoint = 0.0

    def take_change(self, change: SubscriptionChange) -> None:
        """Take a change, unless one with its number, or a later one, was taken already.

        Raises `ResourceExhausted` when too many wait.
        """
        if change.number <= self._last_change:
            return
        if len(self._changes) >= MAX_WAITING:
            raise ResourceExhausted(
                f"{MAX_WAITING} changes wait already: read the session's stream, then send this"
                " one again",
                retry_after_s=1.0,
            )
        self._last_change = change.number
        self._changes.append(change)
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def run(self, wanted: Mapping[str, Wanted]) -> AsyncGenerator[bytes, None]:
        """Encoded `OpenWatchResponse` messages. Raises `DreyError`."""
        try:
            yield opened_message(self.id)
            for name, one in wanted.items():
                async for message in await self._begin_subscription(name, one):
                    yield of_subscription(name, message)
            while True:
                changed = self._context.changed.listen_for_change()
                async with aclosing(self._next_turn()) as messages:
                    async for message in messages:
                        yield message
                await self._wait_changed(changed)
        finally:
            for subscription in self._subscriptions.values():
                subscription.end_subscription()
            self._subscriptions = {}

    async def _wait_changed(self, changed: asyncio.Event) -> None:
        deadlines = [s.watch.next_deadline() for s in self._subscriptions.values()]
        left = max(min(deadlines, default=self._next_checkpoint) - time.monotonic(), 0)
        if self._changes:
            return
        try:
            async with asyncio.timeout(left) as self._waiting:
                await changed.wait()
        except TimeoutError:
            return
        finally:
            self._waiting = None

    async def _next_turn(self) -> AsyncGenerator[bytes, None]:
        while self._changes:
            change = self._changes.popleft()
            try:
                messages = await self._apply_change(change)
            except DreyError as error:
                yield ack_message(change, error)
                continue
            yield ack_message(change)
            async for message in messages:
                yield of_subscription(change.subscription, message)
        for name, subscription in list(self._subscriptions.items()):
            async with aclosing(subscription.watch.next_turn()) as turn:
                async for message in turn:
                    yield of_subscription(name, message)
        if not self._subscriptions and time.monotonic() >= self._next_checkpoint:
            self._next_checkpoint = time.monotonic() + CHECKPOINT_S
            yield idle_message(stalled=not self._context.bus_connected())

    async def _apply_change(self, change: SubscriptionChange) -> AsyncIterator[bytes]:
        """What comes of it. Raises `DreyError`: it is refused, and nothing has changed."""
        name, held = change.subscription, self._subscriptions.get(change.subscription)
        if held is None:
            if change.replacement is not None:
                return await self._begin_subscription(name, change.replacement)
            raise NotFound(
                f"the session has no subscription {name!r}; begin it by `replace`",
                field="subscription",
                metadata={"name": name},
            )
        if change.amend is not None:
            return await held.watch.amend_selection(*change.amend(held.watch.wanted))
        if change.replacement is None:
            held.end_subscription()
            del self._subscriptions[name]
            return _no_messages()
        if change.replacement.keeps_baseline(held.watch.wanted):
            return await held.watch.amend_selection(change.replacement, change.replacement.terms)
        watch = Watch(self._context, change.replacement)
        await watch.choose_rows()
        held.watch.leave_rows()
        held.watch = watch
        return watch.begin_baseline()

    async def _begin_subscription(self, name: str, wanted: Wanted) -> AsyncIterator[bytes]:
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise ResourceExhausted(
                f"the session has {MAX_SUBSCRIPTIONS} subscriptions, which is the most; add PVs to"
                " one of them, end some, or open another session",
                metadata={"limit": str(MAX_SUBSCRIPTIONS), "scope": "session"},
            )
        with ExitStack() as place:
            place.enter_context(self._context.limiter.take_watcher())
            watch = Watch(self._context, wanted)
            await watch.choose_rows()
            self._subscriptions[name] = _Subscription(watch, place.pop_all())
        return watch.begin_baseline()


class SessionBook:
    """All sessions of this gateway; a session's id begins with its gateway's."""

    def __init__(self, context: WatchContext) -> None:
        self._context = context
        self._sessions: dict[str, Session] = {}
        self.gateway_id = secrets.token_hex(_ID_BYTES // 2)

    async def open_session(self, wanted: Mapping[str, Wanted]) -> AsyncGenerator[bytes, None]:
        """The stream of a new session, whose it is that calls. Raises `DreyError`."""
        session_id = f"{self.gateway_id}.{secrets.token_hex(_ID_BYTES)}"
        with self._context.limiter.take_watcher():
            session = Session(self._context, session_id)
            self._sessions[session_id] = session
            try:
                async with aclosing(session.run(wanted)) as messages:
                    async for message in messages:
                        yield message
            finally:
                del self._sessions[session_id]

    def modify_session(self, session_id: str, change: SubscriptionChange, key_id: str) -> None:
        """Let a session of a key take a change. Raises `DreyError`."""
        session = self._sessions.get(session_id)
        if session is None or session.key_id != key_id:
            raise no_session(session_id)
        session.take_change(change)


def no_session(session_id: str) -> NotFound:
    """The refusal of a session that is not there, or another's: nobody learns which."""
    return NotFound(
        f"no session {session_id!r} of this key: it has ended; open one anew, with the tokens of"
        " its subscriptions",
        field="session",
        metadata={"session": session_id},
    )


async def _no_messages() -> AsyncIterator[bytes]:
    for message in list[bytes]():
        yield message
