"""Runs the tests that need a node with pods: `make cluster-test`, and the short ones in `make ci`.

    python -m drey_testing.cluster.suite [PYTEST ARGUMENT...]
    python -m drey_testing.cluster.suite --short [--begun SECONDS_SINCE_1970]

Says what is missing here, builds the programs and the images where they are not built, prints how
large the images are, and runs tests/k8s/node inside the sandbox. Exit status 2 where there can be
no node, and nothing was tested then.

`--short` runs a few of the tests, and is over an hour after `--begun`, when that began of which
this is the end; what is not built by then is built further by the next run. Where there can be no
node, or none came to stand, it says so and exits with 0; 1 is for a test that failed on a node that
stood, and failed again on another. Whatever ends it, no process, mount or network of it goes on.
"""

from __future__ import annotations

import argparse
import json
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
UNSTABLE = images.ROOT / ".cache/unstable-tests.txt"
"""Where `make test` names those too."""
PROGRAMS = (*node.PROGRAMS, "helm", "grpcurl")
SHORT = (
    f"{TESTS}/test_main_job.py::test_the_main_job_by_grpcurl",
    f"{TESTS}/test_deaths.py::test_a_killed_owner_is_followed",
)
STANDS = "NODE_STANDS_FILE"
"""Environment variable that names a file, which is made once a pod runs on the node."""
START_S, TESTS_S = 120.0, 360.0
"""Limits of the short run: each several times what it takes on two cores that are not busy."""
LOOK_S = START_S + TESTS_S
OVER_S = 3420.0
"""After its beginning the whole is over, in an hour."""
_LEAST_PREPARATION_S = 60.0
"""To find that all programs and images are there."""
_END_S = 10.0
_MEMORY_MB, _DISK_MB, _CACHE_MB = 5000, 8000, 15000
_PROBE = (
    "PATH=$PATH:/usr/sbin:/sbin; cd /var/lib && mkdir lower upper work merged && "
    "ip link add probe0 type bridge && iptables -t nat -L -n && "
    "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged"
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
    """Likewise for the short run, which also tries what it needs."""
    lacks = obstacles()
    free_mb = sandbox.available_mb()
    if free_mb < _MEMORY_MB:
        lacks.append(f"it needs {_MEMORY_MB} MB of free memory; there are {free_mb}")
    room = [(sandbox.FOLDER.parent, _DISK_MB)]
    try:
        built_programs(*PROGRAMS)
    except ProgramsMissing:
        room.append((Path.home(), _CACHE_MB))
    for folder, needed_mb in room:
        disk_mb = shutil.disk_usage(folder).free // 1_000_000
        if disk_mb < needed_mb:
            lacks.append(f"it needs {needed_mb} MB below {folder}; there are {disk_mb}")
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
    over = begun + OVER_S
    if time.time() > over - LOOK_S - _LEAST_PREPARATION_S:
        return _tell_untested([f"{time.time() - begun:.0f} s have gone by already"])
    lacks = short_obstacles()
    if lacks:
        return _tell_untested(lacks)
    for what, module, names in (
        ("the programs", programs.__module__, PROGRAMS),
        ("the images", images.__name__, ()),
    ):
        status = prepare((sys.executable, "-m", module, *names), over - LOOK_S)
        if status == images.TOO_LARGE:
            return 1
        if status is None:
            return _tell_untested([f"no time to make {what}; the next run goes on from there"])
        if status:
            return _tell_untested([f"{what} could not be made: see above"])
    with tempfile.TemporaryDirectory(prefix="drey-suite-") as folder:
        return _test_twice(Path(folder), over)


def _test_twice(folder: Path, over: float) -> int:
    """What failed is looked at once more, on another node, where there is time for it."""
    outcome = _test(folder / "first", folder)
    if outcome is SuiteOutcome.NEVER_STOOD:
        return _tell_untested([f"no pod ran on a node within {START_S:.0f} s: see above"])
    failed = _failed_tests(folder)
    if outcome is SuiteOutcome.PASSED:
        return 0
    if time.time() > over - LOOK_S:
        print("no time is left for a second look", file=sys.stderr, flush=True)
        return 1
    print(f"\n{', '.join(failed)} failed: once more, on another node", flush=True)
    if _test(folder / "second", folder) is not SuiteOutcome.PASSED:
        return 1
    UNSTABLE.parent.mkdir(exist_ok=True)
    with UNSTABLE.open("a") as file:
        for name in failed:
            print(f"UNSTABLE {name}: failed on one node, passed on another", flush=True)
            file.write(f"{name}\n")
    return 0


def _test(stands: Path, cache: Path) -> SuiteOutcome:
    """The tests, or those that failed last."""
    options = ("-m", "node", "-s", "-v", "-o", f"cache_dir={cache}", "--last-failed")
    tests = (sys.executable, "-m", "pytest", *SHORT, *options)
    try:
        return run_bounded(_in_sandbox(*tests), stands, START_S, TESTS_S)
    finally:
        # what a run that was ended left
        subprocess.run(_in_sandbox("true"), check=False)


def _failed_tests(cache: Path) -> list[str]:
    """Those that failed last; all, where pytest did not come to write them."""
    path = cache / "v/cache/lastfailed"
    return sorted(json.loads(path.read_text())) if path.exists() else list(SHORT)


def prepare(command: Sequence[str], over: float) -> int | None:
    """Run a command until that time at most; its exit status, None where it did not end by itself.

    All that it starts and mounts ends with it, and with this process.
    """
    left_s = over - time.time()
    with subprocess.Popen(
        sandbox.alone(command), cwd=images.ROOT, start_new_session=True
    ) as process:
        try:
            return process.wait(max(left_s, 0.0))
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def run_bounded(
    command: Sequence[str], stands: Path | None, start_s: float, tests_s: float
) -> SuiteOutcome:
    """Run a command to its end, or end it: `start_s` after which it has to have made `stands`,
    and `tests_s` after that.
    """
    environment = {**os.environ, **({STANDS: str(stands)} if stands is not None else {})}
    stood = stands is None
    # a group of its own: what it started ends with it
    tied = sandbox.tied(command, signal.SIGTERM)
    with subprocess.Popen(
        tied, cwd=images.ROOT, env=environment, start_new_session=True
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
    parser = argparse.ArgumentParser(prog="python -m drey_testing.cluster.suite", add_help=False)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--begun", type=float, default=time.time())
    options, pytest_arguments = parser.parse_known_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # as a Ctrl-C: what it started ends first
        signal.signal(number, lambda ended_by, _: sys.exit(128 + ended_by))
    return run_short(options.begun) if options.short else run_all(pytest_arguments)


if __name__ == "__main__":
    sys.exit(main())
