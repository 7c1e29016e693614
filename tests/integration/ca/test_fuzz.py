"""A bounded run of the fuzzer. Longer ones: `python -m drey_testing.ca.fuzz --help`."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from drey_ca import open_table
from drey_core.errors import Unimplemented

SECONDS = 20


async def opened(implementation):
    async with open_table(implementation):
        pass


@pytest.mark.parametrize("implementation", ["aioca", "native"])
def test_a_table_outlives_lies(implementation):
    try:
        asyncio.run(opened(implementation))
    except Unimplemented as error:
        pytest.skip(f"NOT TESTED: the native table is not built here ({error})")
    command = [sys.executable, "-m", "drey_testing.ca.fuzz", "--seconds", str(SECONDS)]
    ran = subprocess.run(
        [*command, "--implementation", implementation],
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4_000:] + ran.stdout[-1_000:]
