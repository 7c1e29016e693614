"""Tables and processes: many one after another, `fork`, and an end without a close."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import psutil
import pytest

from drey_ca import open_table
from drey_testing.ca import records
from drey_testing.ca.ioc import Ioc

pytest.importorskip("drey_ca._native", reason="NOT TESTED: the native table is not built here")

FORK = """
import asyncio, os, sys
from drey_ca import open_table
async def refused(work):
    try:
        await work
    except RuntimeError as error:
        return "fork" in str(error)
    return False
async def again(implementation):
    async with open_table(implementation):
        pass
async def main(implementation):
    async with open_table(implementation) as table:
        slots = await table.add_channels(["DOUBLE"])
        assert (await table.wait_connected(slots, 60)).all()
        child = os.fork()
        if child == 0:
            ok = await refused(table.read_values(slots, 1)) and await refused(again(implementation))
            os._exit(0 if ok else 3)
        assert os.waitpid(child, 0)[1] == 0
        assert (await table.read_values(slots, 60)).values.value(0) == 1.5
asyncio.run(main(sys.argv[1]))
"""

UNCLOSED = """
import asyncio, sys
from drey_ca import open_table
async def main(implementation):
    scope = open_table(implementation)
    table = await scope.__aenter__()
    slots = await table.add_channels(["FAST"] * 100)
    await table.subscribe_slots(slots)
    assert (await table.wait_connected(slots, 60)).all()
    raise SystemExit(7)
asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    with Ioc(tmp_path_factory.mktemp("ioc"), records.DATABASE, access=records.ACCESS) as running:
        yield running


def run(program, implementation):
    return subprocess.run([sys.executable, "-c", program, implementation], timeout=60, check=False)


@pytest.mark.parametrize("implementation", ["aioca", "native"])
def test_fork_is_refused_and_harms_nobody(ioc, implementation):
    assert run(FORK, implementation).returncode == 0


@pytest.mark.parametrize("implementation", ["aioca", "native"])
def test_a_process_ends_without_closing(ioc, implementation):
    assert run(UNCLOSED, implementation).returncode == 7


async def test_many_contexts_one_after_another(ioc):
    process = psutil.Process()
    used, files = 0, 0
    for turn in range(150):
        async with open_table("native") as table:
            slots = await table.add_channels(["DOUBLE", "NOT:THERE"])
            await table.subscribe_slots(slots)
            if turn % 10 == 0:
                assert (await table.wait_connected(slots[:1], 60)).all()
        if turn == 50:
            used, files = process.memory_info().rss, process.num_fds()
    assert process.num_fds() <= files + 2
    assert process.memory_info().rss - used < 8 << 20


async def test_several_tables_at_once(ioc):
    async def one(number):
        async with open_table("native") as table:
            slots = await table.add_channels(["FAST", "DOUBLE", f"NOT:THERE:{number}"])
            await table.subscribe_slots(slots)
            assert (await table.wait_connected(slots[:2], 60)).all()
            assert (await table.read_values(slots[1:2], 60)).code.tolist() == [1]
            return os.getpid()

    assert len(await asyncio.gather(*map(one, range(6)))) == 6
