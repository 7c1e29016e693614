"""A child process that cannot outlive its parent, as seen from asyncio."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drey_stack.private import UMASK, open_log

_LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class User:
    """Whom to become, with none of root's rights."""

    uid: int
    gid: int


class Process:
    """A running child in its own session, which the kernel ends when the parent is gone.

    Made by `spawn`; to be used on the event loop and the thread that spawned it.
    """

    def __init__(self, popen: subprocess.Popen[bytes], log: Path | None) -> None:
        self._popen = popen
        self._log = log
        self._ended = asyncio.Event()
        self._fd = os.pidfd_open(popen.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._reap_child)

    @classmethod
    def spawn_process(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        user: User | None = None,
        stdin: int = subprocess.DEVNULL,
        descriptors: Sequence[int] = (),
    ) -> "Process":
        """Start `argv` at once: no await, so no cancellation can fall in between.

        `env` is the whole environment (the parent's if absent); `log` is appended to with both
        outputs, which go to /dev/null if absent. `stdin` (a descriptor) is read, and `descriptors`
        stay open in it, numbers included. What it makes is for its own user (umask 077). Blocks for
        about 2 ms. Raises RuntimeError outside of the main thread: the kernel ties a child to the
        *thread* that made it. Raises OSError when the program isn't found.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("children are tied to the thread that starts them: use the main one")
        program = shutil.which(argv[0])
        if program is None:
            raise FileNotFoundError(f"no such program: {argv[0]}")
        options = {
            "parent": os.getpid(),
            "death_signal": int(death_signal),
            "user": [user.uid, user.gid] if user else None,
        }
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(options)]
        output = open_log(log) if log else subprocess.DEVNULL
        try:
            popen = subprocess.Popen(
                [*launcher, program, *argv[1:]],
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
                umask=UMASK,
                pass_fds=descriptors,
            )
        finally:
            if log:
                os.close(output)
        return cls(popen, log)

    @property
    def pid(self) -> int:
        """Process id; also the id of its session and group."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._popen.returncode

    @property
    def running(self) -> bool:
        """Whether it has not been seen to end."""
        return not self._ended.is_set()

    def _reap_child(self) -> None:
        if self._popen.poll() is None:
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._ended.set()

    async def wait(self) -> int:
        """Wait for its end and return the status. Safe to cancel, and to call again."""
        await self._ended.wait()
        return int(self._popen.returncode)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process itself; nothing happens if it has ended."""
        if self.running:
            with suppress(ProcessLookupError):
                self._popen.send_signal(number)

    def kill_group(self) -> None:
        """SIGKILL everything in its group, also what an ended leader left behind."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, number: signal.Signals = signal.SIGTERM, grace: float = 5.0) -> int:
        """Ask it to end, wait at most `grace` seconds, then kill its group; return the status.

        When cancelled, the group is killed before the cancellation goes on.
        """
        self.send_signal(number)
        try:
            async with asyncio.timeout(grace):
                await self.wait()
        except TimeoutError:
            pass
        finally:
            self.kill_group()
        return await self.wait()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log, for error messages; empty without a log."""
        return tail_lines(self._log, lines) if self._log else ""


def tail_lines(path: Path, lines: int = 20) -> str:
    """The last `lines` lines of a text file (of its last 16 KiB); empty if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
