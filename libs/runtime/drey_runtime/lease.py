"""One owner at a time, as a scope: `async with lease.held("shard-0") as term`.

Losing the lease cancels the body, and the scope ends with `LeaseLost`. Each ownership has an
*epoch*, a number that only grows; it goes into everything the owner writes, so that consumers can
drop what a former owner still sends. Two ways to have one: `drey_runtime.lease_postgres`, and
`drey_runtime.lease_kubernetes`; the suite of both is `drey_testing.lease`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeAlias

from drey_runtime.clock import boottime_s

_log = logging.getLogger(__name__)
Floor: TypeAlias = Callable[[], Awaitable[int]]


class LeaseLost(Exception):
    """Somebody else owns it now, or may: stop at once."""


class Term:
    """One ownership.

    `epoch` goes into every write. `lost` is set when the ownership is over. `changed` is set when
    `epoch` has grown, because the lease had to be taken again, and when a term that was not valid
    is valid again: whoever waits for it clears it. `until` is when somebody else may follow, on
    `clock`; never, where others can follow only once this one is known to be gone.
    """

    def __init__(
        self,
        name: str,
        epoch: int,
        until: float = math.inf,
        clock: Callable[[], float] = boottime_s,
    ) -> None:
        self.name = name
        self.epoch = epoch
        self.until = until
        self.lost = asyncio.Event()
        self.changed = asyncio.Event()
        self._clock = clock

    @property
    def still_valid(self) -> bool:
        """Whether anything may be published now: asked before each publish, it reads the clock.

        So a process that was stopped, or whose loop was blocked, says nothing when it goes on.
        """
        return not self.lost.is_set() and self._clock() < self.until


async def no_floor() -> int:
    """For names whose epochs are nowhere but in the lease's own memory."""
    return 0


class Lease(Protocol):
    """A way to have one owner for each name."""

    def held(self, name: str, *, floor: Floor = no_floor) -> AbstractAsyncContextManager[Term]:
        """Wait until `name` is ours and hold it for the body.

        `floor` answers the highest epoch seen elsewhere (in the image, say), asked at each
        acquisition: the new epoch is greater, though the lease's own memory was wiped. Where it
        raises `Unavailable` it is asked again later; anything else ends the wait. Loss cancels
        the body and raises LeaseLost. Cancel to stop waiting.
        """
        ...


@asynccontextmanager
async def keep_term(term: Term, keep: Callable[[], Awaitable[None]]) -> AsyncIterator[Term]:
    """Run the body with `keep` beside it: when that ends, the term is lost and the body cancelled.

    For those who write a `Lease`.
    """
    body = asyncio.current_task()
    assert body is not None
    keeper = asyncio.create_task(_keep_or_lose(term, keep, body), name=f"lease {term.name}")
    try:
        try:
            yield term
        finally:
            term.until = -math.inf
            await _cancel_task(keeper)
    except asyncio.CancelledError:
        # ours, unless somebody else has cancelled as well
        if term.lost.is_set() and body.uncancel() == 0:
            raise LeaseLost(f"lease {term.name} is no longer held") from None
        raise
    except BaseException:
        # An error of the body went before our cancellation. Left as it is, that would pass for one
        # of somebody else's: the next thing that is awaited would end, and with it the owner.
        if term.lost.is_set():
            body.uncancel()
        raise
    if term.lost.is_set():
        body.uncancel()
        raise LeaseLost(f"lease {term.name} is no longer held")


async def _keep_or_lose(
    term: Term, keep: Callable[[], Awaitable[None]], body: asyncio.Task[object]
) -> None:
    try:
        await keep()
    finally:
        # also where a defect ends this task: without a keeper there is no lease
        if not _being_cancelled():
            _log.warning("lease lost", extra={"lease": term.name, "epoch": term.epoch})
            term.lost.set()
            body.cancel()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _cancel_task(task: asyncio.Task[None]) -> None:
    """Stop a task; its failure, if it has one, is raised here."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
