"""A server that stops reading, and reads again later: what it is sent, and who waits for it."""

from __future__ import annotations

import asyncio
import struct

import numpy as np
import pytest

from drey_ca.eca import ECA
from drey_testing.ca import wire
from drey_testing.ca.fake_server import FakeServer
from drey_testing.ca.suite import WAIT, columns, connected
from drey_testing.ca.wire import Command, FakeChannel, doubles

pytest.importorskip("drey_ca._native", reason="NOT TESTED: the native table is not built here")

LARGE = 5_000_000  # doubles: 40 MB, more than any socket takes
SMALL = 1_000


@pytest.fixture(params=["native"])
def table(table):
    """aioca's send calls wait in the event loop, so its table does not promise any of this."""
    return table


def channels():
    labels = (b"off", b"on")
    return {
        "LARGE": FakeChannel(capacity=LARGE),
        "ARRAY": FakeChannel(capacity=SMALL),
        "TEXT$": FakeChannel(native=wire.CHAR, value=b"old\0", capacity=1000),
        "STRING": FakeChannel(native=wire.STRING, value=bytes(40)),
        "LABEL": FakeChannel(native=wire.ENUM, value=b"\0\0", labels=labels),
        "STRINGS": FakeChannel(native=wire.STRING, value=bytes(40), capacity=10),
        "SCALAR": FakeChannel(),
    }


ONES = {
    "ARRAY": (np.ones(SMALL), doubles(*[1.0] * SMALL)),
    "TEXT$": (b"1" * 900, b"1" * 900 + b"\0"),
    "STRING": (b"1" * 39, b"1" * 39 + b"\0"),
    "LABEL": (b"on", b"on".ljust(40, b"\0")),
    "STRINGS": ([b"1" * 39] * 10, (b"1" * 39 + b"\0") * 10),
    "SCALAR": (1.0, doubles(1.0)),
}
"""What is written to each channel, and what of it may arrive."""


def of_payload(message):
    """The payload without its padding, of which libca sends less for one string."""
    if (message.type, message.count) == (wire.STRING, 1):
        return message.payload.split(b"\0", 1)[0].ljust(40, b"\0")
    return message.payload[: message.count * wire.SIZE[message.type]]


def check_arrived(server, large):
    """Everything that arrived is what was written, whole. Names of it."""
    for name, message in server.writes:
        wanted = large.astype(">f8").tobytes() if name == "LARGE" else ONES[name][1]
        assert of_payload(message) == wanted, name
    return [name for name, _ in server.writes]


async def reads_all(table, server, slots):
    """Read again, until the server has taken what libca held."""
    server.read_again()
    async with asyncio.timeout(2 * WAIT):
        while table.unanswered_slots(slots).any():
            await asyncio.sleep(0.02)
    assert (await table.read_values(slots[-1:], WAIT)).code.tolist() == [ECA.NORMAL]


async def hand_over(table, slot, large, completion):
    """Write to a server that takes nothing, with a deadline that is long enough to get there."""
    wait = 0.3 if completion else WAIT
    while (
        code := await table.write_values(slot, columns([large]), wait, completion=completion)
    ) == (ECA.UNRESPTMO):
        wait *= 2
    assert code.tolist() == [ECA.TIMEOUT if completion else ECA.NORMAL]


def trample():
    """Use memory again that was given back."""
    return [bytes([7]) * size for size in (40, 1_000, 8_000, 100_000) for _ in range(200)]


@pytest.mark.parametrize("completion", [True, False])
@pytest.mark.parametrize("ending", ["deadline", "cancel", "removal"])
async def test_nothing_leaves_after_the_end(table, ending, completion):
    async with FakeServer(channels()) as server:
        slots = await connected(table, *channels())
        large = np.arange(float(LARGE))
        server.stop_reading()
        await hand_over(table, slots[:1], large, completion)
        assert table.unanswered_slots(slots).tolist() == [True] + [False] * 6
        values = columns([ONES[name][0] for name in list(channels())[1:]])
        second = asyncio.ensure_future(
            table.write_values(
                slots[1:],
                values,
                0.3 if ending == "deadline" else WAIT,
                completion=completion,
            )
        )
        del values
        if ending == "deadline":
            assert (await second).tolist() == [ECA.UNRESPTMO] * 6
        elif ending == "cancel":
            await asyncio.sleep(0.2)
            second.cancel()
            await asyncio.wait([second])
        else:
            await asyncio.sleep(0.2)
            await table.remove_slots(slots[1:6])
            server.channels["SCALAR"].value = doubles(1.0)
            assert not second.done()
            second.cancel()
            await asyncio.wait([second])
            slots = slots[[0, 6]]
        kept = trample()
        assert table.unanswered_slots(slots).tolist() == [True] + [False] * (len(slots) - 1)
        await reads_all(table, server, slots)
        assert check_arrived(server, large) == ["LARGE"]
        # And it goes on: nothing of the past stands in the way.
        rest = list(channels())[1:] if len(slots) == 7 else ["SCALAR"]
        code = await table.write_values(
            slots[1:], columns([ONES[name][0] for name in rest]), WAIT, completion=completion
        )
        assert code.tolist() == [ECA.NORMAL] * len(rest)
        await reads_all(table, server, slots)
        assert check_arrived(server, large) == ["LARGE", *rest]
        del kept


