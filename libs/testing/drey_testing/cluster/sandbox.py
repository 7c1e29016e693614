"""Runs a command where a node can be: with processes, mounts and a network of its own.

    python -m drey_testing.cluster.sandbox COMMAND [ARGUMENT...]

The command may mount, add interfaces and write firewall rules: none of it is seen outside, and all
of it ends with the command, whatever ends that, kill -9 included. What it writes below /run,
/var/lib and /var/log lies in a temporary folder, which the next run removes where this one could
not. One at a time. Needs root.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from drey_stack import launch

FOLDER = Path(tempfile.gettempdir()) / "drey-node"
CGROUP = f"drey-node-{hashlib.sha256(bytes(FOLDER)).hexdigest()[:8]}"
INSIDE = "DREY_NODE_SANDBOX"
"""Environment variable that names the folder to what runs inside."""
_CGROUPS = Path("/sys/fs/cgroup")
_BOUND = ("/var/lib", "/var/log")
_GONE_S = 60.0
_PLENTY_MB = 8000
"""A node with all images takes three thousand."""


class NoSandbox(Exception):
    """It cannot be had here; the text says what to do."""


def run_inside(command: Sequence[str]) -> int:
    """Run a command in it to its end; its exit status. `NoSandbox`."""
    if os.geteuid() != 0:
        raise NoSandbox("a node needs root: namespaces, mounts and cgroups are made")
    if shutil.which("unshare") is None:
        raise NoSandbox("unshare is missing: apt-get install util-linux")
    with _only_one():
        _remove_remains()
        FOLDER.mkdir()
        try:
            _make_cgroups()
        except OSError as error:
            raise NoSandbox(f"cgroups cannot be made here: {error}") from error
        try:
            return _run_unshared(command)
        finally:
            _remove_remains()


def _run_unshared(command: Sequence[str]) -> int:
    init = (sys.executable, "-m", __spec__.name, "--as-init", *command)
    child = subprocess.Popen(
        alone(init, "--net", "--uts", "--ipc"), env={**os.environ, INSIDE: str(FOLDER)}
    )
    # a Ctrl-C reaches the command too, which ends in its own order
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    ends = signal.signal(signal.SIGTERM, lambda *_: child.kill())
    try:
        return child.wait()
    finally:
        signal.signal(signal.SIGINT, previous)
        signal.signal(signal.SIGTERM, ends)


def tied(command: Sequence[str], number: signal.Signals) -> list[str]:
    """The command for Popen, on the main thread: it gets the signal where this process dies."""
    options = json.dumps({"parent": os.getpid(), "death_signal": int(number)})
    program = shutil.which(command[0]) or command[0]
    return [sys.executable, "-I", "-S", launch.__file__, options, program, *command[1:]]


def alone(command: Sequence[str], *namespaces: str) -> list[str]:
    """Likewise, with mounts and processes of its own: with the one all end, and this process ends
    all. `namespaces`: options of unshare for more.
    """
    unshare = ("unshare", "--mount", "--pid", *namespaces, "--fork", "--kill-child=SIGKILL")
    apart = (*unshare, "--mount-proc", "--propagation", "private", *command)
    return tied(apart, signal.SIGKILL)


@contextmanager
def _only_one() -> Iterator[None]:
    with FOLDER.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NoSandbox(f"another node runs here ({file.name})") from error
        yield


def _remove_remains() -> None:
    """Remove the folder and the cgroups of a run whose processes have all ended."""
    if FOLDER.exists():
        with Path("/proc/self/mountinfo").open() as mounts:
            if any(line.split()[4].startswith(f"{FOLDER}/") for line in mounts):
                raise NoSandbox(f"something is mounted below {FOLDER}: unmount it first")
        shutil.rmtree(FOLDER)
    end = time.monotonic() + _GONE_S
    for top in filter(Path.exists, _cgroups()):
        while not _removed_cgroup(top):
            if time.monotonic() > end:
                raise NoSandbox(f"processes of a former node still run in {top}")
            time.sleep(0.1)


def _cgroups() -> list[Path]:
    """The node's cgroup in each hierarchy (version 1), or in the one there is (version 2)."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / CGROUP]
    tops = [p for p in _CGROUPS.iterdir() if (p / "cgroup.procs").exists() and not p.is_symlink()]
    return [top / CGROUP for top in tops]


def _make_cgroups() -> None:
    for top in _cgroups():
        if (top.parent / "cgroup.subtree_control").exists():
            controllers = (top.parent / "cgroup.controllers").read_text().split()
            enabled = " ".join(f"+{name}" for name in controllers)
            (top.parent / "cgroup.subtree_control").write_text(enabled)
        top.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (top / "cpuset.cpu_exclusive").exists():  # version 1 begins with none
                (top / name).write_text((top.parent / name).read_text())


def _removed_cgroup(top: Path) -> bool:
    with suppress(OSError):
        for folder, _, _ in os.walk(top, topdown=False):
            Path(folder).rmdir()
    return not top.exists()


def _be_init(command: Sequence[str]) -> int:
    """As process 1: prepare, run the command, and collect what others left."""
    _run("mount", "--make-rshared", "/")
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    if available_mb() > _PLENTY_MB:
        _run("mount", "-t", "tmpfs", "tmpfs", str(FOLDER))
    for name in _BOUND:
        folder = FOLDER / name.strip("/")
        folder.mkdir(parents=True)
        _run("mount", "--bind", str(folder), name)
    _run("ip", "link", "set", "lo", "up")
    signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen(command)
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


def available_mb() -> int:
    """Memory of this machine that can be had."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1000
    return 0


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def main() -> int:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--as-init"]:
        return _be_init(arguments[1:])
    try:
        return run_inside(arguments)
    except NoSandbox as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
