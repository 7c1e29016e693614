"""Many channels that connect one after the other: subscriptions stand behind them, not before."""

from __future__ import annotations

import asyncio
import time

import pytest

from drey_core.values import KIND_NONE
from drey_testing.ca.fake_server import FakeServer
from drey_testing.ca.suite import WAIT
from drey_testing.ca.wire import CTRL, Command, FakeChannel, doubles

PART, PARTS = 50, 24
NAMES = [f"RUSH:{i}" for i in range(PART * PARTS)]


class Log:
    """A script: remembers which answers a server gave, in order."""

    def __init__(self):
        self.said = []

    def __call__(self, message, name):
        self.said.append(message.command)
        return [message]

    @property
    def subscribed_before_the_last_connected(self):
        last = len(self.said) - self.said[::-1].index(Command.CREATE_CHAN)
        return self.said[:last].count(Command.EVENT_ADD)


async def test_subscriptions_wait_while_many_channels_connect(table):
    if table.implementation_name != "native":
        pytest.skip("aioca's table asks for subscriptions at once")
    log, valued = Log(), set()
    channels = {name: FakeChannel(value=doubles(1.5)) for name in NAMES}
    async with FakeServer(channels, log) as server:
        for at in range(0, len(NAMES), PART):
            part = await table.add_channels(NAMES[at : at + PART])
            await table.subscribe_slots(part)
            assert (await table.wait_connected(part, WAIT)).all()
        async with asyncio.timeout(WAIT):
            while len(valued) < len(NAMES):
                await table.wait_dirty()
                table.drain_info()
                rows = table.drain_updates()
                valued.update(rows.key[rows.kind != KIND_NONE].tolist())
            while len(server.circuits[0].subscriptions) < 2 * len(NAMES):
                await asyncio.sleep(0.01)
    assert log.subscribed_before_the_last_connected < len(NAMES) // 2
    assert table.table_stats().updates == len(NAMES)


SPELL, LATE_S = 250, 3.0
"""Of the native table: so many subscriptions to metadata at a time, and how long it waits there."""


class Withholding:
    """A script: answers no subscription to metadata until it may."""

    def __init__(self):
        self.may = False

    def __call__(self, message, name):
        metadata = message.command == Command.EVENT_ADD and message.type >= CTRL
        return [message] if self.may or not metadata else []


async def test_metadata_is_subscribed_little_by_little_once_all_values_are_there(table):
    """An IOC that is given all of them at once is late with values for seconds."""
    if table.implementation_name != "native":
        pytest.skip("aioca's table asks for subscriptions at once")
    script = Withholding()
    channels = {name: FakeChannel(value=doubles(1.5)) for name in NAMES}

    async with FakeServer(channels, script) as server:

        def subscribed(metadata):
            kinds = [kind for _, kind in server.circuits[0].subscriptions.values()]
            return sum((kind >= CTRL) == metadata for kind in kinds)

        begun = time.monotonic()
        slots = await table.add_channels(NAMES)
        await table.subscribe_slots(slots)
        async with asyncio.timeout(WAIT):
            await table.wait_connected(slots, WAIT)
            while subscribed(metadata=False) < len(NAMES) or table.table_stats().asking:
                await asyncio.sleep(0.01)
            while not subscribed(metadata=True):
                await asyncio.sleep(0.01)
        # where nothing comes it goes on all the same, a spell at a time
        spells = 1 + (time.monotonic() - begun) // LATE_S
        assert subscribed(metadata=True) <= SPELL * spells
        assert not table.table_stats().asking
        script.may = True
        async with asyncio.timeout(WAIT):
            while subscribed(metadata=True) < len(NAMES):
                await asyncio.sleep(0.01)
