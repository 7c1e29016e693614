"""Streams of states say the last one again while nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from drey_runtime.waiting import repeat_last


async def test_the_last_message_comes_again_until_the_next_and_the_end_ends_it():
    go_on, closed = asyncio.Event(), asyncio.Event()

    async def states() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await go_on.wait()
            yield 2
        finally:
            closed.set()

    seen = []
    async for state in repeat_last(states(), 0.01):
        seen.append(state)
        if seen.count(1) == 3:
            go_on.set()
    assert seen.count(1) >= 3 and seen[-1] == 2 and sorted(seen) == seen
    assert closed.is_set()


async def test_who_leaves_ends_what_it_reads():
    closed = asyncio.Event()

    async def states() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    stream = repeat_last(states(), 0.01)
    assert [await anext(stream) for _ in range(3)] == [1, 1, 1]
    await stream.aclose()
    assert closed.is_set()


async def test_an_error_is_not_swallowed():
    async def states() -> AsyncGenerator[int, None]:
        yield 1
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        async for _ in repeat_last(states(), 0.01):
            pass
