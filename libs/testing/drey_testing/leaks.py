"""A test that leaves a task, thread, socket or process behind fails, and is told what it left.

A pytest plugin. What lives on purpose is known by how it came: a fixture of a module or of the
session owns what appeared while it was set up, until it is torn down. What such a fixture makes
later (its supervisor restarts a process, its channel connects again) it declares by `keep`.

A test that is marked `asyncio_debug` has its event loop in debug mode, in which a call from another
thread is an error; what the loop complains of (an exception that nobody fetched, a task that was
dropped) fails it too.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc.aio
import psutil
import pytest

MARK = "TEST_PROCESS_MARK"
"""In the environment of every process that a test starts, however far down."""
PATIENCE_S = 20.0
"""What ends by itself a moment later (a closed channel's socket, a reaped child) is not a leak."""
COLLECTION_S = 0.5
"""Between two collections of garbage while something is left."""


@dataclass(frozen=True)
class Resources:
    """Threads by identity, sockets by inode, processes by id."""

    threads: frozenset[threading.Thread] = frozenset()
    sockets: frozenset[str] = frozenset()
    processes: frozenset[int] = frozenset()

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            self.threads - other.threads,
            self.sockets - other.sockets,
            self.processes - other.processes,
        )

    def __or__(self, other: Resources) -> Resources:
        return Resources(
            self.threads | other.threads,
            self.sockets | other.sockets,
            self.processes | other.processes,
        )

    def __bool__(self) -> bool:
        return bool(self.threads or self.sockets or self.processes)


Keeper = Callable[[Resources], Resources]
"""Given what is left over, what of it is somebody's on purpose."""


@dataclass
class LeakWatch:
    """What is there and whose it is."""

    mark: str = field(default_factory=lambda: uuid4().hex)
    known: Resources | None = None
    owned: dict[object, Resources] = field(default_factory=dict)
    keepers: list[Keeper] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _strangers: set[int] = field(default_factory=set)
    _marked_pids: set[int] = field(default_factory=set)

    def look(self) -> Resources:
        """What this process has now."""
        threads = frozenset(thread for thread in threading.enumerate() if thread.is_alive())
        return Resources(threads, frozenset(_socket_files()), frozenset(self._processes()))

    def _processes(self) -> Iterator[int]:
        """Processes that carry the mark, and children, that run. Others are looked at only once."""
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
        self._strangers &= pids
        self._marked_pids &= pids
        for pid in sorted(pids - self._strangers - {os.getpid()}):
            with suppress(ProcessLookupError, FileNotFoundError):
                state, parent = _state_and_parent(pid)
                if state == "Z":
                    continue  # ended: libca never waits for the repeater that it tries to start
                if parent == os.getpid() or self._marked(pid):
                    yield pid
                else:
                    self._strangers.add(pid)

    def _marked(self, pid: int) -> bool:
        if pid in self._marked_pids:
            return True
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except PermissionError:
            return False
        if f"{MARK}={self.mark}".encode() not in environment:
            return False
        self._marked_pids.add(pid)
        return True

    def surplus(self) -> Resources:
        """What is there and nobody's."""
        accounted = self.known or Resources()
        for owned in self.owned.values():
            accounted |= owned
        left = self.look() - accounted
        for keeper in self.keepers if left else ():
            left -= keeper(left)
        return left

    def wait_surplus(self) -> Resources:
        """What is left when what ends by itself has had its time."""
        left = self.surplus()
        began = time.monotonic()
        next_collection = began
        while left and (now := time.monotonic()) < began + PATIENCE_S:
            if now >= next_collection:
                # what only a circle of references holds; it takes as long as everything here is
                gc.collect()
                next_collection = time.monotonic() + COLLECTION_S
            time.sleep(0.02)
            left = self.surplus()
        return left

    def take_leaks(self) -> list[str]:
        """What was left since the last call, by name; each is told once."""
        if self.known is None:
            return []
        left = self.wait_surplus()
        names = [f"task {task}" for task in self.tasks] + self.complaints + describe(left)
        self.tasks, self.complaints = [], []
        self.known |= left
        return names