@pytest.mark.parametrize("completion", [True, False])
async def test_closed_while_it_waits(table, completion):
    async with FakeServer(channels()) as server:
        slots = await connected(table, *channels())
        large = np.arange(float(LARGE))
        server.stop_reading()
        await hand_over(table, slots[:1], large, completion)
        values = columns([ONES[name][0] for name in list(channels())[1:]])
        work = asyncio.ensure_future(
            table.write_values(slots[1:], values, WAIT, completion=completion)
        )
        await asyncio.sleep(0.1)
        del values
        await table.close_table()
        assert (await work).tolist() == [ECA.CHANDESTROY] * 6
        kept = trample()
        server.read_again()
        async with asyncio.timeout(2 * WAIT):
            while server.circuits:  # until libca has let go of it
                await asyncio.sleep(0.02)
        # Of the large one libca sends what it likes; nothing stands behind it.
        assert set(check_arrived(server, large)) <= {"LARGE"}
        del kept


@pytest.mark.parametrize("completion", [True, False])
async def test_codes_tell_what_arrives(table, completion):
    rows = 20_000
    async with FakeServer({"SCALAR": FakeChannel(), "LARGE": channels()["LARGE"]}) as server:
        large, slot = np.split(await connected(table, "LARGE", "SCALAR"), 2)
        server.stop_reading()
        every = np.repeat(slot, rows)
        sent = np.arange(float(rows))
        values, wait = columns(sent.tolist()), 0.5
        while True:
            code = await table.write_values(every, values, wait, completion=completion)
            handed = code != ECA.UNRESPTMO
            if handed.any():
                break
            wait *= 2
        assert set(code[handed].tolist()) == {ECA.TIMEOUT if completion else ECA.NORMAL}
        assert handed.sum() < 5_000
        assert table.unanswered_slots(slot).all()
        await reads_all(table, server, np.concatenate([large, slot]))
        arrived = [struct.unpack(">d", of_payload(message))[0] for _, message in server.writes]
        assert arrived == sent[handed].tolist()


@pytest.mark.parametrize("rights", [3, 2])
async def test_many_without_completion(table, rights):
    rows = 20_000
    async with FakeServer({"SCALAR": FakeChannel(rights=rights)}) as server:
        slot = await connected(table, "SCALAR")
        sent = np.arange(float(rows))
        code = await table.write_values(
            np.repeat(slot, rows), columns(sent.tolist()), WAIT, completion=False
        )
        assert (code == ECA.NORMAL).all()
        async with asyncio.timeout(WAIT):
            while table.unanswered_slots(slot).any() or len(server.writes) < rows:
                await asyncio.sleep(0.02)
        arrived = [struct.unpack(">d", of_payload(message))[0] for _, message in server.writes]
        assert arrived == sent.tolist()


async def test_others_do_not_wait_for_it(table):
    near = {f"NEAR:{i}": FakeChannel() for i in range(20)}
    async with FakeServer(channels()) as far, FakeServer(near):
        slots = await connected(table, *channels())
        good = await connected(table, *near)
        await table.subscribe_slots(slots)
        far.stop_reading()
        large = np.arange(float(LARGE))
        work = [
            asyncio.ensure_future(table.write_values(slots[:1], columns([large]), WAIT)),
            asyncio.ensure_future(table.write_values(slots[:1], columns([large]), WAIT)),
            asyncio.ensure_future(table.read_values(np.repeat(slots, 5_000), WAIT)),
        ]
        await asyncio.sleep(0.2)
        for number in range(20):
            code = await table.write_values(good, columns([number / 4] * 20), WAIT)
            assert code.tolist() == [ECA.NORMAL] * 20
            assert (await table.read_values(good, WAIT)).code.tolist() == [ECA.NORMAL] * 20
            fresh = await table.add_channels(["SCALAR", "NEAR:1"])
            assert (await table.wait_connected(fresh[1:], WAIT)).all()
            await table.subscribe_slots(fresh)
            await table.remove_slots(fresh)
        await table.remove_slots(slots[1:4])
        assert not any(task.done() for task in work)
        far.read_again()
        assert (await work[0]).tolist() == (await work[1]).tolist() == [ECA.NORMAL]
        await work[2]
        assert [name for name, _ in far.writes] == ["LARGE", "LARGE"]


async def test_small_rows_do_not_pass_a_large_one_for_ever(table):
    async with FakeServer(channels()) as server:
        slots = await connected(table, *channels())
        stop = asyncio.Event()

        async def small():
            while not stop.is_set():
                await table.write_values(np.repeat(slots[6:], 3_000), columns([1.0] * 3_000), WAIT)

        crowd = [asyncio.ensure_future(small()) for _ in range(3)]
        try:
            for _ in range(3):
                code = await table.write_values(slots[:1], columns([np.ones(LARGE // 10)]), WAIT)
                assert code.tolist() == [ECA.NORMAL]
        finally:
            stop.set()
            await asyncio.gather(*crowd)
        assert [name for name, _ in server.writes].count("LARGE") == 3


async def test_a_lost_server_may_still_have_what_it_did_not_answer(table):
    silent = True

    def script(message, name):
        quiet = silent and message.command == Command.WRITE_NOTIFY
        return [] if quiet else [message]

    async with FakeServer(channels(), script) as server:
        slots = await connected(table, *channels())
        wait = 0.2
        while (await table.write_values(slots[-1:], columns([1.0]), wait)) == ECA.UNRESPTMO:
            wait *= 2
        assert table.unanswered_slots(slots[-1:]).all()
        await asyncio.sleep(0.2)
        assert table.unanswered_slots(slots[-1:]).all()
        silent = False
        server.cut()
        async with asyncio.timeout(WAIT):
            while table.unanswered_slots(slots[-1:]).any():
                await asyncio.sleep(0.02)
        assert (await table.wait_connected(slots, WAIT)).all()
