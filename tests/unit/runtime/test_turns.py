"""Turns by key."""

from __future__ import annotations

import asyncio

from drey_runtime.waiting import Turns


async def test_a_turn_is_given_on_when_it_lasts_too_long():
    turns, began = Turns(2, 0.5), list[str]()

    async def hold_turn(name: str, longest_s: float | None) -> None:
        async with turns.take_turn("key", longest_s):
            began.append(name)
            await asyncio.Event().wait()

    first = asyncio.create_task(hold_turn("first", 0.01))
    second = asyncio.create_task(hold_turn("second", None))
    third = asyncio.create_task(hold_turn("third", None))
    while len(began) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert began == ["first", "second"]
    first.cancel()  # it gives back nothing twice
    await asyncio.sleep(0.05)
    assert began == ["first", "second"]
    second.cancel()
    while len(began) < 3:
        await asyncio.sleep(0.01)
    third.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    async with turns.take_turn("key"), turns.take_turn("other"):
        pass
