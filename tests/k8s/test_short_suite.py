"""What `make ci` does of the node's tests: bounded, and a node that never stood is no failure."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from drey_testing.cluster import suite
from drey_testing.cluster.suite import SuiteOutcome, run_bounded

LONG_S, AT_ONCE_S = 120.0, 0.3
"""The second for what never comes."""
STAND = f"touch ${suite.STANDS}"


@pytest.mark.parametrize(
    ("script", "start_s", "tests_s", "outcome"),
    [
        (f"{STAND}; exit 0", LONG_S, LONG_S, SuiteOutcome.PASSED),
        (f"{STAND}; exit 1", LONG_S, LONG_S, SuiteOutcome.FAILED),
        (f"{STAND}; sleep 1000", LONG_S, AT_ONCE_S, SuiteOutcome.FAILED),
        ("exit 1", LONG_S, LONG_S, SuiteOutcome.NEVER_STOOD),
        ("sleep 1000", AT_ONCE_S, LONG_S, SuiteOutcome.NEVER_STOOD),
    ],
)
def test_only_what_stood_can_fail(
    tmp_path: Path, script: str, start_s: float, tests_s: float, outcome: SuiteOutcome
) -> None:
    assert run_bounded(("sh", "-c", script), tmp_path / "stands", start_s, tests_s) is outcome


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_all_that_it_started_ends_with_it(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; {STAND}; wait"
    outcome = run_bounded(("sh", "-c", script), tmp_path / "stands", LONG_S, AT_ONCE_S)
    assert outcome is SuiteOutcome.FAILED
    pid = int((tmp_path / "pid").read_text())
    end = time.monotonic() + LONG_S
    while lives(pid):
        assert time.monotonic() < end, "it goes on"
        time.sleep(0.02)


def test_what_is_missing_is_told_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "short_obstacles", lambda: ["it needs root"])
    assert suite.run_short(time.time()) == 0
    assert suite.run_short(time.time() - suite.LATEST_S - 60) == 0
    told = capsys.readouterr().err
    assert told.count("NOT TESTED HERE") == 2
    assert "it needs root" in told and "have gone by" in told


@pytest.mark.parametrize(
    ("outcomes", "status", "untested"),
    [
        ([SuiteOutcome.FAILED], 0, True),
        ([SuiteOutcome.PASSED, SuiteOutcome.NEVER_STOOD], 0, True),
        ([SuiteOutcome.PASSED, SuiteOutcome.FAILED], 1, False),
        ([SuiteOutcome.PASSED, SuiteOutcome.PASSED], 0, False),
    ],
)
def test_a_test_that_fails_on_a_node_that_stands_fails_the_whole(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcomes: list[SuiteOutcome],
    status: int,
    untested: bool,
) -> None:
    """The first outcome is that of making the images."""
    monkeypatch.setattr(suite, "short_obstacles", lambda: [])
    monkeypatch.setattr(suite, "run_bounded", lambda *_: outcomes.pop(0))
    monkeypatch.setattr(suite, "_in_sandbox", lambda *_: ("true",))
    assert suite.run_short(time.time()) == status
    assert ("NOT TESTED HERE" in capsys.readouterr().err) is untested
