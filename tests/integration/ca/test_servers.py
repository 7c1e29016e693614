"""Which servers the channels are at, and names that two servers have."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest

from drey_ca import ServedTwice, open_table
from drey_core.errors import Unimplemented
from drey_core.values import KIND_NONE
from drey_testing.ca.fake_server import FakeServer
from drey_testing.ca.ioc import Ioc
from drey_testing.ca.suite import WAIT, connected
from drey_testing.ca.wire import CTRL, Command, FakeChannel, Message

ONE = """
record(ao,"ONE:A"){field(VAL,"1") field(PINI,"YES")}
record(waveform,"ONE:WAVE"){field(FTVL,"DOUBLE") field(NELM,"5")}
record(ao,"BOTH"){field(VAL,"1") field(PINI,"YES")}
"""
OTHER = """
record(ao,"OTHER:A"){field(VAL,"2") field(PINI,"YES")}
record(ao,"BOTH"){field(VAL,"2") field(PINI,"YES")}
"""


async def test_connections_tell_the_server_of_each_channel(table, tmp_path):
    with Ioc(tmp_path, ONE) as one, Ioc(tmp_path, OTHER) as other:
        slots = await connected(table, "ONE:A", "ONE:WAVE", "OTHER:A")
        (dead,) = (await table.add_channels(["NOBODY:SERVES:THIS"])).tolist()
        found = table.connection_columns()
        ports = [found.servers[i].rpartition(":")[2] for i in found.server[slots].tolist()]
        assert ports == [str(one.port), str(one.port), str(other.port)]
        assert found.server[dead] == -1 and not found.connected[dead]
        assert found.connected[slots].all()
        assert found.askable[slots].tolist() == [True, False, True]
        assert len(set(found.servers)) == len(found.servers)
        other.kill()
        async with asyncio.timeout(WAIT):
            while table.connection_columns().connected[slots[2]]:
                await asyncio.sleep(0.05)
        found = table.connection_columns()
        # where it was, and that it is not there now
        assert found.servers[found.server[slots[2]]].endswith(f":{other.port}")
        assert not found.askable[slots[2]]
        await table.remove_slots(slots[:1])
        assert table.connection_columns().server[slots[0]] == -1


async def test_a_name_at_two_servers_is_told_with_both(tmp_path):
    try:
        async with open_table("native") as table:
            with Ioc(tmp_path, ONE) as one, Ioc(tmp_path, OTHER) as other:
                slots = await connected(table, "BOTH", "ONE:A", "OTHER:A")
                found: list[ServedTwice] = []
                async with asyncio.timeout(WAIT):
                    while not found:
                        await asyncio.sleep(0.05)
                        found = table.take_served_twice()
                assert [each.name for each in found] == ["BOTH"]
                named = {found[0].taken.rpartition(":")[2], found[0].ignored.rpartition(":")[2]}
                assert named == {str(one.port), str(other.port)}
                assert table.take_served_twice() == []
                assert table.connection_columns().connected[slots].all()
                # a further search tells of it again
                again = await table.add_channels(["BOTH"])
                async with asyncio.timeout(WAIT):
                    while not table.take_served_twice():
                        await asyncio.sleep(0.05)
                await table.remove_slots(again)
    except Unimplemented as error:
        pytest.skip(f"NOT TESTED: the native table is not built here ({error})")


class Dropping:
    """A script that keeps back the values of subscriptions to some names."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.kept_back: Counter[str] = Counter()

    def __call__(self, message: Message, name: str) -> list[Message | bytes]:
        if message.command == Command.EVENT_ADD and message.type < CTRL and name in self.names:
            self.kept_back[name] += 1
            return []
        return [message]


async def test_a_subscription_that_nothing_came_of_is_told_until_it_is_heard(table):
    script = Dropping("MUTE")
    channels = {
        "MUTE": FakeChannel(),
        "HEARD": FakeChannel(),
        "SHUT": FakeChannel(rights=0),
        "UNASKED": FakeChannel(),
    }
    async with FakeServer(channels, script) as server:
        slots = await connected(table, *channels)
        mute, *others = slots.tolist()
        await table.subscribe_slots(slots[:3])

        async def look(condition):
            async with asyncio.timeout(WAIT):
                while not condition((found := table.connection_columns().unheard_ns).tolist()):
                    await asyncio.sleep(0.02)
            return found

        def only_mute_waits(unheard):
            return unheard[mute] > 0 and not any(unheard[slot] for slot in others)

        first = (await look(only_mute_waits))[mute]
        assert (await look(lambda unheard: unheard[mute] > first + 10**8))[mute] > first
        # a connection that was lost and is back begins to wait anew
        script.names = {"HEARD"}
        server.cut()
        await look(lambda unheard: unheard[others[0]] > 0 and not unheard[mute])
        server.post("HEARD")
        script.names = set()
        server.post("HEARD")
        await look(lambda unheard: not any(unheard))


async def test_many_subscriptions_that_nothing_comes_of_keep_nobody_waiting(tmp_path):
    names = [f"MUTE:{number}" for number in range(2000)]
    script = Dropping(*names)
    try:
        async with (
            FakeServer({name: FakeChannel() for name in [*names, "HEARD"]}, script),
            open_table("native") as table,
        ):
            slots = await connected(table, *names)
            await table.subscribe_slots(slots)
            async with asyncio.timeout(WAIT):
                while sum(script.kept_back.values()) < 1000:
                    table.connection_columns()  # each look has what is late looked after
                    await asyncio.sleep(0.05)
            (heard,) = await connected(table, "HEARD")
            await table.subscribe_slots(np.array([heard]))
            async with asyncio.timeout(WAIT):
                while heard not in (rows := table.drain_updates()).key[rows.kind != KIND_NONE]:
                    assert table.connection_columns().connected[slots].all()
                    await asyncio.sleep(0.05)
    except Unimplemented as error:
        pytest.skip(f"NOT TESTED: the native table is not built here ({error})")
