"""Servers that lie. Nothing of it may crash the process or reach a neighbour's row."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from drey_ca.eca import ECA
from drey_core.values import Kind, State
from drey_testing.ca import conformance_values, wire
from drey_testing.ca.fake_server import CUT, FakeServer
from drey_testing.ca.records import LATE
from drey_testing.ca.suite import WAIT, columns, connected, drained_until, info_until, seen_value
from drey_testing.ca.wire import Command, FakeChannel, doubles


class Liar:
    """A script: tells the truth of every name but `LIE`, whose values go through `lie`."""

    def __init__(self, lie=None):
        self.lie = lie

    def __call__(self, message, name):
        value = message.command in (Command.EVENT_ADD, Command.READ_NOTIFY) and message.payload
        if self.lie is None or name != "LIE" or not value:
            return [message]
        said = self.lie(message)
        return said if isinstance(said, list) else [said]


NEIGHBOURS = [f"TRUE:{i}" for i in range(20)]


def channels(**lie):
    out = {name: FakeChannel(value=doubles(i + 0.5)) for i, name in enumerate(NEIGHBOURS)}
    return out | {"LIE": FakeChannel(**lie)}


async def neighbours_stand(table, server, around):
    """New values of the neighbours on both sides arrive, and are theirs."""
    for i, name in enumerate(NEIGHBOURS):
        server.channels[name].value = doubles(i + 1000.25)
    server.post("LIE", *NEIGHBOURS[:10], "LIE", *NEIGHBOURS[10:], "LIE")
    slots = around.tolist()
    wanted = [i + 1000.25 for i in range(len(slots))]
    await drained_until(table, lambda seen: [seen.get(slot) for slot in slots] == wanted)
    got = await table.read_values(around, WAIT)
    assert [got.values.value(i) for i in range(len(slots))] == wanted


async def opened(table, server, liar):
    """The liar's slot among its neighbours', all subscribed with true values."""
    slots = await connected(table, *NEIGHBOURS[:10], "LIE", *NEIGHBOURS[10:])
    await table.subscribe_slots(slots)
    return slots[10:11], np.delete(slots, 10)


def more(count):
    """`count` elements, all of them there."""

    def lie(message):
        element = message.payload[-8:]
        return replace(message, count=count, payload=message.payload + element * (count - 1))

    return lie


def claim(count):
    """`count` elements, of which few are there."""
    return lambda message: replace(message, count=count)


def typed(kind, size):
    """Another type than asked for, with `size` bytes."""
    return lambda message: replace(message, type=kind, payload=b"\x01" * size)


LIES = {
    "more-elements-than-agreed": (more(5), ECA.BADCOUNT),
    "thousands-more": (more(1_500), ECA.BADCOUNT),
    "claims-a-few-more": (claim(100), ECA.BADCOUNT),
    "no-element": (claim(0), ECA.BADCOUNT),
    "another-type": (typed(wire.TIME + wire.LONG, 16), ECA.BADTYPE),
    "a-string": (typed(wire.TIME + wire.STRING, 56), ECA.BADTYPE),
    "no-time": (typed(wire.DOUBLE, 8), ECA.BADTYPE),
    "control": (typed(wire.CTRL + wire.DOUBLE, 96), ECA.BADTYPE),
    "alarm-acknowledge": (typed(37, 64), ECA.BADTYPE),
    "no-such-type": (typed(4_000, 64), ECA.BADTYPE),
}


@pytest.mark.parametrize("what", LIES)
async def test_a_scalar_that_is_none(table, what):
    lie, code = LIES[what]
    liar = Liar()
    async with FakeServer(channels(value=doubles(7.5)), liar) as server:
        slot, around = await opened(table, server, liar)
        await drained_until(table, seen_value(slot[0], 7.5))
        liar.lie = lie
        server.post("LIE")
        got = await table.read_values(slot, WAIT)
        assert (got.code.tolist(), got.values.kind.tolist()) == ([code], [Kind.NONE])
        await neighbours_stand(table, server, around)
        # What was known stays, and the lie is counted.
        async with asyncio.timeout(WAIT):
            while table.table_stats().bad_events < 1:
                await asyncio.sleep(0.02)
        liar.lie = None
        server.channels["LIE"].value = doubles(8.5)
        server.post("LIE")
        await drained_until(table, seen_value(slot[0], 8.5))
        assert (await table.read_values(slot, WAIT)).values.value(0) == 8.5


@pytest.mark.parametrize("native", [wire.CHAR, wire.STRING, wire.DOUBLE])
async def test_an_array_longer_than_agreed(table, native):
    element = b"\x41" * wire.SIZE[native]
    liar = Liar()
    lying = channels(native=native, value=element * 3, capacity=10)
    async with FakeServer(lying, liar) as server:
        slot, around = await opened(table, server, liar)
        await drained_until(table, lambda seen: seen.get(int(slot[0])) is not None)
        liar.lie = lambda m: replace(m, count=11, payload=m.payload + element * 8)
        assert (await table.read_values(slot, WAIT)).code.tolist() == [ECA.BADCOUNT]
        await neighbours_stand(table, server, around)
        assert table.table_stats().bad_events >= 1


@pytest.mark.parametrize("native", [wire.CHAR, wire.STRING])
@pytest.mark.parametrize("count", [0x10000, 0x7FFF_FFFF, 0xFFFF_FFFF])
async def test_a_count_that_no_memory_has(table, native, count):
    # libca converts numbers in place before anyone can look at the count (see the fuzzer);
    # these types it passes on as they are.
    liar = Liar(claim(count))
    lying = channels(native=native, value=b"\x41" * wire.SIZE[native] * 3, capacity=10)
    async with FakeServer(lying, liar) as server:
        slot, around = await opened(table, server, liar)
        assert (await table.read_values(slot, WAIT)).code.tolist() == [ECA.BADCOUNT]
        await neighbours_stand(table, server, around)


async def test_short_payload(table):
    # libca does not tell how long the payload was: what is missing is what its buffer had.
    liar = Liar(lambda m: replace(m, payload=m.payload[:16]))
    async with FakeServer(channels(value=doubles(*range(100)), capacity=100), liar) as server:
        slot, around = await opened(table, server, liar)
        got = await table.read_values(slot, WAIT)
        assert (got.code.tolist(), len(got.values.value(0))) == ([ECA.NORMAL], 100)
        await neighbours_stand(table, server, around)


async def test_string_without_an_end(table):
    liar = Liar()
    lying = channels(native=wire.STRING, value=b"x" * 40)
    async with FakeServer(lying, liar) as server:
        slot, around = await opened(table, server, liar)
        await drained_until(table, seen_value(slot[0], b"x" * 40))
        assert (await table.read_values(slot, WAIT)).values.value(0) == b"x" * 40
        await neighbours_stand(table, server, around)


async def test_texts_of_metadata_without_an_end(table):
    lying = {
        "UNITS": FakeChannel(units=b"12345678", precision=-5),
        "LABELS": FakeChannel(
            native=wire.ENUM, value=b"\0\1", labels=tuple([b"y" * 26] * 16), states=999
        ),
        "NEGATIVE": FakeChannel(native=wire.ENUM, value=b"\0\1", labels=(b"a",), states=-1),
        "BEYOND": FakeChannel(native=wire.ENUM, value=b"\xff\xff", labels=(b"a", b"b")),
    }
    async with FakeServer(lying):
        for subscribed in (False, True):
            slots = await connected(table, *lying)
            if subscribed:
                await table.subscribe_slots(slots)

            def as_it_lies(slots: Any = slots) -> bool:
                info = table.read_info(slots)
                labels = (info.labels[1], info.labels[3])
                return info.units[0] == b"12345678" and labels == ((b"y" * 26,) * 16, (b"a", b"b"))

            await info_until(table, as_it_lies)
            assert table.read_info(slots).labels[2] == ()
            assert (await table.read_values(slots[3:], WAIT)).values.value(0) == 0xFFFF


async def test_codes_that_servers_send(table):
    liar = Liar()
    async with FakeServer(channels(value=doubles(7.5)), liar) as server:
        slot, around = await opened(table, server, liar)
        await drained_until(table, seen_value(slot[0], 7.5))
        for code in (ECA.GETFAIL, ECA.NORDACCESS, ECA.TOLARGE, ECA.BADTYPE):
            liar.lie = lambda m, c=code: replace(m, first=int(c))
            server.post("LIE")
            assert (await table.read_values(slot, WAIT)).code.tolist() == [code]
        await neighbours_stand(table, server, around)


async def test_errors_about_a_request(table):
    liar = Liar()
    async with FakeServer(channels(value=doubles(7.5)), liar) as server:
        slot, around = await opened(table, server, liar)
        await drained_until(table, seen_value(slot[0], 7.5))
        liar.lie = lambda m: wire.Message(
            Command.ERROR,
            replace(m, payload=b"").encode() + b"x" * 40,
            first=m.first,
            second=int(ECA.GETFAIL),
        )
        server.post("LIE")
        assert (await table.read_values(slot, WAIT)).code.tolist() == [ECA.GETFAIL]
        await neighbours_stand(table, server, around)
        liar.lie = None
        server.channels["LIE"].value = doubles(8.5)
        server.post("LIE")
        await drained_until(table, seen_value(slot[0], 8.5))


async def test_channel_of_a_type_that_is_none(table):
    script = Liar()
    lying = channels(value=doubles(7.5))
    lying["LIE"].native = 60
    async with FakeServer(lying, script) as server:
        around = await connected(table, *NEIGHBOURS)
        slot = await table.add_channels(["LIE"])
        await table.subscribe_slots(np.concatenate([slot, around]))
        assert not (await table.wait_connected(slot, 1.0)).any()
        assert table.read_info(slot).kind.tolist() == [Kind.NONE]
        lying["LIE"].native = wire.DOUBLE
        server.cut()
        await drained_until(table, seen_value(slot[0], 7.5))
        await neighbours_stand(table, server, around)


async def test_connection_cut_within_a_message(table):
    liar = Liar()
    async with FakeServer(channels(value=doubles(*range(50)), capacity=50), liar) as server:
        slot, around = await opened(table, server, liar)
        await drained_until(table, seen_value(slot[0], np.arange(50.0)))
        liar.lie = lambda m: [m.encode()[:100], CUT]
        reading = asyncio.ensure_future(table.read_values(slot, 2 * WAIT))
        lost = set()
        async with asyncio.timeout(WAIT):
            while not lost:
                await table.wait_dirty()
                got = table.drain_updates()
                table.drain_info()
                lost |= set(got.key[got.state == State.DISCONNECTED].tolist())
        liar.lie = None
        # The read is asked again on the new connection.
        assert (await reading).code.tolist() == [ECA.NORMAL]
        await neighbours_stand(table, server, around)


async def test_answers_to_nobody(table):
    liar = Liar()
    async with FakeServer(channels(value=doubles(7.5)), liar) as server:
        slot, around = await opened(table, server, liar)
        await drained_until(table, seen_value(slot[0], 7.5))
        for command in (Command.EVENT_ADD, Command.READ_NOTIFY, Command.WRITE_NOTIFY):
            payload = struct.pack(">hhIIxxxxd", 0, 0, 1, 1, -1.0)
            kind = wire.TIME + wire.DOUBLE
            for number in (0xFFFF_FFFF, 0x7FFF_0000):
                server.say(wire.Message(command, payload, kind, 1, 1, number))
        for command in (Command.CREATE_CHAN, Command.ACCESS_RIGHTS, Command.SERVER_DISCONN):
            server.say(wire.Message(command, b"", 6, 1, 0xFFFF_FFFF, 999))
        await neighbours_stand(table, server, around)
        assert table.table_stats().late_completions == 0


async def test_writes_refused_by_code(table):
    async with FakeServer(channels(value=doubles(7.5))) as server:
        slot, around = await opened(table, server, None)
        server.script = lambda m, name: (
            [replace(m, first=int(ECA.PUTFAIL))]
            if m.command == Command.WRITE_NOTIFY and name == "LIE"
            else [m]
        )
        both = np.concatenate([slot, around[:1]])
        code = await table.write_values(both, columns([1.0, 1.0]), WAIT)
        assert code.tolist() == [ECA.PUTFAIL, ECA.NORMAL]


@pytest.fixture
async def server():
    served = {
        name: FakeChannel(seconds=seconds, nanoseconds=nanoseconds)
        for name, (seconds, nanoseconds) in LATE.items()
    }
    async with FakeServer(served):
        yield conformance_values.Server()


class TestTimes(conformance_values.TimeConformance):
    pass
