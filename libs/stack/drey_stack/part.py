"""What the embedded servers have in common: folder, address, secret, life cycle."""

import asyncio
import os
import secrets
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import psutil

from drey_stack.errors import PartFailed
from drey_stack.ports import LOOPBACK, free_port, is_free
from drey_stack.private import RunFolder, hold_folder, write_private
from drey_stack.process import Process, tail_lines

DEFAULT_DEADLINE = 300.0
"""Seconds; catches a server that hangs, on a machine of any pace."""
_POLL = 0.01


class Part(ABC):
    """An embedded server in a folder of its own, listening on 127.0.0.1 only, or, with `socket`, on
    a Unix socket that no other user of the machine reaches.

    `port` 0 takes a free port and remembers it in the folder, so that the next start there finds
    the same port (if nobody else took it) and its data. A random password lies in the folder,
    readable by its owner only, and is part of `url`: other users of the host cannot get in.
    One process at a time may run a part in a folder. Use from the main thread.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self, folder: Path, *, port: int = 0, socket: bool = False) -> None:
        self.folder = Path(folder).absolute()
        self.socket = socket
        self._run_folder = RunFolder(self.folder)
        self._wanted_port = port
        self._port: int | None = None
        self._secret = ""
        self._process: Process | None = None
        self._lock: int | None = None

    # ---- what a server has to say about itself

    @abstractmethod
    async def prepare_files(self, deadline: float) -> None:
        """Write configuration and initial data; runs before each start."""

    @abstractmethod
    def spawn_process(self) -> Process:
        """Start the server process."""

    @abstractmethod
    async def answers_requests(self) -> bool:
        """Whether the started process serves requests now."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, password included."""

    @property
    def service_url(self) -> str:
        """Where the services connect, which may be as somebody else."""
        return self.url

    # ---- what users see

    @property
    def port(self) -> int:
        """The TCP port; known from the first start on (RuntimeError before, or with a socket)."""
        if self._port is None:
            raise RuntimeError(f"{self.name} has not been started, or has no port")
        return self._port

    @property
    def password(self) -> str:
        """The folder's password; known from the first start on."""
        return self._secret

    @property
    def pid(self) -> int | None:
        """Id of the server process, None when it isn't running."""
        return self._process.pid if self._process and self._process.running else None

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self.pid is not None

    @property
    def log_path(self) -> Path:
        """Where the server writes its log."""
        return self.folder / f"{self.name}.log"

    async def start(self, deadline: float = DEFAULT_DEADLINE) -> None:
        """Start and return when the server answers; at most `deadline` seconds.

        Does nothing while it runs. After `stop` or `kill` the port stays the same. Raises
        `FolderBusy`, or `PartFailed` with the end of the log. When cancelled or failed, nothing
        is left running.
        """
        if self.running:
            return
        end = time.monotonic() + deadline
        self._take_folder()
        try:
            await self._start_until(end)
        except BaseException:
            await self._abort_start()
            raise

    async def stop(self, grace: float = 10.0) -> None:
        """Stop it in an orderly way, or by force after `grace` seconds; harmless if not running."""
        try:
            if self._process is not None:
                await self._process.stop(self.stop_signal, grace)
        finally:
            self._run_folder.remove_folder()
            self._release_folder()

    async def kill(self) -> None:
        """SIGKILL the server and everything it started, and wait until they are gone.

        The next start has the same address; `stop` removes what is temporary.
        """
        if self._process is not None:
            await self._kill_tree(self._process)
        self._release_folder()

    async def wait(self) -> int:
        """Wait until the server process ends by itself or by others; returns its status."""
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return await self._process.wait()

    async def __aenter__(self) -> Self:
        """Start with the default deadline."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # ---- the life cycle

    async def _start_until(self, end: float) -> None:
        for attempt in range(100):  # 10 s at least, for the last owner to be gone
            if not self.socket:
                await self._choose_port(end, first=attempt == 0)
            await self.prepare_files(self._seconds_left(end))
            self._process = self.spawn_process()
            if await self._until_answer(end):
                if not self.socket:
                    write_private(self.folder / "port", f"{self._port}\n")
                return
            if not self._worth_retrying():
                break
            await asyncio.sleep(0.1)
        raise PartFailed(self.name, "ended during its start", self._log_tail())

    async def _until_answer(self, end: float) -> bool:
        """True when it answers, False when it ended; PartFailed when the time is over."""
        process = self._process
        assert process is not None
        while process.running:
            if await self.answers_requests():
                return True
            if time.monotonic() > end:
                raise PartFailed(self.name, "did not answer in time", self._log_tail())
            await asyncio.sleep(_POLL)
        return False

    def _worth_retrying(self) -> bool:
        """Whether its last words say that the port or the folder was about to become free."""
        words = tail_lines(self.log_path, 12).lower()
        signs = ("address already in use", "already exists", "still in use", "could not bind")
        return any(sign in words for sign in signs)

    async def _choose_port(self, end: float, *, first: bool) -> None:
        fixed = self._port or self._wanted_port
        if fixed:
            await self._wait_free(fixed, min(end, time.monotonic() + 5))
            self._port = fixed
            return
        remembered = self._read_int("port") if first else None
        if remembered:
            # the last owner may have been killed a moment ago, and be still going
            with suppress(PartFailed):
                await self._wait_free(remembered, min(end, time.monotonic() + 1))
                self._port = remembered
                return
        self._port = free_port()

    async def _wait_free(self, port: int, end: float) -> None:
        while not is_free(port, udp=False):
            if time.monotonic() > end:
                raise PartFailed(self.name, f"port {port} on {LOOPBACK} is taken")
            await asyncio.sleep(_POLL)

    def _read_int(self, name: str) -> int | None:
        try:
            return int((self.folder / name).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    async def _abort_start(self) -> None:
        """Leave nothing behind; goes through even when cancelled again."""
        if self._process is not None and self._process.running:
            await self._kill_tree(self._process)
        self._run_folder.remove_folder()
        self._release_folder()

    async def _kill_tree(self, process: Process) -> None:
        """Kill the process and its descendants, those in other sessions too."""
        family: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.kill_group()
        for relative in family:
            with suppress(psutil.NoSuchProcess):
                relative.kill()
        await process.wait()
        # strangers to asyncio: nothing but a look tells that they are gone
        while _alive_processes(family):
            await asyncio.sleep(_POLL)

    def _take_folder(self) -> None:
        if self._lock is not None:
            return
        self._lock = hold_folder(self.folder)
        self._secret = self._load_secret()

    def _release_folder(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _load_secret(self) -> str:
        path = self.folder / "password"
        with suppress(FileNotFoundError):
            if text := path.read_text(encoding="ascii").strip():
                return text
        secret = secrets.token_hex(16)
        write_private(path, secret + "\n")
        return secret

    def _log_tail(self) -> str:
        return tail_lines(self.log_path)

    @staticmethod
    def _seconds_left(end: float) -> float:
        return max(0.1, end - time.monotonic())


def _alive_processes(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie that nobody has fetched yet does not."""
    alive = []
    for member in family:
        with suppress(psutil.NoSuchProcess):
            if member.is_running() and member.status() != psutil.STATUS_ZOMBIE:
                alive.append(member)
    return alive


async def answers_within(action: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """The action's answer, or False where it takes longer or the connection fails."""
    try:
        async with asyncio.timeout(seconds):
            return await action()
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        return False
