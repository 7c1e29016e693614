"""What a node is started in: nothing is seen outside of it, and nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "true")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or bool(subprocess.run(UNSHARE, check=False).returncode),
    reason="a sandbox needs root, and the right to make namespaces",
)
SANDBOX = (sys.executable, "-m", "drey_testing.cluster.sandbox")
TRACES = "touch /var/lib/trace /run/trace; ip link add trace0 type bridge"


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Its folder is another than that of a node that may run here; what is left goes at the end."""
    made = {**os.environ, "TMPDIR": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", "from drey_testing.cluster import sandbox; print(sandbox.CGROUP)"],
        env=made,
        capture_output=True,
        text=True,
        check=True,
    )
    yield {**made, "NAME": told.stdout.strip()}
    subprocess.run([*SANDBOX, "true"], env=made, check=True)


@contextmanager
def standing(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """One that has left its traces and goes on."""
    script = f"{TRACES}; mkdir /sys/fs/cgroup/*/$NAME/pod; echo ready; exec sleep 10000"
    with subprocess.Popen(
        [*SANDBOX, "sh", "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def cgroups_of(environment: dict[str, str]) -> list[Path]:
    """The sandbox's cgroups that there are."""
    top, name = Path("/sys/fs/cgroup"), environment["NAME"]
    return [found for found in (top / name, *top.glob(f"*/{name}")) if found.exists()]


def assert_no_trace() -> None:
    assert not Path("/var/lib/trace").exists() and not Path("/run/trace").exists()
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert "trace0" not in links


def test_it_tells_how_its_command_ended_and_leaves_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run([*SANDBOX, "sh", "-c", f"{TRACES}; exit 7"], env=environment, check=False)
    assert done.returncode == 7
    assert_no_trace()
    assert not (tmp_path / "drey-node").exists() and not cgroups_of(environment)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_all_of_it_ends_with_it_and_the_next_run_finds_nothing(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with standing(environment) as process:
        inside = psutil.Process(process.pid).children(recursive=True)
        assert inside and cgroups_of(environment)
        process.send_signal(number)
        process.wait()
        _, living = psutil.wait_procs(inside, timeout=60)
        assert not living
    assert_no_trace()
    again = subprocess.run(
        [*SANDBOX, "test", "!", "-e", "/var/lib/trace"], env=environment, check=False
    )
    assert again.returncode == 0
    assert not (tmp_path / "drey-node").exists() and not cgroups_of(environment)


def test_there_is_one_at_a_time(environment: dict[str, str]) -> None:
    with standing(environment):
        second = subprocess.run(
            [*SANDBOX, "true"], env=environment, capture_output=True, text=True, check=False
        )
        assert second.returncode == 2 and "another node runs" in second.stderr
