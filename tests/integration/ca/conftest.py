"""Each implementation of the channel table, on loopback."""

from __future__ import annotations

import pytest

from drey_testing.ca.ioc import use_loopback

use_loopback()

from drey_ca import open_table  # noqa: E402  libca must find the loopback environment
from drey_core.errors import Unimplemented  # noqa: E402

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
        assert opened.implementation == request.param
        yield opened
    finally:
        await opening.__aexit__(None, None, None)
