"""The rules for everything that tries again: how long to wait, and to end when cancelled."""

from __future__ import annotations

import asyncio
import random

_MOST_DOUBLINGS = 20


def backoff_delay(attempt: int, *, first_s: float = 0.05, cap_s: float = 1.0) -> float:
    """Seconds to wait after failure number `attempt` (from 0): doubling, capped, jittered."""
    return min(cap_s, first_s * 2.0 ** min(attempt, _MOST_DOUBLINGS)) * random.uniform(0.5, 1.0)


def reraise_cancellation() -> None:
    """Raise `CancelledError` where the current task was cancelled and somebody took no notice.

    The NATS client, once closed, makes an error of a cancellation; the Redis client may lose one
    while it disconnects. A loop that goes on after that can not be stopped any more.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling() > 0:
        raise asyncio.CancelledError
