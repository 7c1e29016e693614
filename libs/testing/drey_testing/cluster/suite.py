"""Runs the tests that need a node with pods: `make cluster-test`, and the short ones in `make ci`.

    python -m drey_testing.cluster.suite [PYTEST ARGUMENT...]
    python -m drey_testing.cluster.suite --short [--begun SECONDS_SINCE_1970]

Says what is missing here, builds the programs and the images where they are not built, prints how
large the images are, and runs tests/k8s/node inside the sandbox. Exit status 2 where there can be
no node, and nothing was tested then.

`--short` builds no program and downloads no base, runs a few of the tests, and never takes longer
than its limits. Where there can be no node, or none came to stand, it says so and exits with 0;
1 is for a test that failed on a node that stood. `--begun`: when that began of which this is the
end; where that was long ago nothing is begun any more.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

from drey_testing.cluster import images, node, sandbox
from drey_testing.cluster.programs import ProgramsMissing, built_programs, programs

TESTS = "tests/k8s/node"
PROGRAMS = (*node.PROGRAMS, "helm", "grpcurl")
SHORT = (
    f"{TESTS}/test_main_job.py::test_the_main_job_by_grpcurl",
    f"{TESTS}/test_deaths.py::test_a_killed_owner_is_followed",
)
STANDS = "NODE_STANDS_FILE"
"""Environment variable that names a file, which is made once the release is installed."""
IMAGES_S, START_S, TESTS_S = 240.0, 210.0, 270.0
"""Limits of the short run: each several times what it takes on two cores that are not busy."""
LATEST_S = 2700.0
"""After its beginning the whole has no time left for the short run, in an hour."""
_END_S = 10.0
_MEMORY_MB, _DISK_MB = 5000, 8000
_PROBE = (
    "PATH=$PATH:/usr/sbin:/sbin; "
    "ip link add probe0 type bridge && mount -t tmpfs tmpfs /mnt && iptables -t nat -L -n"
)
"""What a node does first, tried where it would do it."""


class SuiteOutcome(Enum):
    """What became of a bounded run."""

    PASSED = auto()
    FAILED = auto()
    NEVER_STOOD = auto()


def obstacles() -> list[str]:
    """Why there can be no node here, each with what to do; empty: nothing is in the way."""
    lacks = []
    if os.geteuid() != 0:
        lacks.append("it needs root: it makes namespaces, mounts and cgroups of its own")
    if not shutil.which("apt-get"):
        lacks.append(f"it needs Debian or Ubuntu; here is {platform.platform()}")
    missing = sorted({*node.missing_packages(), *images.missing_packages()})
    if missing:
        lacks.append(
            f"packages are missing: apt-get install --no-install-recommends {' '.join(missing)}"
        )
    return lacks


def short_obstacles() -> list[str]:
    """Likewise for the short run, which makes nothing that takes long, and tries what it needs."""
    lacks = obstacles()
    try:
        built_programs(*PROGRAMS)
    except ProgramsMissing as error:
        lacks.append(f"{error} (`make cluster-test` builds all, once)")
    if not images.has_bases():
        lacks.append("Debian's base of the images was not made here: `make cluster-images` does it")
    free_mb = sandbox.available_mb()
    if free_mb < _MEMORY_MB:
        lacks.append(f"it needs {_MEMORY_MB} MB of free memory; there are {free_mb}")
    disk_mb = shutil.disk_usage(sandbox.FOLDER.parent).free // 1_000_000
    if disk_mb < _DISK_MB:
        lacks.append(f"it needs {_DISK_MB} MB below {sandbox.FOLDER.parent}; there are {disk_mb}")
    if not lacks:
        tried = _in_sandbox("sh", "-c", _PROBE)
        done = subprocess.run(
            tried, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            lacks.append(f"a node's surroundings cannot be made: {done.stdout.strip()}")
    return lacks


def run_short(begun: float) -> int:
    """The short run; its exit status."""
    late = time.time() - begun > LATEST_S
    lacks = [f"more than {LATEST_S:.0f} s have gone by already"] if late else short_obstacles()
    if lacks:
        return _tell_untested(lacks)
    made = (sys.executable, "-m", images.__name__)
    if run_bounded(made, None, IMAGES_S, IMAGES_S) is not SuiteOutcome.PASSED:
        return _tell_untested([f"the images could not be made within {IMAGES_S:.0f} s"])
    tests = (sys.executable, "-m", "pytest", *SHORT, "-m", "node", "-s", "-v")
    with tempfile.TemporaryDirectory(prefix="drey-suite-") as folder:
        stands = Path(folder) / "stands"
        outcome = run_bounded(_in_sandbox(*tests), stands, START_S, TESTS_S)
    # what a run that was ended left
    subprocess.run(_in_sandbox("true"), check=False)
    if outcome is SuiteOutcome.NEVER_STOOD:
        return _tell_untested([f"no release stood on a node within {START_S:.0f} s: see above"])
    return 0 if outcome is SuiteOutcome.PASSED else 1


def run_bounded(
    command: Sequence[str], stands: Path | None, start_s: float, tests_s: float
) -> SuiteOutcome:
    """Run a command to its end, or end it: `start_s` after which it has to have made `stands`,
    and `tests_s` after that.
    """
    environment = {**os.environ, **({STANDS: str(stands)} if stands is not None else {})}
    stood = stands is None
    # a group of its own: what it started ends with it
    with subprocess.Popen(
        command, cwd=images.ROOT, env=environment, start_new_session=True
    ) as process:
        try:
            end = time.monotonic() + start_s
            while process.poll() is None and time.monotonic() < end:
                if not stood and stands is not None and stands.exists():
                    stood, end = True, time.monotonic() + tests_s
                time.sleep(0.1)
            ended = process.poll()
        finally:
            _end_group(process)
    stood = stood or (stands is not None and stands.exists())
    if not stood:
        return SuiteOutcome.NEVER_STOOD
    return SuiteOutcome.PASSED if ended == 0 else SuiteOutcome.FAILED


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)


def _in_sandbox(*command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", sandbox.__name__, *command)


def _tell_untested(lacks: Sequence[str]) -> int:
    head = "NOT TESTED HERE: the chart on a Kubernetes with pods (`make cluster-test` does it)"
    print(head, *lacks, sep="\n  ", file=sys.stderr, flush=True)
    return 0


def run_all(pytest_arguments: Sequence[str]) -> int:
    """All of the tests, or those of `pytest_arguments`; the exit status."""
    lacks = obstacles()
    try:
        if not lacks:
            programs(*PROGRAMS)
    except ProgramsMissing as error:
        lacks.append(str(error))
    if lacks:
        print(
            "NO NODE HERE, the chart was NOT tested with pods:", *lacks, sep="\n  ", file=sys.stderr
        )
        return 2
    if images.main():
        return 1
    os.chdir(images.ROOT)
    pytest = (sys.executable, "-m", "pytest", TESTS, "-m", "node", "-s", "-v")
    try:
        return sandbox.run_inside([*pytest, *pytest_arguments])
    except sandbox.NoSandbox as error:
        print(error, file=sys.stderr)
        return 2


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m drey_testing.cluster.suite", add_help=False)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--begun", type=float, default=time.time())
    options, pytest_arguments = parser.parse_known_args()
    return run_short(options.begun) if options.short else run_all(pytest_arguments)


if __name__ == "__main__":
    sys.exit(main())
