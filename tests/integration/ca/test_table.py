"""Both tables against a real soft IOC."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from drey_ca import open_table
from drey_core.errors import Unimplemented
from drey_testing.ca import conformance, conformance_life, conformance_values, records
from drey_testing.ca.ioc import Ioc


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    with Ioc(tmp_path_factory.mktemp("ioc"), records.DATABASE, access=records.ACCESS) as running:
        yield running


@pytest.fixture
def server(ioc):
    return conformance_values.Server()


class TestTable(conformance.TableConformance):
    pass


class TestValues(conformance_values.ValueConformance):
    pass


class TestLife(conformance_life.LifeConformance):
    pass


class TestRounds(conformance_values.RoundConformance):
    pass


async def test_auto_takes_the_best_and_says_when_it_is_the_fallback(caplog):
    try:
        async with open_table("native"):
            native = True
    except Unimplemented:
        native = False
    async with open_table() as table:
        assert table.implementation == ("native" if native else "aioca")


async def test_unknown_implementations_are_refused():
    with pytest.raises(ValueError, match="not one of"):
        async with open_table("other"):
            pass


async def test_addresses_by_settings(ioc, tmp_path):
    """In a process of its own: the variables stay in the environment."""
    program = tmp_path / "settings.py"
    program.write_text(
        "import asyncio, sys\n"
        "from drey_ca import open_table\n"
        "async def main(implementation, port):\n"
        "    given = {'EPICS_CA_ADDR_LIST': f'127.0.0.1:{port}', 'EPICS_CA_AUTO_ADDR_LIST': 'NO'}\n"
        "    async with open_table(implementation, given) as table:\n"
        "        slots = await table.add(['DOUBLE'])\n"
        "        assert (await table.wait_connected(slots, 10)).all()\n"
        "asyncio.run(main(sys.argv[1], sys.argv[2]))\n"
    )
    environment = os.environ | {"EPICS_CA_ADDR_LIST": "127.0.0.1:1", "EPICS_CA_SERVER_PORT": "1"}
    for implementation in ("auto", "aioca"):
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, str(program), implementation, str(ioc.port)), env=environment
        )
        assert await done.wait() == 0


async def test_only_variables_of_channel_access_are_settings():
    with pytest.raises(ValueError, match="PATH is no variable"):
        async with open_table("auto", {"PATH": "/"}):
            pass
