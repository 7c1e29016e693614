"""Soft IOCs as processes, found by this process and by nobody else.

libca reads its environment once, when its context is made. So a test process fixes a pool of
loopback ports first (`use_loopback`) and every IOC it starts takes one of them.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from drey_stack import free_port

_POOL_SIZE = 6
_pool: list[int] = []
_taken: set[int] = set()


def _free_ports(count: int) -> list[int]:
    """Ports each other than the others, and none that an outgoing connection could take later."""
    ports: list[int] = []
    while len(ports) < count:
        ports.append(free_port(set(ports)))
    return ports


def use_loopback() -> list[int]:
    """Confine this process's Channel Access to a pool of loopback ports; the pool.

    Call before anything makes a CA context; later calls change nothing.
    """
    if not _pool:
        *ports, repeater = _free_ports(_POOL_SIZE + 1)
        _pool.extend(ports)
        os.environ.update(
            EPICS_CA_ADDR_LIST=" ".join(f"127.0.0.1:{port}" for port in ports),
            EPICS_CA_AUTO_ADDR_LIST="NO",
            EPICS_CA_NAME_SERVERS="",
            EPICS_CA_SERVER_PORT=str(ports[0]),
            EPICS_CA_REPEATER_PORT=str(repeater),
            EPICS_CA_CONN_TMO="5",
            EPICS_CA_MAX_SEARCH_PERIOD="60",
        )
    return _pool


def take_port() -> int:
    """A port of the pool that no IOC of this process has; `return_port` gives it back.

    libca looks at its environment once: every IOC that a client in this process is to find must
    serve on a port of the pool. Raises RuntimeError when all are taken.
    """
    for port in use_loopback():
        if port not in _taken:
            _taken.add(port)
            return port
    raise RuntimeError("every port of the pool has its IOC already")


def return_port(port: int) -> None:
    """Let another IOC have the port."""
    _taken.discard(port)


def server_environment(port: int) -> dict[str, str]:
    """The environment of an IOC that serves on loopback `port` only."""
    return os.environ | {
        "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_SERVER_PORT": str(port),
        "EPICS_CA_SERVER_PORT": str(port),
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
    }


class Ioc:
    """One soft IOC process; use as a context manager, which kills it at the end."""

    def __init__(
        self, folder: Path, database: str, *, access: str = "", hidden: bool = False
    ) -> None:
        """`database` and access rules go to `folder`; the port is one of the pool.

        With `hidden` it is not: no search finds the IOC, and a proxy stands before it.
        """
        self._folder, self._hidden = folder, hidden
        self._port = _free_ports(1)[0] if hidden else take_port()
        self._database, self._access = database, access
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def __enter__(self) -> Ioc:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        if not self._hidden:
            return_port(self._port)

    @property
    def port(self) -> int:
        """Where it serves, on loopback."""
        return self._port

    @property
    def pid(self) -> int:
        """Process id of the running IOC."""
        return self._running_process().pid

    def start(self, database: str | None = None) -> None:
        """Start it, with another database if given; returns when it serves. Raises RuntimeError."""
        self._database = database or self._database
        path = self._folder / f"ioc-{self._port}.db"
        path.write_bytes(self._database.encode("utf-8", "surrogateescape"))
        log = (self._folder / f"ioc-{self._port}.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._ioc_command(path),
                env=server_environment(self._port),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        self._said = queue.SimpleQueue()
        listening = (self._process.stdout, self._said)
        threading.Thread(
            target=_listen_lines, args=listening, name=f"ioc-{self._port}", daemon=True
        ).start()
        self._expect_word("ready", 120)

    def _ioc_command(self, database: Path) -> list[str]:
        command = [sys.executable, "-m", "drey_testing.ca.softioc", str(database)]
        if self._access:
            rules = self._folder / f"ioc-{self._port}.acf"
            rules.write_text(self._access)
            command.append(str(rules))
        return command

    def shell(self, line: str) -> None:
        """Run one iocsh line in the IOC."""
        stdin = self._running_process().stdin
        assert stdin is not None
        stdin.write(line + "\n")
        stdin.flush()
        self._expect_word("done", 120)

    def log(self) -> str:
        """What it has complained about so far."""
        return (self._folder / f"ioc-{self._port}.log").read_text(errors="replace")

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone. Nothing if it is not running."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def _running_process(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the IOC is not running")
        return self._process

    def _expect_word(self, word: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with suppress(queue.Empty):
            while True:
                line = self._said.get(timeout=max(deadline - time.monotonic(), 0))
                if line is None:
                    break
                if line.strip() == word:
                    return
        raise RuntimeError(f"the IOC did not say {word!r}; see {self._folder}")


class CaprotoIoc(Ioc):
    """A process of `drey_testing.ca.caproto_ioc`: it has no database and no shell."""

    def __init__(self, folder: Path) -> None:
        """Logs go to `folder`; the port is one of the pool."""
        super().__init__(folder, "")

    def _ioc_command(self, database: Path) -> list[str]:
        del database
        return [sys.executable, "-m", "drey_testing.ca.caproto_ioc"]


def _listen_lines(stdout: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    """Put every line into the queue, and None at the end. Runs in a thread of its own."""
    with suppress(ValueError):  # closed by kill
        for line in stdout:
            lines.put(line)
    lines.put(None)
