"""Signs of life in streams of states: the last one again, so that no proxy takes them for dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

SIGN_OF_LIFE_S = 10.0
"""One is promised each 15 s."""

M = TypeVar("M")


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
