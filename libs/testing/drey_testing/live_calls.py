"""What of gRPC calls is alive in this process, on both sides of it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from types import AsyncGeneratorType

_CALLS = frozenset(
    {"RPCState", "_ServicerContext", "_AioCall", "UnaryStreamCall", "StreamStreamCall"}
)
"""gRPC's own objects of a call; each holds the last message."""


def live_calls() -> Counter[str]:
    """Objects of calls, generators that are not at their end, and tasks, by kind.

    What only a cycle keeps is collected first: it is not held, though it should not wait for this.
    """
    gc.collect()
    found: Counter[str] = Counter()
    for each in gc.get_objects():
        if isinstance(each, AsyncGeneratorType) and each.ag_frame is not None:
            found[f"generator {each.__qualname__}"] += 1
        elif type(each).__name__ in _CALLS:
            found[type(each).__name__] += 1
    found["task"] = len(asyncio.all_tasks())
    return found


async def wait_calls_gone(before: Counter[str]) -> None:
    """Wait until no more is alive than `before`; AssertionError with what is, after a minute."""
    end = time.monotonic() + 60
    while more := live_calls() - before:
        if time.monotonic() > end:
            raise AssertionError(f"of calls that were left there is still: {dict(more)}")
        await asyncio.sleep(0.05)
