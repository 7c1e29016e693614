"""What every `Lease` promises, as tests: derive a class from `LeaseSuite` and give it a `site`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import pytest

from drey_runtime.lease import Floor, Lease, LeaseLost, Term, no_floor

WAIT_S = 60.0
"""Catches a hang; a lease moves within seconds, on a machine of any pace."""


class LeaseSite(Protocol):
    """A real server with leases, and what can happen to it."""

    stopped_is_followed: bool
    """Whether others follow a holder that is stopped, and not dead."""

    def lease(self, owner: str) -> Lease:
        """A lease of a process of its own, so to speak."""
        ...

    def program(self, name: str) -> Sequence[str]:
        """A program that holds `name`, says its epoch in a line, and `valid` or not with each
        line that it reads.
        """
        ...

    async def wipe(self) -> None:
        """Lose everything that is known of leases. Nobody holds one now."""
        ...

    async def take_from(self, name: str) -> None:
        """Let the holder of `name` lose it, for good."""
        ...

    async def away(self) -> None:
        """The server does not answer."""
        ...

    async def back(self) -> None:
        """It answers again."""
        ...


@asynccontextmanager
async def holding(lease: Lease, name: str, floor: Floor = no_floor) -> AsyncIterator[Term]:
    """`lease.held` within a bounded time."""
    async with asyncio.timeout(WAIT_S) as limit, lease.held(name, floor=floor) as term:
        limit.reschedule(None)
        yield term


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for a condition that has no event of its own."""
    async with asyncio.timeout(WAIT_S):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)


class HoldingProgram:
    """A process that holds a lease."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def started(cls, site: LeaseSite, name: str) -> AsyncIterator[HoldingProgram]:
        """Runs until the end of the body."""
        process = await asyncio.create_subprocess_exec(
            *site.program(name), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            yield cls(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def line(self) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            return (await self._process.stdout.readline()).decode().strip()

    async def is_valid(self) -> bool:
        """Whether it would publish now, by its own judgement."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return await self.line() == "valid"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._process.pid, number)


