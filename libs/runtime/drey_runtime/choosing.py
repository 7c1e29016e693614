"""Choosing PVs beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def choose_off_loop(choose: Callable[[], T], *, takes_long: bool) -> T:
    """What `choose` gives, from a thread where it `takes_long` (`Selector.takes_long`, searches).

    One thread at a time for the whole process, in the order of the calls: many callers with many
    patterns wait for each other, and not the loop for all of them. Cancelling leaves a thread to
    its end, and the next caller waits for that.
    """
    if not takes_long:
        return choose()
    loop = asyncio.get_running_loop()
    turn = _turns.setdefault(loop, asyncio.Lock())
    await turn.acquire()
    working = loop.run_in_executor(None, choose)
    working.add_done_callback(lambda _: turn.release())
    return await asyncio.shield(working)