def _state_and_parent(pid: int) -> tuple[str, int]:
    """By one read: psutil takes four, and this is asked of every process at every test."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[1])


def _socket_files() -> dict[str, int]:
    """File descriptors of this process by the name of what lies behind them."""
    files = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
            if target.startswith("socket:"):
                files[target] = int(name)
    return files


def connections_of(names: frozenset[str]) -> dict[str, Any]:
    """What is known of sockets by name; nothing of one that is closed."""
    connections = {c.fd: c for c in psutil.Process().net_connections(kind="all")}
    files = _socket_files()
    return {name: connections.get(files[name]) for name in names & files.keys()}


def describe(left: Resources) -> list[str]:
    """Each thing by what a reader can find it with."""
    lines = [f"thread {thread.name!r} ({thread!r})" for thread in left.threads]
    if left.sockets:
        lines += [f"{name} {told}" for name, told in connections_of(left.sockets).items()]
    for pid in left.processes:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            told = " ".join(process.cmdline())[:300] or process.name()
            lines.append(f"process {pid} ({process.status()}): {told}")
    return lines


def keep_libca(left: Resources) -> Resources:
    """The datagram sockets of libca, whose searches go on as long as the process. Drey has none."""
    if "epicscorelibs" not in sys.modules or not left.sockets:
        return Resources()
    connections = connections_of(left.sockets)
    datagrams = {n for n, c in connections.items() if c and c.type == socket.SOCK_DGRAM}
    return Resources(sockets=frozenset(datagrams))


watch = LeakWatch(keepers=[keep_libca])


class LoopComplaints(logging.Handler):
    """What event loops in debug mode log as errors; of the others it comes at any later time.

    They say where an object was made, and complain of it when it is collected.
    """

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if "created at (most recent call last)" in text:
            watch.complaints.append(f"asyncio: {text}")


@contextmanager
def keep(keeper: Keeper) -> Iterator[None]:
    """Within it, what `keeper` picks from what is left over is no leak."""
    watch.keepers.append(keeper)
    try:
        yield
    finally:
        watch.keepers.remove(keeper)


def keep_processes(pattern: str) -> Keeper:
    """Processes whose command line matches belong to a fixture that starts them again."""
    compiled = re.compile(pattern)

    def chosen(left: Resources) -> Resources:
        pids = set()
        for pid in left.processes:
            with suppress(psutil.NoSuchProcess):
                if compiled.search(" ".join(psutil.Process(pid).cmdline())):
                    pids.add(pid)
        return Resources(processes=frozenset(pids))

    return chosen


def keep_threads(prefix: str) -> Keeper:
    """Threads with such a name belong to a fixture that makes them again."""

    def chosen(left: Resources) -> Resources:
        return Resources(frozenset(t for t in left.threads if t.name.startswith(prefix)))

    return chosen


@contextmanager
def keep_iocs(folder: Path) -> Iterator[None]:
    """IOCs of a folder belong to a fixture whose tests kill them and start them again."""
    with keep(keep_processes(re.escape(str(folder)))), keep(keep_threads("ioc-")):
        yield


def pytest_configure(config: pytest.Config) -> None:
    """Mark what is started, and note the tasks that a loop finds when it is closed."""
    config.addinivalue_line("markers", "asyncio_debug: has its event loop in debug mode")
    os.environ[MARK] = watch.mark
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    # ten frames of where each callback was made double what a test costs; the last one says enough
    patch.setattr("asyncio.constants.DEBUG_STACK_DEPTH", 1)
    cancel_all = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]

    def note_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
        watch.tasks += [repr(task) for task in asyncio.all_tasks(loop) if not task.done()]
        cancel_all(loop)

    patch.setattr(asyncio.runners, "_cancel_all_tasks", note_and_cancel)
    log, handler = logging.getLogger("asyncio"), LoopComplaints(logging.ERROR)
    log.addHandler(handler)
    config.add_cleanup(lambda: log.removeHandler(handler))
    # that a callback took long is the pace of the machine
    log.addFilter(lambda record: record.levelno > logging.WARNING or "took" not in str(record.msg))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """What is there before the first test is nobody's fault."""
    if watch.known is None:
        if "grpc.aio" in sys.modules:
            # its poller, one thread and a pair of sockets for all channels of the process
            grpc.aio.init_grpc_aio()
        watch.known = watch.look()
    item.stash[_FAILED_BEFORE] = item.session.testsfailed
    # of pytest-asyncio, which asks for it when it makes the loop of a test
    item.config.option.asyncio_debug = item.get_closest_marker("asyncio_debug") is not None
    yield


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object],
) -> Generator[None, object, object]:
    """What a fixture of more than one test makes is its own."""
    if fixturedef.scope == "function":
        return (yield)
    before = watch.look()
    value = yield
    watch.owned[fixturedef] = watch.look() - before
    return value


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef[object]) -> None:
    """What it made should be gone with it."""
    watch.owned.pop(fixturedef, None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail the test whose teardown is over and left something; one that failed says enough."""
    yield
    leaks = watch.take_leaks()
    if leaks and item.session.testsfailed == item.stash[_FAILED_BEFORE]:
        pytest.fail("the test left behind:\n" + "\n".join(leaks), pytrace=False)


_FAILED_BEFORE = pytest.StashKey[int]()
