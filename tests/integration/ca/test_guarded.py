"""The circuit breaker around a table, on IOCs that stand still, are gone, and are only slow."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import numpy as np

from drey_ca.eca import ECA
from drey_ca.guarded import GuardedTable
from drey_core.breaker import FAILURES, HELD_OPEN
from drey_core.values import State
from drey_testing.ca.ioc import Ioc
from drey_testing.ca.suite import LONG, WAIT, columns, connected

WELL = 'record(ao,"WELL:A"){field(VAL,"1") field(PINI,"YES")}\n'
ILL = """
record(ao,"ILL:A"){field(VAL,"2") field(PINI,"YES")}
record(ao,"ILL:B"){field(VAL,"3") field(PINI,"YES")}
"""


@asynccontextmanager
async def guarding(table) -> AsyncIterator[GuardedTable]:
    guarded = GuardedTable(table, probe_s=1.0)
    loop = asyncio.create_task(guarded.run())
    try:
        yield guarded
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop


async def until(condition) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.05)


async def fail_until_open(guarded: GuardedTable, slots) -> None:
    """Read until the breaker is open: a few time-outs, and no more."""
    reads = 0
    async with asyncio.timeout(WAIT):
        while not guarded.book.refused_addresses:
            await guarded.read_values(slots, 0.2)
            reads += 1
            await asyncio.sleep(0.1)
    assert reads >= FAILURES


async def test_an_ioc_that_stands_still_fails_at_once_and_is_asked_again(table, tmp_path):
    with Ioc(tmp_path, WELL) as well, Ioc(tmp_path, ILL) as ill:
        async with guarding(table) as guarded:
            slots = await connected(table, "WELL:A", "ILL:A", "ILL:B")
            assert (await guarded.read_values(slots, WAIT)).code.tolist() == [ECA.NORMAL] * 3
            assert guarded.why_refused(slots) == ""
            os.kill(ill.pid, signal.SIGSTOP)
            try:
                await fail_until_open(guarded, slots)
                began = time.monotonic()
                found = await guarded.read_values(slots, LONG)
                codes = await guarded.write_values(slots, columns([5.0, 6.0, 7.0]), LONG)
                up = await guarded.wait_connected(slots, LONG)
                # at once: none of the three deadlines was waited for
                assert time.monotonic() - began < LONG / 10
                assert found.code.tolist() == [ECA.NORMAL, ECA.DISCONN, ECA.DISCONN]
                assert found.values.state.tolist()[1:] == [State.DISCONNECTED] * 2
                assert found.values.key.tolist() == slots.tolist()
                assert found.values.value(0) == 1.0
                assert codes.tolist() == [ECA.NORMAL, ECA.DISCONN, ECA.DISCONN]
                assert up.tolist() == [True, False, False]
                why = guarded.why_refused(slots)
                assert f":{ill.port}" in why and "since" in why and "probed again" in why
                assert f":{well.port}" not in why
            finally:
                os.kill(ill.pid, signal.SIGCONT)
            await until(lambda: not guarded.book.refused_addresses)
            assert (await guarded.write_values(slots, columns([8.0, 9.0, 9.5]), WAIT)).tolist() == [
                ECA.NORMAL
            ] * 3
            assert (await guarded.read_values(slots, WAIT)).values.value(2) == 9.5


async def test_an_ioc_that_is_gone_is_asked_again_as_soon_as_it_is_back(table, tmp_path):
    with Ioc(tmp_path, ILL) as ill:
        async with guarding(table) as guarded:
            slots = await connected(table, "ILL:A")
            ill.kill()
            await until(lambda: not table.connection_columns().connected[slots[0]])
            await fail_until_open(guarded, slots)
            ill.start()
            await until(lambda: not guarded.book.refused_addresses)
            assert (await guarded.read_values(slots, WAIT)).code.tolist() == [ECA.NORMAL]


async def test_channels_that_are_gone_do_not_close_off_an_ioc_that_lives(table, tmp_path):
    """And neither do deadlines that are too short."""
    with Ioc(tmp_path, ILL) as ill:
        async with guarding(table) as guarded:
            slots = await connected(table, "ILL:A", "ILL:B")
            ill.kill()
            await until(lambda: not table.connection_columns().connected[slots].any())
            ill.start(ILL.replace("ILL:B", "ILL:C"))
            await until(lambda: table.connection_columns().connected[slots[0]])
            timeouts = 0
            for _ in range(3 * FAILURES):
                await guarded.read_values(slots[1:], 0.05)
                timeouts = max((s.timeouts for s in guarded.book.ioc_states), default=0)
                await asyncio.sleep(0.1)
            assert timeouts >= FAILURES
            assert not guarded.book.refused_addresses
            assert (await guarded.read_values(slots[:1], WAIT)).code.tolist() == [ECA.NORMAL]


async def test_one_that_is_held_open_is_let_alone(table, tmp_path):
    with Ioc(tmp_path, ILL):
        async with guarding(table) as guarded:
            slots = await connected(table, "ILL:A")
            (address,) = table.connection_columns().servers
            guarded.book.hold_modes({address: HELD_OPEN}, time.time_ns())
            assert (await guarded.read_values(slots, LONG)).code.tolist() == [ECA.DISCONN]
            assert "administrator" in guarded.why_refused(slots)
            guarded.book.hold_modes({}, time.time_ns())
            assert (await guarded.read_values(slots, WAIT)).code.tolist() == [ECA.NORMAL]
            empty = np.zeros(0, np.int64)
            assert len((await guarded.read_values(empty, WAIT)).code) == 0
