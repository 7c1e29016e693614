"""Building the programs of Kubernetes ends in its time, whatever hangs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from drey_testing.cluster.programs import version

GO = """#!/bin/sh
if [ "$1" = version ]; then echo go version go1.26.0 linux/amd64; exit; fi
echo fetching modules
sleep 1000 &
echo $! > "$GO_CHILD"
wait
"""
"""One that hangs as a module proxy does that takes the connection and says nothing."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    path = f"{go.parent}:{os.environ['PATH']}"
    own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "GO_CHILD": str(tmp_path / "child")}
    return {**os.environ, **own, "PATH": path}


def build(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "drey_testing.cluster.programs", "--within", "6", "etcd", "helm"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_build_that_hangs_is_named_and_ended_with_all_that_it_started(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = build(environment)
    assert done.returncode == 1
    assert "etcd could not be built: no time is left for `go build" in done.stderr
    assert "fetching modules" in done.stderr
    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


def test_one_who_waits_for_another_to_build_says_so(
    environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "cache/drey/cluster-bin" / version()
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = build(environment)
    assert done.returncode == 1
    assert "another process builds them still" in done.stderr
