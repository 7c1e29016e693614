"""`drey demo` to its end, and interrupted at any moment: nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

DREY = [sys.executable, "-m", "drey_cli.main", "demo", "--pvs", "100", "--disturb", "20"]


def _left(mark: str) -> list[str]:
    """Command lines of processes whose environment or arguments carry the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *(f"{k}={v}" for k, v in process.environ().items())]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid != os.getpid() and any(mark in word for word in words):
            found.append(" ".join(process.cmdline()))
    return found


def _environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(tmp_path), "DEMO_MARK": str(tmp_path)}


def test_the_walk_ends_well_and_says_what_it_did(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [*DREY, "--report", str(report)],
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["ok"]
    assert len(found["steps"]) == 11
    assert found["steps"][-1]["different"] == 0
    assert "drey snapshot take" in done.stdout
    assert not _left(str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_machine_that_dies_ends_the_walk_with_the_reason(tmp_path: Path) -> None:
    process = subprocess.Popen(
        DREY,
        env=_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    guard = threading.Timer(500, process.kill)
    guard.start()
    try:
        next(line for line in process.stdout if line.strip().startswith("3. "))
        for child in psutil.Process(process.pid).children():
            if any("drey_machine" in word for word in child.cmdline()):
                child.kill()
        said = process.stdout.read()
        assert process.wait() == 1, said
        assert "the simulated machine: ended" in said
        assert "Traceback" not in said
        assert not _left(str(tmp_path))
    finally:
        guard.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


class _Moment:
    """When the signal comes: at a line of the walk, or a while after the start."""

    def __init__(self, after: str = "", seconds: float = 0.0, times: int = 1) -> None:
        self.after, self.seconds, self.times = after, seconds, times

    def __repr__(self) -> str:
        return f"{self.after or 'start'}+{self.seconds}x{self.times}"


MOMENTS = [
    _Moment(seconds=0.3),
    _Moment(seconds=1.5),
    _Moment(after=" 1. Start", times=3),
    _Moment(after=" 2. Start", times=2),
    _Moment(after=" 2. Start", seconds=1.0),
    _Moment(after=" 5. Take"),
    _Moment(after=" 9. Restore", seconds=0.5),
    _Moment(after="11. Read", times=2),
    # while all is stopped, and while its folder is removed
    _Moment(after="equal ", times=3),
    _Moment(after="equal ", seconds=0.6, times=2),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=repr)
def test_an_interrupted_walk_leaves_nothing(tmp_path: Path, moment: _Moment) -> None:
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # short enough for sockets
    process = subprocess.Popen(
        DREY,
        env=_environment(tmp_path) | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    seen = ""
    while moment.after not in seen and (line := process.stdout.readline()):
        seen += line
    time.sleep(moment.seconds)  # the moment is the parameter: any will do
    for _ in range(moment.times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    said, _ = process.communicate(timeout=500)
    assert process.returncode in (130, 0, -signal.SIGINT), seen + said
    assert not list(folder.iterdir()), seen + said
    assert not _left(str(tmp_path))
    folder.rmdir()
