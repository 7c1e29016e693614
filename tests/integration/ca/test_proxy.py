"""A line between table and IOC that stalls, cuts, delays and half-closes."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from drey_ca.eca import ECA
from drey_core.values import State
from drey_testing.ca.ioc import Ioc
from drey_testing.ca.proxy import Proxy
from drey_testing.ca.suite import (
    LONG,
    WAIT,
    columns,
    connected,
    drained_until,
    drained_until_state,
    seen_value,
    within,
)

FAR = """
record(waveform,"FAR:ARRAY"){field(FTVL,"DOUBLE") field(NELM,"1000")}
record(ao,"FAR:VALUE"){field(VAL,"1.5") field(PINI,"YES")}
record(ao,"FAR:SLOW"){field(FLNK,"FAR:SEQ")}
record(seq,"FAR:SEQ"){field(DLY1,"1") field(LNK1,"FAR:SINK") field(DO1,"1")}
record(ao,"FAR:SINK"){}
record(calc,"FAR:FAST"){field(CALC,"VAL+1") field(SCAN,".1 second")}
"""
NAMES = ["FAR:ARRAY", "FAR:VALUE", "FAR:SLOW", "FAR:FAST"]
NEAR = 'record(ao,"NEAR"){field(VAL,"2.5") field(PINI,"YES")}'


@pytest.fixture(scope="module")
def iocs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ioc")
    with Ioc(folder, FAR, hidden=True) as far, Ioc(folder, NEAR):
        yield far


@pytest.fixture
def proxy(iocs):
    with Proxy(iocs.port, NAMES) as standing:
        yield standing


async def near_answers(table, near):
    """The other server answers while the far one is silent, and before that one counts as lost."""
    for number in range(10):
        assert (await table.write_values(near, columns([number / 4]), 5.0)).tolist() == [ECA.NORMAL]
        assert (await table.read_values(near, 5.0)).values.value(0) == number / 4


async def test_stall_within_a_message(table, proxy):
    far = await connected(table, *NAMES)
    near = await connected(table, "NEAR")
    array = np.arange(1000.0)
    await table.write_values(far[:1], columns([array]), WAIT)
    proxy.tell(lambda: proxy.down.stall(after=3_000))
    reading = asyncio.ensure_future(table.read_values(far[:1], 0.6))
    await near_answers(table, near)
    for deadline in (0.3, 3.0):  # the second for a machine that has much else to do
        both = await table.read_values(np.concatenate([far[1:2], near]), deadline)
        if both.code[1] == ECA.NORMAL:
            break
    assert both.code.tolist() == [ECA.TIMEOUT, ECA.NORMAL]
    assert (await reading).code.tolist() == [ECA.TIMEOUT]
    proxy.tell(proxy.down.flow)
    # The answers that come now are nobody's; new requests get theirs.
    await table.write_values(far[1:2], columns([3.75]), WAIT)
    got = await table.read_values(far[:2], WAIT)
    assert got.values.value(0).tobytes() == array.tobytes()
    assert got.values.value(1) == 3.75
    assert table.table_stats().connected == 5


async def test_a_long_stall_is_a_loss(table, proxy):
    far = await connected(table, "FAR:FAST")
    near = await connected(table, "NEAR")
    await table.subscribe_slots(far)
    await drained_until(table, lambda seen: seen.get(int(far[0])) is not None)
    proxy.tell(proxy.down.stall)
    # EPICS_CA_CONN_TMO, and as long again for the echo.
    await drained_until_state(table, far, State.DISCONNECTED)
    await near_answers(table, near)
    assert (await table.read_values(far, 0.2)).code.tolist() == [ECA.DISCONN]
    proxy.tell(proxy.down.flow)
    await drained_until_state(table, far, State.CONNECTED)
    await drained_until(table, lambda seen: seen.get(int(far[0])) is not None)


async def test_cut_within_a_write(table, proxy):
    far = await connected(table, *NAMES)
    await table.write_values(far[:2], columns([np.zeros(1000), 1.0]), WAIT)
    proxy.tell(lambda: proxy.up.cut(after=4_000))
    before = time.monotonic()
    code = await table.write_values(far[:1], columns([np.arange(1000.0)]), LONG)
    # It was sent, as far as anybody here can know: never "not connected".
    assert code.tolist() == [ECA.TIMEOUT]
    assert time.monotonic() - before < WAIT
    assert (await table.wait_connected(far, WAIT)).all()
    # The half that arrived was never written.
    assert not (await table.read_values(far[:1], WAIT)).values.value(0).any()


async def test_cut_while_a_record_processes(table, proxy, iocs):
    far = await connected(table, *NAMES)
    for delay in (0.3, 3.0, 30.0):  # until the first row is answered in time, whatever the load
        iocs.shell(f'dbpf "FAR:SEQ.DLY1" {3 * delay}')
        writing = asyncio.ensure_future(table.write_values(far[1:3], columns([7.5, 1.0]), LONG))
        await asyncio.sleep(delay)
        proxy.cut()
        code = (await writing).tolist()
        assert (await table.wait_connected(far, WAIT)).all()
        if code[0] == ECA.NORMAL:
            break
        await asyncio.sleep(3 * delay)  # the record is idle again
    assert code == [ECA.NORMAL, ECA.TIMEOUT]
    assert (await table.read_values(far[1:2], WAIT)).values.value(0) == 7.5


async def test_cut_within_an_answer(table, proxy):
    far = await connected(table, *NAMES)
    array = np.arange(1000.0) * 3
    await table.write_values(far[:1], columns([array]), WAIT)
    proxy.tell(lambda: proxy.down.cut(after=5_000))
    # A read may be asked again, and is.
    got = await table.read_values(far[:1], 2 * WAIT)
    assert got.code.tolist() == [ECA.NORMAL]
    assert got.values.value(0).tobytes() == array.tobytes()
    assert proxy.accepted >= 2


async def test_half_closed(table, proxy):
    far = await connected(table, *NAMES)
    await table.subscribe_slots(far[3:])
    await drained_until(table, lambda seen: seen.get(int(far[3])) is not None)
    proxy.half_close()
    await drained_until_state(table, far, State.DISCONNECTED)
    assert (await table.wait_connected(far, WAIT)).all()
    await table.write_values(far[1:2], columns([-1.25]), WAIT)
    assert (await table.read_values(far[1:2], WAIT)).values.value(0) == -1.25
    await drained_until(table, lambda seen: seen.get(int(far[3])) is not None)


async def test_delayed_and_chopped(table, proxy):
    proxy.tell(lambda: setattr(proxy.down, "chunk", 7))
    proxy.tell(lambda: setattr(proxy.up, "chunk", 13))
    proxy.tell(lambda: setattr(proxy.up, "delay", 0.002))
    far = await connected(table, *NAMES)
    await table.subscribe_slots(far[:2])
    for length in (1, 5, 40):
        array = np.linspace(-1, 1, length)
        code = await table.write_values(far[:2], columns([array, float(length)]), WAIT)
        assert code.tolist() == [ECA.NORMAL] * 2
        got = await table.read_values(far[:2], WAIT)
        assert got.values.value(0).tobytes() == array.tobytes()
        assert got.values.value(1) == length
        await drained_until(table, seen_value(far[0], array))


async def test_close_with_a_server_that_hears_nothing(table, proxy):
    far = await connected(table, *NAMES)
    near = await connected(table, "NEAR")
    await table.subscribe_slots(far)
    proxy.tell(proxy.up.stall)
    proxy.tell(proxy.down.stall)
    work = [
        asyncio.ensure_future(table.write_values(far[2:3], columns([1.0]), LONG)),
        asyncio.ensure_future(table.read_values(far, LONG)),
    ]
    await near_answers(table, near)
    await within(WAIT, table.close_table())
    await within(WAIT, asyncio.wait(work))
    assert [task.done() for task in work] == [True, True]