class LeaseSuite:
    """One owner at a time, and epochs that only grow."""

    async def test_epochs_only_grow(self, site: LeaseSite) -> None:
        epochs = []
        for owner in ("a", "a", "b", "a"):
            async with holding(site.lease(owner), "shard-0") as term:
                assert term.still_valid
                epochs.append(term.epoch)
            assert not term.still_valid
        assert epochs == sorted(set(epochs))

        async def seen_in_image() -> int:
            return epochs[-1] + 41

        async with holding(site.lease("a"), "shard-0", seen_in_image) as term:
            assert term.epoch == epochs[-1] + 42
        async with holding(site.lease("b"), "shard-0") as term:
            assert term.epoch == epochs[-1] + 43

    async def test_epochs_grow_though_the_memory_is_wiped(self, site: LeaseSite) -> None:
        async with holding(site.lease("a"), "shard-0") as first:
            pass
        await site.wipe()

        async def seen_in_image() -> int:
            return first.epoch

        async with holding(site.lease("a"), "shard-0", seen_in_image) as term:
            assert term.epoch > first.epoch

    async def test_one_holder_and_names_apart(self, site: LeaseSite) -> None:
        inside = 0
        most = 0

        async def compete(owner: str) -> None:
            nonlocal inside, most
            async with holding(site.lease(owner), "shard-0"):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.02)
                inside -= 1

        async with holding(site.lease("x"), "shard-1"):
            await asyncio.gather(*(compete(f"w{n}") for n in range(4)))
        assert most == 1

    async def test_a_killed_holder_is_followed(self, site: LeaseSite) -> None:
        async with HoldingProgram.started(site, "shard-0") as program:
            first = int(await program.line())
            got: asyncio.Future[int] = asyncio.get_running_loop().create_future()

            async def follow() -> None:
                async with holding(site.lease("standby"), "shard-0") as term:
                    got.set_result(term.epoch)

            task = asyncio.create_task(follow())
            await asyncio.sleep(0.3)
            assert not got.done()
            program.send(signal.SIGKILL)
            async with asyncio.timeout(WAIT_S):
                assert await got > first
                await task

    async def test_who_goes_on_after_a_stop_is_not_valid_beside_another(
        self, site: LeaseSite
    ) -> None:
        """Stopped until somebody else has it, or, where none can, for long: then goes on."""
        async with HoldingProgram.started(site, "shard-0") as program:
            first = int(await program.line())
            assert await program.is_valid()
            program.send(signal.SIGSTOP)
            if not site.stopped_is_followed:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(3), site.lease("other").held("shard-0"):
                        pass
                program.send(signal.SIGCONT)
                assert await program.is_valid()
                return
            async with holding(site.lease("other"), "shard-0") as term:
                assert term.epoch > first
                program.send(signal.SIGCONT)
                # asked at once: its own loop may not have had a turn yet
                assert not await program.is_valid()
                assert not await program.is_valid()
                assert term.still_valid

    async def test_loss_cancels_the_body(self, site: LeaseSite) -> None:
        with pytest.raises(LeaseLost):
            async with holding(site.lease("a"), "shard-0") as term:
                await site.take_from("shard-0")
                async with asyncio.timeout(WAIT_S):
                    await asyncio.Event().wait()
        assert term.lost.is_set() and not term.still_valid
        # the task itself is not left cancelled
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0

    async def test_a_loss_while_the_body_ends_for_another_reason_leaves_nothing(
        self, site: LeaseSite
    ) -> None:
        lease = site.lease("a")

        async def end_late(term: Term) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                # the group is ending by now, and drops what comes meanwhile
                await site.take_from("shard-0")
                async with asyncio.timeout(WAIT_S):
                    await term.lost.wait()

        with pytest.raises(ExceptionGroup):
            async with holding(lease, "shard-0") as term, asyncio.TaskGroup() as group:
                group.create_task(end_late(term))
                await asyncio.sleep(0)
                raise ZeroDivisionError
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        async with holding(lease, "shard-1") as term:
            assert term.still_valid

    async def test_a_cancel_from_outside_stays_a_cancel(self, site: LeaseSite) -> None:
        inside = asyncio.Event()

        async def body() -> None:
            async with holding(site.lease("a"), "shard-0"):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        async with asyncio.timeout(WAIT_S):
            await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with holding(site.lease("b"), "shard-0"):
            pass

    async def test_an_error_in_the_body_passes_and_frees(self, site: LeaseSite) -> None:
        with pytest.raises(ZeroDivisionError):
            async with holding(site.lease("a"), "shard-0"):
                raise ZeroDivisionError
        async with holding(site.lease("b"), "shard-0"):
            pass

    async def test_one_that_waits_and_gives_up_leaves_it_free(self, site: LeaseSite) -> None:
        holder, other = site.lease("a"), site.lease("b")
        async with holding(holder, "shard-0"):
            for _ in range(5):
                waiting = asyncio.create_task(_enter(other, "shard-0"))
                await asyncio.sleep(0.01)
                waiting.cancel()
                await asyncio.wait({waiting})
        # cancelled in the middle of taking what is free
        for number in range(10):
            taking = asyncio.create_task(_enter(other, "shard-1"))
            await asyncio.sleep(0.002 * number)
            taking.cancel()
            await asyncio.wait({taking})
            async with holding(holder, "shard-1"):
                pass

    async def test_it_waits_for_a_server_that_is_away(self, site: LeaseSite) -> None:
        await site.away()
        task = asyncio.create_task(_enter(site.lease("a"), "shard-0"))
        await asyncio.sleep(0.3)
        assert not task.done()
        await site.back()
        async with asyncio.timeout(WAIT_S):
            await task

    async def test_it_is_held_through_a_short_absence_of_the_server(self, site: LeaseSite) -> None:
        async with holding(site.lease("a"), "shard-0") as term:
            epoch = term.epoch
            await site.away()
            await asyncio.sleep(0.3)
            await site.back()
            await until(lambda: term.still_valid)
            assert not term.lost.is_set()
            assert term.epoch >= epoch


async def _enter(lease: Lease, name: str) -> None:
    async with lease.held(name):
        pass


async def say_whether_valid(lease: Lease, name: str) -> None:
    """The body of `LeaseSite.program`: reads lines until there are no more."""
    with suppress(LeaseLost):
        async with lease.held(name) as term:
            print(term.epoch, flush=True)
            loop = asyncio.get_running_loop()
            lines: asyncio.Queue[bytes] = asyncio.Queue()
            loop.add_reader(sys.stdin.fileno(), lambda: lines.put_nowait(os.read(0, 1)))
            try:
                while await lines.get():
                    print("valid" if term.still_valid else "not valid", flush=True)
            except asyncio.CancelledError:
                # lost: whoever asks shall have an answer all the same
                while await lines.get():
                    print("not valid", flush=True)
                raise
