"""Channels stay open between uses, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drey_ca.interface import Slots
from drey_restore.adapters.channels import ChannelPool, SlotsByRow


class Table:
    """Gives slots out in order."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.waiting: set[int] = set()
        self._next = 0

    async def add_channels(self, names: Sequence[str]) -> Slots:
        await asyncio.sleep(0)
        first, self._next = self._next, self._next + len(names)
        self.names |= dict(zip(range(first, self._next), names, strict=True))
        return np.arange(first, self._next)

    def unanswered_slots(self, slots: Slots) -> NDArray[np.bool_]:
        return np.array([slot in self.waiting for slot in slots.tolist()], np.bool_)

    async def remove_slots(self, slots: Slots) -> None:
        await asyncio.sleep(0)
        for slot in slots.tolist():
            del self.names[slot]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def pool() -> tuple[ChannelPool, Any, Clock]:
    table, clock = Table(), Clock()
    return ChannelPool(table, 60.0, clock), table, clock


async def test_what_nobody_has_used_for_a_while_is_closed() -> None:
    channels, table, clock = pool()
    async with channels.use_channels(["A", "B"]):
        first = channels.slots_of(["B", "A"]).tolist()
    async with channels.use_channels(["B"]):
        assert channels.slots_of(["B"]).tolist() == first[:1]
        clock.now = 61.0
        await channels.close_idle()
        assert list(table.names.values()) == ["B"]
    await channels.close_idle()
    assert list(table.names.values()) == ["B"]
    clock.now = 122.0
    await channels.close_idle()
    assert (len(channels), table.names) == (0, {})


async def test_what_another_uses_stays_open() -> None:
    channels, table, clock = pool()
    async with channels.use_channels(["A"]):
        async with channels.use_channels(["A"]):
            pass
        clock.now = 1000.0
        await channels.close_idle()
        assert list(table.names.values()) == ["A"]


async def test_two_who_open_the_same_share_it() -> None:
    channels, table, _ = pool()

    async def use() -> list[int]:
        async with channels.use_channels(["A", "B"]):
            return channels.slots_of(["A", "B"]).tolist()

    one, two = await asyncio.gather(use(), use())
    assert one == two
    assert len(table.names) == 2


async def test_a_renewed_channel_is_another_one() -> None:
    channels, table, _ = pool()
    async with channels.use_channels(["A", "B"]):
        before = channels.slots_of(["A", "B"]).tolist()
        await channels.renew_channels(["A"])
        after = channels.slots_of(["A", "B"]).tolist()
        assert after[0] != before[0]
        assert after[1] == before[1]
        assert sorted(table.names) == sorted(after)


async def test_who_uses_a_renewed_channel_has_its_new_slot() -> None:
    channels, table, _ = pool()
    async with channels.use_channels(["A", "B"]) as used:
        before = used.used_slots().tolist()
        await channels.renew_channels(["A"])
        assert used.used_slots().tolist() == channels.slots_of(["A", "B"]).tolist() != before
        assert sorted(table.names) == sorted(used.used_slots().tolist())


async def test_a_channel_that_could_not_be_opened_again_is_let_go() -> None:
    channels, table, clock = pool()
    async with channels.use_channels(["A", "B"]):
        renewal = asyncio.ensure_future(channels.renew_channels(["A"]))
        while "A" in table.names.values():
            await asyncio.sleep(0)
        renewal.cancel()
        await asyncio.wait([renewal])
    async with channels.use_channels(["A"]) as used:
        assert [table.names[slot] for slot in used.used_slots().tolist()] == ["A"]
    clock.now = 61.0
    await channels.close_idle()
    assert (len(channels), table.names) == (0, {})


async def test_a_channel_whose_write_is_unanswered_is_not_closed() -> None:
    channels, table, clock = pool()
    async with channels.use_channels(["A", "B"]):
        table.waiting = set(channels.slots_of(["A"]).tolist())
    clock.now = 61.0
    await channels.close_idle()
    assert list(table.names.values()) == ["A"]
    table.waiting.clear()
    await channels.close_idle()
    assert (len(channels), table.names) == (0, {})


async def test_slots_by_row_are_those_of_now() -> None:
    channels, table, _ = pool()
    by_row = SlotsByRow(channels, ["A", "", "B", "C"])

    def shown(*rows: int) -> list[str]:
        slots = by_row.slots_of_rows(np.array(rows, np.int64))
        return [table.names[slot] for slot in slots.tolist()]

    assert shown() == []
    async with channels.use_channels(["B", "A"]):
        assert shown(2, 0, 2) == ["B", "A", "B"]
        with pytest.raises(KeyError, match="C"):
            shown(0, 3)
        async with channels.use_channels(["C"]):  # opened after the look at the others
            assert shown(3, 0) == ["C", "A"]
            await channels.renew_channels(["A", "C"])
            assert shown(0, 2, 3) == ["A", "B", "C"]
            closing = asyncio.ensure_future(channels.renew_channels(["B"]))
            await asyncio.sleep(0)
            with pytest.raises(KeyError, match="B"):
                shown(2)
            await closing
            assert shown(2) == ["B"]
