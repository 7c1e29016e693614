"""Running something in the foreground until a signal, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from drey_stack.errors import StackError

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A signal ended it; everything it started is gone."""


class Foreground:
    """Made by `foreground()`."""

    def __init__(self) -> None:
        self._signalled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Future[Any] | None = None

    def run_until_stopped(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end. A signal cancels it, once; further ones wait for its clean-up.

        Raises `Interrupted` after a signal.
        """
        return asyncio.run(self._run_watched(main))

    async def _run_watched(self, main: Coroutine[Any, Any, T]) -> T:
        self._loop = asyncio.get_running_loop()
        self._task = task = asyncio.ensure_future(main)
        if self._signalled:
            task.cancel()
        try:
            return await task
        except (asyncio.CancelledError, StackError):
            if self._signalled:
                raise Interrupted from None
            raise
        finally:
            self._loop = None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Cancel what runs, once."""
        if self._signalled:
            return
        self._signalled = True
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)


@contextmanager
def hold_foreground() -> Iterator[Foreground]:
    """In the body a signal is an order to clean up, and interrupts nothing else.

    What the body makes before and removes after `run` is safe from signals too. A hang-up that was
    set to be ignored (nohup) stays ignored.
    """
    scope = Foreground()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, scope.on_signal)
    try:
        yield scope
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def finish_shielded(work: Coroutine[Any, Any, T]) -> T:
    """Run clean-up to its end whatever is cancelled meanwhile; the cancellation is raised then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result
