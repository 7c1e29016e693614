"""Cancellations that a client library swallowed or turned into an error of its own."""

from __future__ import annotations

import asyncio


def reraise_cancellation() -> None:
    """Raise `CancelledError` where the current task was cancelled and somebody took no notice.

    The NATS client, once closed, makes an error of a cancellation; the Redis client may lose one
    while it disconnects. A loop that goes on after that can not be stopped any more.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling() > 0:
        raise asyncio.CancelledError
