"""Both tables against a real soft IOC."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from drey_ca import open_table
from drey_core.errors import Unimplemented
from drey_testing import leaks
from drey_testing.ca import conformance, conformance_life, conformance_values, records
from drey_testing.ca.ioc import Ioc


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ioc")
    with (
        leaks.keep_iocs(folder),
        Ioc(folder, records.DATABASE, access=records.ACCESS) as running,
    ):
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
        assert table.implementation_name == ("native" if native else "aioca")


async def test_unknown_implementations_are_refused():
    with pytest.raises(ValueError, match="not one of"):
        async with open_table("other"):
            pass


PROGRAM = """
import asyncio, sys
from drey_ca import open_table
async def main(implementation, given):
    async with open_table(implementation, dict(pair.split("=") for pair in given)) as table:
        slots = await table.add_channels(["DOUBLE"])
        assert (await table.wait_connected(slots, 60)).all()
asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


@pytest.mark.parametrize("implementation", ["auto", "aioca"])
@pytest.mark.parametrize("variable", ["EPICS_CA_ADDR_LIST", "EPICS_CA_NAME_SERVERS"])
async def test_addresses_by_settings(ioc, implementation, variable):
    """In a process of its own: the variables stay in the environment."""
    nowhere = {"EPICS_CA_ADDR_LIST": "127.0.0.1:1", "EPICS_CA_SERVER_PORT": "1"}
    given = (f"{variable}=127.0.0.1:{ioc.port}", "EPICS_CA_AUTO_ADDR_LIST=NO")
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, implementation, *given), env=os.environ | nowhere
    )
    assert await done.wait() == 0


NAMED = """
import asyncio, os, sys
from drey_ca import open_table
async def main(implementation, port):
    given = {"EPICS_CA_ADDR_LIST": f"no-such-host.invalid localhost:{port}"}
    numbers = f"no-such-host.invalid 127.0.0.1:{port}"
    for _ in range(2):
        async with open_table(implementation, given) as table:
            assert os.environ["EPICS_CA_ADDR_LIST"] == numbers
            slots = await table.add_channels(["DOUBLE"])
            assert (await table.wait_connected(slots, 60)).all()
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("implementation", ["auto", "aioca"])
async def test_host_names_are_resolved_before_libca_sees_them(ioc, implementation):
    """It would look at the first channel, which waits for the resolver, and never again."""
    variables = {"EPICS_CA_AUTO_ADDR_LIST": "NO", "EPICS_CA_SERVER_PORT": "1"}
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", NAMED, implementation, str(ioc.port)), env=os.environ | variables
    )
    assert await done.wait() == 0


async def test_only_variables_of_channel_access_are_settings():
    with pytest.raises(ValueError, match="PATH is no variable"):
        async with open_table("auto", {"PATH": "/"}):
            pass
