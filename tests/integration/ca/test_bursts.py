"""Many puts at once: none is lost in the IOC, and slow devices do not wait for each other."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from drey_ca.eca import ECA
from drey_core.values import KIND_NONE, Columns
from drey_testing.ca.ioc import Ioc

QUICK, SLOW = 5_000, 1_000
DATABASE = "".join(f'record(ao,"Q{i}"){{}}\n' for i in range(QUICK)) + "".join(
    f'record(ao,"S{i}"){{field(FLNK,"S{i}:SEQ")}}\n'
    f'record(seq,"S{i}:SEQ"){{field(DLY1,"3") field(LNK1,"S{i}:SINK PP") field(DO1,"1")}}\n'
    f'record(ao,"S{i}:SINK"){{}}\n'
    for i in range(SLOW)
)


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    with Ioc(tmp_path_factory.mktemp("bursts"), DATABASE) as running:
        yield running


def numbers(count):
    return Columns.from_values(np.zeros(count, np.int64), [1.0] * count, [None] * count)


async def added(table, names):
    slots = await table.add_channels(names)
    assert (await table.wait_connected(slots, 60)).all()
    return slots


async def test_every_put_of_many_completes(table, ioc):
    slots = await added(table, [f"Q{i}" for i in range(QUICK)])
    for _ in range(4):
        code = await table.write_values(slots, numbers(QUICK), 60)
        assert (code == ECA.NORMAL).all()
    assert "ring buffer full" not in ioc.log()


async def test_slow_devices_move_at_the_same_time(table, ioc):
    slots = await added(table, [f"S{i}" for i in range(SLOW)])
    ends = await added(table, [f"S{i}:SINK" for i in range(SLOW)])
    code = await table.write_values(slots, numbers(SLOW), 60)
    assert (code == ECA.NORMAL).all()
    # By the IOC's own times. Burst after burst a quarter had begun when the first was done.
    begun = (await table.read_values(slots, 60)).values.source_time
    first_end = (await table.read_values(ends, 60)).values.source_time.min()
    assert (begun < first_end).sum() > SLOW // 2


async def test_first_events_that_repeat_what_was_read_are_not_given_again(table, ioc):
    if table.implementation_name != "native":
        pytest.skip("aioca's table asks for subscriptions at once, and reads nothing before")
    slots = await table.add_channels([f"Q{i}" for i in range(QUICK)])
    await table.subscribe_slots(slots)
    valued = 0
    async with asyncio.timeout(60):
        while table.table_stats().updates < QUICK or valued < QUICK:
            await asyncio.sleep(0.02)
            table.drain_info()
            valued += int((table.drain_updates().kind != KIND_NONE).sum())
    assert valued == QUICK
    assert table.table_stats().merged == 0
