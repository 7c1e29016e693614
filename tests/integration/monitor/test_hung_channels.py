"""Channels that are subscribed and get no value though their IOC lives, and those beside them."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np

from drey_ca import open_table
from drey_core.values import KIND_NONE
from drey_monitor.adapters.channels import ChannelHub
from drey_testing.ca.fake_server import FakeServer
from drey_testing.ca.wire import CTRL, Command, FakeChannel, Message
from drey_testing.fixtures_monitor import CHANNELS, eventually
from tests.integration.monitor.test_iocs import Reports

DEAF = [f"DEAF:{number}" for number in range(300)]


STAYS_DEAF = "DEAF:0"


class ForgetfulIoc:
    """Forgets the first subscription to FORGOTTEN.

    DEAF channels have no value when they are made first, neither by subscription nor by a read; one
    of them never.
    """

    def __init__(self) -> None:
        self.created: Counter[str] = Counter()

    def __call__(self, message: Message, name: str) -> list[Message | bytes]:
        self.created[name] += message.command == Command.CREATE_CHAN
        is_value = message.command == Command.EVENT_ADD and message.type < CTRL
        if name == "FORGOTTEN" and is_value and self.created[name] == 1:
            return []
        is_deaf = name == STAYS_DEAF or (name in DEAF and self.created[name] == 1)
        if is_deaf and (is_value or message.command == Command.READ_NOTIFY):
            return []
        return [message]


async def test_channels_that_hang_are_connected_anew_and_no_other_is_touched(rig):
    script, reports = ForgetfulIoc(), Reports(rig)
    await reports.listen("monitor")
    healthy = {"QUIET": FakeChannel(), "SHUT": FakeChannel(rights=0)}
    names = ["FORGOTTEN", *healthy, *DEAF]
    channels = {name: FakeChannel() for name in names} | healthy
    numbers = dict(zip(names, range(1024, 2048), strict=False))
    async with FakeServer(channels, script) as server:
        rig.directory.set([*CHANNELS.items(), *((n, name) for name, n in numbers.items())])
        # a circuit that libca gives up under load would be another reason to connect anew
        os.environ["EPICS_CA_CONN_TMO"], before = "60", os.environ["EPICS_CA_CONN_TMO"]
        try:
            rig.start_monitor()
        finally:
            os.environ["EPICS_CA_CONN_TMO"] = before
        heard = [numbers[name] for name in names if name not in ("SHUT", STAYS_DEAF)]

        async def all_heard():
            return bool(((await rig.read(heard)).kind != KIND_NONE).all())

        await eventually(all_heard, "all have a value but the one that stays deaf")

        async def one_hangs():
            told = reports.ioc(server.port)
            lives = told.silent_since_ns == 0 and told.connected == len(names)
            return lives and told.hung == 1 and told.reconnected >= 1 + len(DEAF)

        await eventually(one_hangs, "that one is told, and what was done")
        assert all(script.created[name] >= 2 for name in ["FORGOTTEN", *DEAF])
        # what was heard, or may not be read, keeps its connection, however quiet it is
        assert {name: script.created[name] for name in healthy} == {"QUIET": 1, "SHUT": 1}


async def test_the_old_connection_stays_where_no_new_one_comes():
    """And nothing is left of the new one."""
    served = {"MUTE": FakeChannel(), "GONE": FakeChannel(), "HEARD": FakeChannel()}
    values = {name: bytes([64, 8, 0, 0, 0, 0, 0, 0]) for name in served}
    for name, value in values.items():
        served[name].value = value
    mute = {"MUTE", "GONE"}

    def script(message: Message, name: str) -> list[Message | bytes]:
        if name in mute and message.command == Command.EVENT_ADD and message.type < CTRL:
            return []
        return [message]

    async with FakeServer(served, script), open_table("native") as table:
        hub = ChannelHub(table)
        await hub.add_channels(0, np.array([7, 8, 9]), list(served))

        async def two_wait():
            await hub.drain_updates()
            return (table.connection_columns().unheard_ns > 0).sum() == 2

        await eventually(two_wait, "two channels wait")
        slots = np.flatnonzero(table.connection_columns().unheard_ns > 0)
        assert sorted(hub.channels_of(slots).tolist()) == [7, 8]
        channels = hub.channels_of(slots).tolist()

        def addresses_of(shards, numbers):
            assert (shards.tolist(), numbers.tolist()) == ([0, 0], channels)
            return ["MUTE" if number == 7 else "NOBODY:SERVES:THIS" for number in channels]

        mute.clear()
        done = await hub.reconnect_slots(slots, addresses_of)
        assert dict(zip(channels, done.tolist(), strict=True)) == {7: True, 8: False}
        assert table.table_stats().channels == 3
        found: dict[int, float] = {}

        async def seven_is_heard():
            for columns in (await hub.drain_updates()).values():
                heard = columns.take_rows(columns.kind != KIND_NONE)
                found.update(zip(heard.key.tolist(), heard.data.view(np.float64), strict=True))
            return 7 in found

        await eventually(seven_is_heard, "the one that was connected anew has a value")
        assert found[7] == 3.0 and 8 not in found
