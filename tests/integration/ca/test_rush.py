"""Many channels that connect one after the other: subscriptions stand behind them, not before."""

from __future__ import annotations

import asyncio

import pytest

from drey_core.values import KIND_NONE
from drey_testing.ca.fake_server import FakeServer
from drey_testing.ca.suite import WAIT
from drey_testing.ca.wire import Command, FakeChannel, doubles

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
    if table.implementation != "native":
        pytest.skip("aioca's table asks for subscriptions at once")
    log, valued = Log(), set()
    channels = {name: FakeChannel(value=doubles(1.5)) for name in NAMES}
    async with FakeServer(channels, log) as server:
        for at in range(0, len(NAMES), PART):
            part = await table.add(NAMES[at : at + PART])
            await table.subscribe(part)
            assert (await table.wait_connected(part, WAIT)).all()
        async with asyncio.timeout(WAIT):
            while len(valued) < len(NAMES):
                await table.wait_dirty()
                table.drain_info()
                rows = table.drain()
                valued.update(rows.key[rows.kind != KIND_NONE].tolist())
            while len(server.circuits[0].subscriptions) < 2 * len(NAMES):
                await asyncio.sleep(0.01)
    assert log.subscribed_before_the_last_connected < len(NAMES) // 2
    assert table.stats().updates == len(NAMES)
