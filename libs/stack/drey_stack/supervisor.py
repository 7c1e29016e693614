"""Keeps named child processes running, and leaves none behind."""

import asyncio
import enum
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from drey_stack.errors import ChildFailed, StackError
from drey_stack.process import Process, tail_lines


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a child that ended by itself is started again.

    The n-th restart in a row waits `initial_s · factor^(n-1)`, at most `cap_s`, less up to the
    share `jitter` of it; a child that ran for `healthy_s` begins at the first wait again. After
    `limit` restarts in a row the child counts as failed; None means never.
    """

    initial_s: float = 0.1
    factor: float = 2.0
    cap_s: float = 10.0
    jitter: float = 0.25
    healthy_s: float = 10.0
    limit: int | None = None

    def restart_delay(self, restart: int) -> float:
        """Seconds to wait before the `restart`-th restart in a row (from 1)."""
        full = min(self.cap_s, self.initial_s * self.factor ** min(restart - 1, 60))
        return full * (1 - self.jitter * random.random())


NEVER = RestartPolicy(limit=0)


@dataclass(frozen=True, slots=True)
class Child:
    """A program to keep running.

    `env` is its whole environment (the supervisor's if None). Both outputs are appended to `log`.
    `ready` returns when the child serves (it may raise OSError or TimeoutError to be asked
    again); a child without it is ready when started. `stop_grace_s` is the time between SIGTERM
    and SIGKILL.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    log: Path | None = None
    ready: Callable[[], Awaitable[None]] | None = None
    ready_within_s: float = 300.0
    stop_grace_s: float = 10.0
    restart: RestartPolicy = field(default_factory=RestartPolicy)


class ChildState(enum.Enum):
    """Where in its life a child is."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting to be restarted"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """A child at this moment; `restarts` counts all since its start."""

    name: str
    state: ChildState
    pid: int | None
    restarts: int
    last_returncode: int | None


class _Kept:
    """One child and the loop that keeps it running."""

    def __init__(self, child: Child, say: Callable[[str], None]) -> None:
        self.child, self._say = child, say
        self.state = ChildState.STARTING
        self.process: Process | None = None
        self.restarts = 0
        self.last_returncode: int | None = None
        self.failure: ChildFailed | None = None
        self.task: asyncio.Task[None] | None = None
        self.changed = asyncio.Event()

    def child_status(self) -> ChildStatus:
        pid = self.process.pid if self.process and self.process.running else None
        return ChildStatus(self.child.name, self.state, pid, self.restarts, self.last_returncode)

    def become_state(self, state: ChildState) -> None:
        self.state = state
        self.changed.set()
        self.changed = asyncio.Event()

    async def launch_child(self) -> None:
        """Start the process and return when it is ready; ChildFailed otherwise, with it gone."""
        self.become_state(ChildState.STARTING)
        child = self.child
        process = Process.spawn_process(child.argv, env=child.env, cwd=child.cwd, log=child.log)
        self.process = process
        try:
            await self._until_ready(process)
        except BaseException:
            process.kill_group()
            await process.wait()
            self.last_returncode = process.returncode
            raise
        self.become_state(ChildState.READY)

    async def _until_ready(self, process: Process) -> None:
        if self.child.ready is None:
            return
        ready = asyncio.ensure_future(self._ask_ready(self.child.ready))
        ended = asyncio.ensure_future(process.wait())
        try:
            done, _ = await asyncio.wait(
                {ready, ended},
                timeout=self.child.ready_within_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            await _cancel_tasks(ready, ended)
        if ended in done:
            raise self._failure_of("ended before it was ready")
        if ready not in done:
            raise self._failure_of(f"not ready within {self.child.ready_within_s:g} s")
        ready.result()

    @staticmethod
    async def _ask_ready(ready: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(OSError, TimeoutError):
                await ready()
                return
            await asyncio.sleep(0.02)

    def _failure_of(self, reason: str) -> ChildFailed:
        code = self.process.returncode if self.process else None
        text = tail_lines(self.child.log) if self.child.log else ""
        return ChildFailed(self.child.name, reason, code, text)

    async def keep_running(self) -> None:
        """Restart the child each time it ends; returns when it has failed for good."""
        in_a_row = 0
        begun = time.monotonic()
        while True:
            assert self.process is not None
            self.last_returncode = await self.process.wait()
            self.process.kill_group()
            policy = self.child.restart
            in_a_row = 1 if time.monotonic() - begun > policy.healthy_s else in_a_row + 1
            if policy.limit is not None and in_a_row > policy.limit:
                self.failure = self._failure_of("ended, and is not to be restarted")
                self.become_state(ChildState.FAILED)
                return
            self.become_state(ChildState.WAITING)
            self._say(f"{self.child.name} ended{_by(self.last_returncode)}, starting it again")
            await asyncio.sleep(policy.restart_delay(in_a_row))
            self.restarts += 1
            begun = time.monotonic()
            # a restart that fails has ended its process: the loop goes round and waits longer
            with suppress(ChildFailed):
                await self.launch_child()
                self._say(f"{self.child.name} runs again")

    async def stop_child(self) -> None:
        if self.task is not None:
            await _cancel_tasks(self.task)
        if self.process is not None:
            self.last_returncode = await self.process.stop(grace=self.child.stop_grace_s)
        self.become_state(ChildState.STOPPED)


class Supervisor:
    """Starts children one after the other, restarts those that end, stops all in reverse order.

    Children live in sessions of their own, so a Ctrl-C in the terminal reaches the supervisor
    alone, and the kernel kills them when the supervisor is killed. Use from the main thread,
    inside `async with`; leaving it, in whatever way, stops everything.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        """`say` is told of each child that ended and is started again."""
        self._say = say
        self._kept: dict[str, _Kept] = {}
        self._news = asyncio.Event()

    async def start_child(self, child: Child) -> None:
        """Start a child and return when it is ready.

        Raises `ChildFailed` if it ends or takes too long before that: a first start isn't
        repeated. When cancelled, the child is gone.
        """
        if child.name in self._kept:
            raise StackError(f"there is a child named {child.name!r} already")
        kept = _Kept(child, self._say)
        self._kept[child.name] = kept
        try:
            await kept.launch_child()
        except BaseException:
            del self._kept[child.name]
            raise
        kept.task = asyncio.create_task(kept.keep_running(), name=f"keep {child.name}")
        kept.task.add_done_callback(lambda _: self._news.set())
        self._news.set()

    async def stop_child(self, name: str) -> None:
        """Stop one child and forget it. KeyError if there is none of that name."""
        await self._kept[name].stop_child()
        del self._kept[name]

    async def stop_all(self) -> None:
        """Stop all children, the last started first; goes on past a cancellation, by force."""
        while self._kept:
            name = next(reversed(self._kept))
            kept = self._kept[name]
            try:
                await kept.stop_child()
            except BaseException:
                self._kill_all()
                raise
            del self._kept[name]

    def _kill_all(self) -> None:
        for kept in self._kept.values():
            if kept.task is not None:
                kept.task.cancel()
            if kept.process is not None:
                kept.process.kill_group()

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a child's process; if that ends it, it is restarted. For tests and demos."""
        process = self._kept[name].process
        if process is not None:
            process.send_signal(number)

    def child_statuses(self) -> list[ChildStatus]:
        """All children in the order of their start."""
        return [kept.child_status() for kept in self._kept.values()]

    async def wait_for(self, name: str, state: ChildState, *, restarts: int = 0) -> ChildStatus:
        """Wait until a child is in `state` after at least `restarts` restarts. Safe to cancel."""
        kept = self._kept[name]
        while kept.state is not state or kept.restarts < restarts:
            await kept.changed.wait()
        return kept.child_status()

    async def wait_any_failed(self) -> None:
        """Wait until a child has failed for good, then raise its `ChildFailed`. Safe to cancel."""
        while True:
            for kept in self._kept.values():
                if kept.failure is not None:
                    raise kept.failure
                if kept.task is not None and kept.task.done() and not kept.task.cancelled():
                    # a defect in the loop itself, never to be taken for a running child
                    await kept.task
            self._news.clear()
            await self._news.wait()

    async def __aenter__(self) -> Self:
        """Nothing is started yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        await self.stop_all()


def _by(returncode: int) -> str:
    """By a signal, or with a status, as an end is told."""
    return f" by {signal.Signals(-returncode).name}" if returncode < 0 else f" with {returncode}"


async def _cancel_tasks(*tasks: "asyncio.Future[None] | asyncio.Future[int]") -> None:
    """Cancel tasks and wait until they are through; their outcome stays readable on them."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
