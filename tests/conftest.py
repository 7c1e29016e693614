"""What holds for all tests."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from drey_stack.ports import take_share

pytest_plugins = ["drey_testing.leaks"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts a run in the background so, and what tests start would
    # inherit it: no Ctrl-C would reach a program under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)

take_share(
    int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
)

# A property test draws the same examples in every run, so that a suite that passes on one clone
# passes on every one, and a failure tells of the code. `DREY_TEST_EXPLORE=20` draws others, and
# twenty times as many where a test says no number of its own; what fails is kept as an `@example`.
_TIMES = int(os.environ.get("DREY_TEST_EXPLORE", "1"))
settings.register_profile(
    "drey",
    derandomize=_TIMES == 1,
    max_examples=200 * _TIMES,
    deadline=None,
    database=None,
    print_blob=True,
)
settings.load_profile("drey")

DEBUGGED = (
    "tests/unit/",
    "tests/contract/",
    "tests/integration/catalog/",
    "tests/integration/cli/",
    "tests/integration/runtime/",
    # debug mode costs up to half as much again where the service runs in a test's own loop: of the
    # restore service and of the gateway the files that do most in least time
    "tests/integration/restore/test_records.py",
    "tests/integration/restore/test_rollback.py",
    "tests/integration/gateway/test_sessions.py",
)
"""Where event loops are in debug mode, and what they complain of fails the test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("error"))
        if item.nodeid.startswith(DEBUGGED):
            item.add_marker(pytest.mark.asyncio_debug)
