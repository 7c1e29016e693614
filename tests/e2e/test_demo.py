"""`drey demo` to its end, and interrupted at any moment: nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(300)

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
    return os.environ | {"TMPDIR": str(tmp_path), "DEMO_MARK": tmp_path.name}


def test_the_walk_ends_well_and_says_what_it_did(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [*DREY, "--report", str(report)],
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["ok"]
    assert len(found["steps"]) == 11
    assert found["steps"][-1]["different"] == 0
    assert "drey snapshot take" in done.stdout
    assert not _left(tmp_path.name)
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("seconds", [0.5, 2.5, 6.0, 12.0])
def test_an_interrupted_walk_leaves_nothing(tmp_path: Path, seconds: float) -> None:
    process = subprocess.Popen(
        DREY,
        env=_environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    time.sleep(seconds)  # the moment is the parameter: any will do
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (130, 0, -signal.SIGINT)
    end = time.monotonic() + 5
    while _left(tmp_path.name) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _left(tmp_path.name)
    assert not list(tmp_path.iterdir())
