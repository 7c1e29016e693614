"""Both tables against a real soft IOC."""

from __future__ import annotations

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
