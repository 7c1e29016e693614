"""What waits for clients that do not read is bounded in bytes: the longest wait ends first."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from typing import Any

import pytest

from drey_core.errors import Reason, ResourceExhausted
from drey_runtime import stalls
from drey_runtime.stalls import StallGuard, close_connection


class Deaf:
    """A call whose client reads nothing."""

    def peer(self) -> str:
        return "unix:"

    def add_done_callback(self, _callback: Any) -> None:
        """It never ends."""

    async def send_initial_metadata(self, _metadata: Any) -> None:
        """Taken at once."""

    async def write(self, _message: bytes) -> None:
        await asyncio.Event().wait()


async def sending(guard: StallGuard, message: bytes, held: int = 0) -> None:
    with guard.watch_stream(Deaf()) as outgoing:
        outgoing.held_bytes = held
        await outgoing.write_message(message)


async def test_too_many_bytes_end_the_longest_wait():
    guard = StallGuard(cut_s=1e6, max_bytes=1000)
    looking = asyncio.create_task(guard.run())
    first = asyncio.create_task(sending(guard, b"x" * 100, held=500))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(sending(guard, b"x" * 600))
    with pytest.raises(ResourceExhausted) as caught:
        await first
    assert caught.value.reason is Reason.READER_TOO_SLOW
    # what the other waits for is within the bound
    await asyncio.sleep(0.6)
    assert not second.done()
    for task in (second, looking):
        task.cancel()
    await asyncio.gather(second, looking, return_exceptions=True)


async def test_a_timer_that_was_set_while_a_call_was_served_does_not_keep_it():
    """asyncpg sets some of five minutes, and a timer keeps the context in which it was set."""
    with StallGuard(cut_s=1e6, max_bytes=1000).watch_stream(Deaf()) as outgoing:
        timer = asyncio.get_running_loop().call_later(300, asyncio.Event().set)
        assert stalls.current_outgoing() is outgoing
        left = weakref.ref(outgoing)
    del outgoing
    gc.collect()
    assert left() is None
    timer.cancel()


class Dripping(Deaf):
    """A call whose client takes a message now and then."""

    async def write(self, _message: bytes) -> None:
        await asyncio.sleep(0.05)


async def dripping(guard: StallGuard, held: int) -> None:
    with guard.watch_stream(Dripping()) as outgoing:
        while True:
            outgoing.held_bytes = held
            await outgoing.write_message(b"x")


async def test_who_takes_a_little_now_and_then_is_counted_by_what_is_kept(monkeypatch):
    """Each of its messages leaves soon, so that none of them counts as one that waits."""
    monkeypatch.setattr(stalls, "_LATE_S", 0.5)
    guard = StallGuard(cut_s=1e6, max_bytes=1000)
    looking = asyncio.create_task(guard.run())
    large = asyncio.create_task(dripping(guard, 1500))
    await asyncio.sleep(1.5)
    assert not large.done(), "the only one may be sent more"
    second = asyncio.create_task(dripping(guard, 300))
    with pytest.raises(ResourceExhausted) as caught:
        await large
    assert caught.value.reason is Reason.READER_TOO_SLOW
    await asyncio.sleep(0.6)
    assert not second.done()
    for task in (second, looking):
        task.cancel()
    await asyncio.gather(second, looking, return_exceptions=True)


async def test_a_message_that_leaves_in_the_moment_of_the_cut_ends_the_call_too():
    """Else the call would go on, and its connection be closed in the middle."""
    taken = asyncio.Event()

    class Waking(Deaf):
        async def write(self, _message: bytes) -> None:
            await taken.wait()

    with StallGuard(cut_s=1e6, max_bytes=1000).watch_stream(Waking()) as outgoing:
        writing = asyncio.create_task(outgoing.write_message(b"x"))
        await asyncio.sleep(0.01)
        taken.set()
        outgoing.cut_stream(ResourceExhausted("too slow"))
        with pytest.raises(ResourceExhausted):
            await writing


async def test_a_process_that_stood_still_blames_nobody():
    guard = StallGuard(cut_s=1.0, max_bytes=1000)
    looking = asyncio.create_task(guard.run())
    call = asyncio.create_task(sending(guard, b"x"))
    await asyncio.sleep(0.01)
    time.sleep(1.5)  # noqa: ASYNC251  the loop stands still
    await asyncio.sleep(0.3)
    assert not call.done()
    with pytest.raises(ResourceExhausted):
        await call
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_what_a_cut_call_kept_is_let_go_without_a_collection():
    class Kept:
        """What a handler holds."""

    guard, alive = StallGuard(cut_s=0.01, max_bytes=1000), list[Any]()
    looking = asyncio.create_task(guard.run())

    async def call() -> None:
        kept = Kept()
        alive.append(weakref.ref(kept))
        await sending(guard, b"x")

    gc.disable()
    try:
        try:
            await call()
        except ResourceExhausted:
            pass
        else:
            raise AssertionError("the call was not cut")
        assert alive[0]() is None
    finally:
        gc.enable()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


@pytest.mark.parametrize("peer", ["unix:", "unix:/x", "ipv4:127.0.0.1:1", "ipv6:%5B::1%5D:1", "x"])
def test_a_peer_that_is_not_connected_is_left_alone(peer):
    assert not close_connection(peer)
