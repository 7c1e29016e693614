"""The frame of a service: what ends of its loops mean."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from drey_runtime.app import App, LoopEnded


class CancelledFromInside:
    """A loop in which a task is cancelled that nobody cancelled: a group tells nothing of it."""

    async def run(self) -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        task.cancel()
        await task


class Endless:
    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_a_loop_that_was_cancelled_by_nobody_stops_the_process() -> None:
    with pytest.raises(ExceptionGroup) as ended:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            app = App(stack, group)
            app.start_loop(Endless())
            app.start_loop(CancelledFromInside())
    (error,) = ended.value.exceptions
    assert isinstance(error, LoopEnded)
    assert "CancelledFromInside" in str(error)


async def test_a_loop_that_the_group_cancels_just_ends() -> None:
    with pytest.raises(ExceptionGroup) as ended:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            App(stack, group).start_loop(Endless())
            await asyncio.sleep(0)
            raise ZeroDivisionError
    assert [type(error) for error in ended.value.exceptions] == [ZeroDivisionError]
