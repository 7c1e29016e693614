"""Each implementation of the channel table, on loopback."""

from __future__ import annotations

import pytest

from drey_testing.ca.ioc import use_loopback

use_loopback()

from drey_ca import open_table  # noqa: E402  libca must find the loopback environment
from drey_core.errors import Unimplemented  # noqa: E402
from drey_testing.ca.known import CRASHES, FAILS  # noqa: E402

IMPLEMENTATIONS = ("aioca", "native")


@pytest.fixture(params=IMPLEMENTATIONS)
async def table(request):
    try:
        opening = open_table(request.param)
        opened = await opening.__aenter__()
    except Unimplemented as error:
        if request.param != "native":
            raise
        pytest.skip(f"NOT TESTED: the native table is not built here ({error})")
    try:
        assert opened.implementation_name == request.param
        yield opened
    finally:
        await opening.__aexit__(None, None, None)


def pytest_collection_modifyitems(items):
    """What a table is known not to do is expected, by the test's name and with the reason."""
    for item in items:
        if item.name in FAILS:
            item.add_marker(pytest.mark.xfail(reason=FAILS[item.name], strict=True))
        for start, reason in CRASHES.items():
            if item.name.startswith(start):
                item.add_marker(pytest.mark.xfail(reason=reason, run=False))
