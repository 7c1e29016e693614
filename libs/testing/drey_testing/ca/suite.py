"""What the parts of the conformance suite share: waiting for conditions, making columns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from drey_ca.interface import ChannelTable, Slots
from drey_core.values import Columns, State

WAIT = 60.0
"""Seconds after which a condition counts as never met."""
LONG = 10 * WAIT
"""A deadline beside which the end of anything that does not wait for it comes at once."""


async def connected(table: ChannelTable, *names: str) -> Slots:
    """Slots of `names`, all connected."""
    slots = await table.add_channels(names)
    up = await table.wait_connected(slots, WAIT)
    assert up.all(), [name for name, is_up in zip(names, up, strict=True) if not is_up]
    return slots


async def drained_until(
    table: ChannelTable, enough: Callable[[dict[int, object]], bool]
) -> Columns:
    """Drain until `enough` of the values by slot; the last drain that changed any."""
    seen: dict[int, object] = {}
    async with asyncio.timeout(WAIT):
        while True:
            await table.wait_dirty()
            table.drain_info()
            got = table.drain_updates()
            assert (np.diff(got.key) > 0).all()
            seen.update((int(slot), got.value(i)) for i, slot in enumerate(got.key))
            if enough(seen):
                return got


async def drained_until_state(table: ChannelTable, slots: Slots, state: State) -> None:
    """Drain until each of `slots` was drained in `state` once."""
    left = set(slots.tolist())
    async with asyncio.timeout(WAIT):
        while left:
            await table.wait_dirty()
            table.drain_info()
            got = table.drain_updates()
            left -= set(got.key[got.state == state].tolist())


async def info_until(table: ChannelTable, enough: Callable[[], bool]) -> None:
    """Wait for news until `enough`."""
    async with asyncio.timeout(WAIT):
        while not enough():
            await table.wait_dirty()
            table.drain_updates()
            table.drain_info()


def columns(values: Sequence[object], kinds: Sequence[int | None] | None = None) -> Columns:
    """`values` as columns to write."""
    return Columns.from_values(
        np.zeros(len(values), np.int64), values, kinds or [None] * len(values)
    )


def seen_value(slot: int, value: object) -> Callable[[dict[int, object]], bool]:
    """Whether `value` was seen of `slot`: an array bit for bit, anything else if equal."""

    def enough(seen: dict[int, object]) -> bool:
        got = seen.get(int(slot))
        if isinstance(value, np.ndarray):
            return isinstance(got, np.ndarray) and got.tobytes() == value.tobytes()
        return not isinstance(got, np.ndarray) and got == value

    return enough


def bits(kind: int, *cells: int) -> Columns:
    """Scalars of `kind` by their bits."""
    out = columns([0.0] * len(cells))
    out.kind[:] = kind
    out.data[:] = np.array(cells, np.uint64)
    return out


async def within(seconds: float, work: Awaitable[object]) -> None:
    """`work` must end in `seconds`."""
    before = time.monotonic()
    await work
    assert time.monotonic() - before < seconds
