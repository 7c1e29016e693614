"""What `make ci` does of the node's tests: bounded, and a node that never stood is no failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from drey_testing.cluster import images, suite
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
    assert suite.run_short(time.time() - suite.OVER_S + suite.LOOK_S) == 0
    told = capsys.readouterr().err
    assert told.count("NOT TESTED HERE") == 2
    assert "it needs root" in told and "have gone by" in told


UNSHARE = ("unshare", "--mount", "--pid", "--fork", "true")
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or bool(
        subprocess.run(("unshare", "--mount", "--pid", "--fork", "true"), check=False).returncode
    ),
    reason="it needs root, and the right to make namespaces",
)
PREPARES = """
import sys, time
from drey_testing.cluster.suite import prepare
print(prepare(("sh", "-c", sys.argv[1]), time.time() + float(sys.argv[2])), flush=True)
"""


@needs_namespaces
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_preparation_started_and_mounted_ends_with_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = f"mount -t tmpfs tmpfs {tmp_path}; sleep 10000 & echo ready; wait"
    with subprocess.Popen(
        [sys.executable, "-c", PREPARES, script, "10000"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            inside = psutil.Process(process.pid).children(recursive=True)
            assert len(inside) == 3
            process.send_signal(number)
            process.wait()
        finally:
            process.kill()
        _, living = psutil.wait_procs(inside, timeout=LONG_S)
        assert not living
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@needs_namespaces
def test_a_preparation_tells_its_end_or_that_it_was_late() -> None:
    assert suite.prepare(("sh", "-c", "exit 3"), time.time() + LONG_S) == 3
    assert suite.prepare(("sleep", "1000"), time.time() + AT_ONCE_S) is None


@needs_namespaces
@pytest.mark.skipif(bool(images.missing_packages()), reason="buildah is not installed")
def test_the_store_of_the_images_leaves_no_mount(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(images, "_folder", lambda: tmp_path)
    container = images._buildah("from", "scratch").strip()
    # as one that is killed: it has no chance to take its mounts back
    images._buildah("mount", container)
    assert (tmp_path / "store").is_dir()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    images._buildah("rm", "--all")
    with pytest.raises(images.ImagesMissing, match="no-such-command"):
        images._buildah("no-such-command")
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


FIRST_FAILS = """
import os, pathlib, pytest

pathlib.Path(os.environ["NODE_STANDS_FILE"]).touch()

@pytest.mark.node
def test_passes():
    pass

@pytest.mark.node
def test_looks():
    looks = pathlib.Path(__file__).with_suffix(".looks")
    looks.write_text((looks.read_text() if looks.exists() else "") + "x")
    assert len(looks.read_text()) > {failing}
"""


@pytest.mark.parametrize(("failing", "status", "looks"), [(0, 0, 1), (1, 0, 2), (2, 1, 2)])
def test_what_failed_is_looked_at_once_more_and_named(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    failing: int,
    status: int,
    looks: int,
) -> None:
    made = tmp_path / "test_made.py"
    made.write_text(FIRST_FAILS.format(failing=failing))
    names = tuple(f"{made}::{name}" for name in ("test_passes", "test_looks"))
    monkeypatch.setattr(suite, "SHORT", names)
    monkeypatch.setattr(suite, "UNSTABLE", tmp_path / "cache/unstable")
    monkeypatch.setattr(suite, "short_obstacles", lambda: [])
    monkeypatch.setattr(suite, "prepare", lambda *_: 0)
    monkeypatch.setattr(suite, "_in_sandbox", lambda *command: command)
    monkeypatch.setattr("drey_testing.cluster.sandbox.tied", lambda command, _: command)
    assert suite.run_short(time.time()) == status
    assert made.with_suffix(".looks").read_text() == "x" * looks
    named = [line for line in capfd.readouterr().out.splitlines() if line.startswith("UNSTABLE")]
    assert len(named) == (failing == 1)
    if named:
        assert "test_looks" in named[0]
        assert "test_looks" in (tmp_path / "cache/unstable").read_text()


@pytest.mark.parametrize(
    ("prepared", "status", "untested"),
    [([1], 0, True), ([0, 1], 0, True), ([None], 0, True), ([0, images.TOO_LARGE], 1, False)],
)
def test_what_cannot_be_made_is_told_and_what_is_too_large_fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    prepared: list[int | None],
    status: int,
    untested: bool,
) -> None:
    monkeypatch.setattr(suite, "short_obstacles", lambda: [])
    monkeypatch.setattr(suite, "prepare", lambda *_: prepared.pop(0))
    assert suite.run_short(time.time()) == status
    assert ("NOT TESTED HERE" in capsys.readouterr().err) is untested


@pytest.mark.parametrize(
    ("outcomes", "gone_s", "status", "untested"),
    [
        ([SuiteOutcome.NEVER_STOOD], 0.0, 0, True),
        ([SuiteOutcome.PASSED], 0.0, 0, False),
        # a node that does not stand the second time takes nothing back
        ([SuiteOutcome.FAILED, SuiteOutcome.NEVER_STOOD], 0.0, 1, False),
        # no time for a second look
        ([SuiteOutcome.FAILED], suite.OVER_S - suite.LOOK_S - 90, 1, False),
    ],
)
def test_a_test_that_fails_on_a_node_that_stands_fails_the_whole(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcomes: list[SuiteOutcome],
    gone_s: float,
    status: int,
    untested: bool,
) -> None:
    now = time.time()

    def outcome(*_: object) -> SuiteOutcome:
        monkeypatch.setattr("time.time", lambda: now + 100.0)
        return outcomes.pop(0)

    monkeypatch.setattr(suite, "short_obstacles", lambda: [])
    monkeypatch.setattr(suite, "prepare", lambda *_: 0)
    monkeypatch.setattr(suite, "run_bounded", outcome)
    monkeypatch.setattr(suite, "_in_sandbox", lambda *_: ("true",))
    assert suite.run_short(now - gone_s) == status
    assert ("NOT TESTED HERE" in capsys.readouterr().err) is untested
