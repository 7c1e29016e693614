"""The aioca table against a real soft IOC."""

from __future__ import annotations

import pytest

from drey_testing.ca.ioc import Ioc, use_loopback

use_loopback()

from drey_ca import open_table  # noqa: E402  libca must find the loopback environment
from drey_core.errors import Unimplemented  # noqa: E402
from drey_testing.ca import conformance  # noqa: E402


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ioc")
    with Ioc(folder, conformance.DATABASE, access=conformance.ACCESS) as running:
        yield running


@pytest.fixture(params=["aioca"])
async def table(request):
    async with open_table(request.param) as opened:
        assert opened.implementation == request.param
        yield opened


class TestTable(conformance.TableConformance):
    pass


async def test_native_is_refused_in_words():
    with pytest.raises(Unimplemented, match="not built"):
        async with open_table("native"):
            pass


async def test_auto_says_what_it_took(caplog):
    async with open_table() as table:
        assert table.implementation == "aioca"
