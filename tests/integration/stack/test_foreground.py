"""Signals in the foreground: an order to clean up, given once, that interrupts no clean-up."""

import asyncio
import os
import signal

import pytest

from drey_stack.foreground import Interrupted, finish_shielded, hold_foreground


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_before_during_and_after_the_run() -> None:
    cleaned: list[str] = []

    async def job() -> None:
        try:
            interrupt()
            await asyncio.Event().wait()
        finally:
            interrupt()
            await finish_shielded(asyncio.sleep(0))
            cleaned.append("job")

    async def nothing() -> None:
        cleaned.append("began")
        await asyncio.Event().wait()

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted), hold_foreground() as front:
        try:
            front.run_until_stopped(job())
        finally:
            interrupt()
            cleaned.append("folder")
    with pytest.raises(Interrupted), hold_foreground() as front:
        interrupt()
        front.run_until_stopped(nothing())
    assert cleaned == ["job", "folder"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with hold_foreground() as front:
            os.kill(os.getpid(), signal.SIGHUP)
            front.run_until_stopped(asyncio.sleep(0))
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_clean_up_goes_on_past_a_cancellation() -> None:
    done = asyncio.Event()
    allowed = asyncio.Event()

    async def work() -> None:
        await allowed.wait()
        done.set()

    task = asyncio.create_task(finish_shielded(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    allowed.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
