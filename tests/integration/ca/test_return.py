"""What is told of a channel that connected and of which not everything has come yet."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace

from drey_core.values import State
from drey_testing.ca.fake_server import FakeServer
from drey_testing.ca.suite import WAIT
from drey_testing.ca.wire import CTRL, ENUM, TIME, Command, FakeChannel, doubles

OLD, NEW = (b"off", b"on"), (b"on", b"off")
NAMES = [PLAIN, SAME, CHOICE, NEVER, MUTE] = [
    "RETURN:" + name for name in ("PLAIN", "SAME", "CHOICE", "NEVER", "MUTE")
]
GET_FAILED = 152


class Gate:
    """A script: keeps back what is of some DBR types, by name, until it is opened."""

    def __init__(self):
        self.kept = []
        self.closed = {}

    def __call__(self, message, name):
        if message.command in (Command.EVENT_ADD, Command.READ_NOTIFY):
            form = CTRL if message.type >= CTRL else TIME
            if self.closed.get(name) == form:
                self.kept.append((name, message))
                return []
        return [message]

    def open(self, server):
        """Say what was kept back; of one that tells no labels, that it does not."""
        kept, self.kept, self.closed = self.kept, [], {}
        for name, message in kept:
            if name == MUTE:
                message = replace(message, payload=bytes(8), count=1, first=GET_FAILED)
            server.say(message)


def enum(number, labels):
    return FakeChannel(ENUM, struct.pack(">H", number), labels=labels)


class Told:
    """What drains told, by name: value, state, and the labels at that time."""

    def __init__(self, table, slots):
        self.table = table
        self.names = dict(zip(slots.tolist(), NAMES, strict=True))
        self.rows = {name: [] for name in NAMES}

    def drain(self):
        got = self.table.drain_updates()
        self.table.drain_info()
        for i, slot in enumerate(got.key.tolist()):
            row = (got.value(i), State(int(got.state[i])), self.table.read_info(got.key[i : i + 1]))
            self.rows[self.names[slot]].append((*row[:2], row[2].labels[0]))

    async def until(self, enough):
        async with asyncio.timeout(2 * WAIT):
            while not enough():
                self.drain()
                await asyncio.sleep(0.01)

    def last(self):
        return {name: rows[-1] for name, rows in self.rows.items() if rows}


async def test_what_is_told_of_a_channel_is_of_its_present_connection(table):
    gate = Gate()
    channels = {
        PLAIN: FakeChannel(value=doubles(1.5)),
        SAME: FakeChannel(value=doubles(4.5)),
        CHOICE: enum(1, OLD),
        NEVER: enum(1, OLD),
    }
    if table.implementation_name == "native":  # aioca ends its monitors at the first error
        channels[MUTE] = enum(1, OLD)
    async with FakeServer(channels, gate) as server:
        # the labels of one never come, and so does not its number
        gate.closed = {NEVER: CTRL}
        slots = await table.add_channels(NAMES)
        await table.subscribe_slots(slots)
        told = Told(table, slots)
        valued = {name for name in channels if name != NEVER}
        await told.until(
            lambda: valued <= {name for name, row in told.last().items() if row[0] is not None}
        )
        await told.until(lambda: gate.kept)
        gate.kept.clear()
        assert {row[0] for row in told.rows[NEVER]} <= {None}
        unheard = table.connection_columns().unheard_ns[slots] > 0
        assert unheard.tolist() == [name == NEVER for name in NAMES]
        assert told.last()[CHOICE] == (1, State.CONNECTED, OLD)

        # the server comes back; some of what it says is late
        gate.closed = {PLAIN: TIME, SAME: TIME, CHOICE: CTRL, NEVER: CTRL, MUTE: CTRL}
        channels[PLAIN] = FakeChannel(value=doubles(2.5))
        channels[CHOICE] = enum(0, NEW)
        told.rows = {name: [] for name in NAMES}
        server.cut()
        await told.until(lambda: {name for name, _ in gate.kept} == channels.keys())
        await asyncio.sleep(0.3)  # what was sent beside it has arrived
        told.drain()
        assert table.table_stats().connected == len(channels)
        for name in valued:
            assert State.CONNECTED not in {row[1] for row in told.rows[name]}, name
        assert {row[0] for row in told.rows[PLAIN]} == {1.5}
        assert {row[0] for row in told.rows[NEVER]} == {None}

        gate.open(server)
        await told.until(
            lambda: (
                {row[1] for row in told.last().values()} == {State.CONNECTED}
                and told.last()[NEVER][0] is not None
            )
        )
        assert told.last()[PLAIN][0] == 2.5
        assert told.last()[SAME][0] == 4.5
        assert told.last()[CHOICE] == (0, State.CONNECTED, NEW)
        assert told.last()[NEVER] == (1, State.CONNECTED, OLD)
        assert not table.connection_columns().unheard_ns[slots].any()
        if MUTE in channels:
            assert told.last()[MUTE] == (1, State.CONNECTED, ())
