"""Leases in a world whose time is an argument: hosts with clocks of their own, one API server.

Each host runs the real `KubernetesLease` on an event loop that takes its time from here. Hosts can
be stopped and go on, die, be cut off, and send writes that arrive late; nothing waits for real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from drey_core.election import LeaseRecord, first_epoch
from drey_core.errors import Unavailable
from drey_runtime.lease import LeaseLost, Term
from drey_runtime.lease_kubernetes import KubernetesLease

T = TypeVar("T")
NAME = "shard-0"
DURATION_S = 4.0
STEP_S = 0.125
BEGIN_S = 1_700_000_000.0


@dataclass(eq=False)
class LeaseRequest:
    """One request under way."""

    host: Host
    act: Callable[[], Any]
    answer: asyncio.Future[Any]
    late: bool


class LeaseWorld:
    """True time, the API server, the image's epoch, and the hosts."""

    def __init__(self) -> None:
        self.now = 0.0
        self.up = True
        self.lease: LeaseRecord | None = None
        self.image_epoch = 0
        self.epochs: list[int] = []
        """Of all terms, in the order in which they began."""
        self.hosts: list[Host] = []
        self._calls: list[LeaseRequest] = []
        self._numbers = 0

    def number(self) -> str:
        """A version or uid that was never given before."""
        self._numbers += 1
        return str(self._numbers)

    def make_lease(self) -> None:
        """As the deployment makes it: without a holder, without a past."""
        self.lease = LeaseRecord(self.number(), self.number(), "", 0, 0, "", False)

    def call(self, host: Host, act: Callable[[], T]) -> asyncio.Future[T]:
        """Send a request; what becomes of it is decided in `pass_time`."""
        answer: asyncio.Future[T] = host.loop.create_future()
        self._calls.append(LeaseRequest(host, act, answer, host.late))
        return answer

    def is_asking(self, host: Host) -> bool:
        """Whether a request of it is on its way."""
        return any(call.host is host for call in self._calls)

    def arrive_late(self) -> None:
        """What was held up on its way arrives now, whoever sent it."""
        for call in self._calls:
            call.late = False

    def pass_time(self, seconds: float, check: Callable[[], None]) -> None:
        """Go on in steps; `check` runs after each."""
        for _ in range(max(1, round(seconds / STEP_S))):
            self.now += STEP_S
            for call in [c for c in self._calls if not c.late]:
                self._calls.remove(call)
                self._arrive(call)
            for host in self.hosts:
                host.run()
            check()

    def _arrive(self, call: LeaseRequest) -> None:
        if not self.up or call.host.cut:
            return  # the sender's time-out tells it
        result = call.act()
        if not call.host.deaf and not call.answer.done():
            call.answer.set_result(result)

    def valid_hosts(self) -> list[Host]:
        """Those that may publish at this instant."""
        return [h for h in self.hosts if not h.dead and h.term is not None and h.term.still_valid]


class Host:
    """A monitor's process: holds the lease whenever it can."""

    def __init__(self, world: LeaseWorld, name: str, rate: float, wall_s: float) -> None:
        self.world = world
        self.wall_s = wall_s
        self.term: Term | None = None
        self.stopped = self.dead = self.cut = self.deaf = self.late = False
        self._rate = rate
        self._born = world.now
        self.loop = asyncio.new_event_loop()
        self.loop.time = self.clock  # type: ignore[method-assign]
        lease = KubernetesLease(Objects(self), holder=name, duration_s=DURATION_S, clock=self.clock)
        self.task = self.loop.create_task(self._own(lease))
        world.hosts.append(self)

    def clock(self) -> float:
        """Seconds since this host's boot, by its own oscillator."""
        return 1000.0 + (self.world.now - self._born) * self._rate

    async def floor(self) -> int:
        """As the monitor asks for it."""
        wall_ns = int((BEGIN_S + self.world.now + self.wall_s) * 1e9)
        return max(self.world.image_epoch, first_epoch(wall_ns))

    async def _own(self, lease: KubernetesLease) -> None:
        while True:
            with suppress(LeaseLost):
                async with lease.held(NAME, floor=self.floor) as term:
                    self.term = term
                    self.world.epochs.append(term.epoch)
                    self.world.image_epoch = max(self.world.image_epoch, term.epoch)
                    await asyncio.Event().wait()
            self.term = None

    def run(self) -> None:
        """Let the process do all that is due now."""
        if self.stopped or self.dead:
            return
        while True:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            if not getattr(self.loop, "_ready"):  # noqa: B009  private; there is no other way
                break
        if self.task.done() and not self.task.cancelled():
            # it waits for the lease, or has it, until it is cancelled
            self.task.result()

    def close(self) -> None:
        """End the loop, at the end of the test."""
        self.stopped = self.dead = False
        self.task.cancel()
        for _ in range(40):
            self.run()
            self.world.now += DURATION_S
            if self.task.done():
                break
        self.loop.close()


class Objects:
    """`LeaseObjects` of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def read_record(self, name: str) -> LeaseRecord | None:
        """As the port says."""
        return await self._call(lambda: self._host.world.lease)

    async def write_record(
        self, name: str, after: LeaseRecord, holder: str, epoch: int, *, take: bool
    ) -> LeaseRecord | None:
        """As the port says."""
        return await self._call(lambda: self._apply(after, holder, epoch))

    async def _call(self, act: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(DURATION_S / 4):
                return await self._host.world.call(self._host, act)
        except TimeoutError as error:
            raise Unavailable("the API server is away") from error

    def _apply(self, after: LeaseRecord, holder: str, epoch: int) -> LeaseRecord | None:
        world = self._host.world
        stored = world.lease
        if stored is None or (stored.uid, stored.version) != (after.uid, after.version):
            return None
        number = world.number()
        world.lease = replace(
            stored,
            version=number,
            holder=holder,
            epoch=epoch,
            duration_s=DURATION_S,
            renewed=number,
            given_back=not holder,
        )
        return world.lease
