"""Several things at a time, none of which outlives the others' failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")


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
