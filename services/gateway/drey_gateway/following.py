"""Following a log: what is new, in its order, with signs of life."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol, TypeVar

from drey_core.errors import Unavailable
from drey_runtime.listening import wait_for_event
from drey_runtime.waiting import ChangeSignal

CHECKPOINT_S = 5.0
"""One is promised each 15 s."""
_RETRY_S = 1.0

M_co = TypeVar("M_co", covariant=True)


class FollowedLog(Protocol[M_co]):
    """One reader's way through a log."""

    async def next_messages(self) -> Sequence[M_co]:
        """Messages of what comes next; empty: there is nothing more now. `Unavailable`."""
        ...

    def make_checkpoint(self, *, stalled: bool) -> M_co:
        """The message that says where the reader stands."""
        ...


async def follow_log(
    followed: FollowedLog[M_co], changed: ChangeSignal
) -> AsyncGenerator[M_co, None]:
    """All messages, until the reader leaves. `Unavailable` is a stalled checkpoint."""
    stalled, next_checkpoint = False, 0.0
    while True:
        waiting, before = changed.listen_for_change(), stalled
        messages: Sequence[M_co] = ()
        try:
            messages = await followed.next_messages()
            stalled = False
        except Unavailable:
            stalled = True
        for message in messages:
            yield message
        now = time.monotonic()
        if stalled != before or now >= next_checkpoint:
            next_checkpoint = now + CHECKPOINT_S
            yield followed.make_checkpoint(stalled=stalled)
        if not messages:
            left = max(next_checkpoint - time.monotonic(), 0.0)
            await wait_for_event(waiting, min(left, _RETRY_S) if stalled else left)
