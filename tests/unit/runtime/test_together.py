"""Work done together ends together."""

import asyncio

import pytest

from drey_runtime.waiting import run_together


class Work:
    """Waits until told, and says whether it was ended."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), False

    async def run(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # what is let go of takes a turn of the loop
            self.ended = True


async def give(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def test_results_come_in_order():
    assert await run_together(give(1), give(2), give(3)) == (1, 2, 3)


async def test_what_goes_on_is_ended_before_the_error_is_told():
    work = Work()

    async def fail() -> None:
        await work.begun.wait()
        raise LookupError("first")

    with pytest.raises(LookupError, match="first"):
        await run_together(work.run(), fail())
    assert work.ended


async def test_a_cancelled_caller_leaves_nothing_behind():
    works = Work(), Work()
    task = asyncio.ensure_future(run_together(works[0].run(), works[1].run()))
    for work in works:
        await work.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [work.ended for work in works] == [True, True]
