"""How coroutines wait for each other: together, in turn, for a change, and for a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, overload
from weakref import WeakKeyDictionary

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
M = TypeVar("M")
T = TypeVar("T")

current_holder: ContextVar[str] = ContextVar("holder", default="")
"""The key whose share is taken in this context; empty: nobody's, as of loops and parts of Drey."""

SIGN_OF_LIFE_S = 10.0
"""After so long a stream of states says the last one again; one is promised each 15 s."""

_choosing: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@overload
async def run_together(a: Awaitable[A], b: Awaitable[B], /) -> tuple[A, B]: ...
@overload
async def run_together(a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> tuple[A, B, C]: ...
@overload
async def run_together(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /
) -> tuple[A, B, C, D]: ...
@overload
async def run_together(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], e: Awaitable[E], /
) -> tuple[A, B, C, D, E]: ...
async def run_together(*work: Awaitable[Any]) -> tuple[Any, ...]:
    """The results in order. Raises the first error, once all the others were cancelled and ended.

    `asyncio.gather` lets them go on, with the connections that they hold, and nobody waits for
    them. Cancelling this cancels all, and waits for their end.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class Turns:
    """So many at a time; a holder has no more than a share, and waits for its own turns first."""

    def __init__(self, turns: int, share: float) -> None:
        self._most = max(1, int(turns * share))
        self._all = asyncio.Semaphore(turns)
        self._of: dict[str, tuple[asyncio.Semaphore, list[None]]] = {}

    @asynccontextmanager
    async def take_turn(self, holder: str, longest_s: float | None = None) -> AsyncIterator[None]:
        """Wait for a turn and hold it; after `longest_s` the next one has it, whatever is done."""
        mine, users = self._of.setdefault(holder, (asyncio.Semaphore(self._most), []))
        users.append(None)
        held = list[asyncio.Semaphore]()
        timer: asyncio.TimerHandle | None = None

        def give_back() -> None:
            while held:
                held.pop().release()

        try:
            for semaphore in (mine, self._all):
                await semaphore.acquire()
                held.append(semaphore)
            if longest_s is not None:
                timer = asyncio.get_running_loop().call_later(longest_s, give_back)
            yield
        finally:
            if timer is not None:
                timer.cancel()
            give_back()
            users.pop()
            if not users:
                self._of.pop(holder, None)


class ChangeSignal:
    """Wakes everybody who waits, once for each `notify`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify_change(self) -> None:
        """Something changed."""
        self._event.set()
        self._event = asyncio.Event()

    def listen_for_change(self) -> asyncio.Event:
        """The event of the next `notify`; get it before looking, so that nothing is missed."""
        return self._event


async def repeat_last(
    messages: AsyncGenerator[M, None], every_s: float = SIGN_OF_LIFE_S
) -> AsyncGenerator[M, None]:
    """All messages, and the last one again whenever none came for so long; closes `messages`."""
    last: M | None = None
    waiting = asyncio.ensure_future(anext(messages))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=every_s)
            if done:
                try:
                    last = waiting.result()
                except StopAsyncIteration:
                    return
                waiting = asyncio.ensure_future(anext(messages))
            if last is not None:
                yield last
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await messages.aclose()


async def choose_off_loop(choose: Callable[[], T], *, takes_long: bool) -> T:
    """What `choose` gives, from a thread where it `takes_long` (`Selector.takes_long`, searches).

    One thread at a time for the whole process, in the order of the calls: many callers with many
    patterns wait for each other, and not the loop for all of them. Cancelling leaves a thread to
    its end, and the next caller waits for that.
    """
    if not takes_long:
        return choose()
    loop = asyncio.get_running_loop()
    turn = _choosing.setdefault(loop, asyncio.Lock())
    await turn.acquire()
    working = loop.run_in_executor(None, choose)
    working.add_done_callback(lambda _: turn.release())
    return await asyncio.shield(working)
