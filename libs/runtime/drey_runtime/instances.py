"""Signs of life of this process on NATS, for those who look after the whole."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from drey.events.v1.instances_pb2 import (
    InstanceReport,
    IocReport,
    QueueReport,
    ServedTwiceReport,
)
from drey_core.errors import Unavailable
from drey_core.iocs import DoubleName, IocState, IocTurns
from drey_runtime.app import service_version
from drey_runtime.bus import Bus
from drey_runtime.clock import now_ns

PERIOD_S = 1.0
_DEADLINE_S = 1.0


def instance_name() -> str:
    """Host and process: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class QueueState:
    """How full a queue is; `dropped` counts what was lost because it was full."""

    name: str
    depth: int
    bound: int
    dropped: int = 0


def _no_states() -> Sequence[IocState]:
    return ()


class InstanceReports:
    """Publishes an `InstanceReport` each second. While NATS is away nobody hears of it."""

    def __init__(
        self,
        bus: Bus,
        service: str,
        serving: Callable[[], bool],
        *,
        iocs: Callable[[], Sequence[IocState]] = _no_states,
        doubles: Callable[[], Sequence[DoubleName]] = lambda: (),
        queues: Callable[[], Sequence[QueueState]] = lambda: (),
        describe: Callable[[InstanceReport], None] = lambda report: None,
    ) -> None:
        self._bus, self._service, self._serving = bus, service, serving
        self._iocs, self._doubles, self._queues = iocs, doubles, queues
        self._describe = describe
        self._turns, self._news = IocTurns(), asyncio.Event()
        self._name, self._started_ns = instance_name(), now_ns()

    async def run(self) -> None:
        """Report for ever."""
        subject = self._bus.full_subject("instances", self._service)
        while True:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_DEADLINE_S):
                    await self._bus.publish(subject, self.make_report().SerializeToString())
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._news.wait()
            self._news.clear()

    def report_soon(self) -> None:
        """Have the next report made now."""
        self._news.set()

    def make_report(self) -> InstanceReport:
        """As of now; the next one tells of other IOCs, where there are many."""
        iocs = self._iocs()
        report = InstanceReport(
            service=self._service,
            instance=self._name,
            version=service_version(),
            started_ns=self._started_ns,
            time_ns=now_ns(),
            serving=self._serving(),
            iocs=[_ioc_report(state) for state in self._turns.next_states(iocs)],
            ioc_count=len(iocs),
            queues=[
                QueueReport(name=q.name, depth=q.depth, bound=q.bound, dropped=q.dropped)
                for q in self._queues()
            ],
            served_twice=[
                ServedTwiceReport(
                    name=d.name, taken=d.taken, ignored=d.ignored, since_ns=d.since_ns
                )
                for d in self._doubles()
            ],
        )
        self._describe(report)
        return report


def _ioc_report(state: IocState) -> IocReport:
    return IocReport(
        address=state.address,
        channels=state.channels,
        connected=state.connected,
        timeouts=state.timeouts,
        echo_ns=state.echo_ns,
        silent_since_ns=state.silent_since_ns,
        breaker=state.breaker,  # type: ignore[arg-type]
        breaker_since_ns=state.breaker_since_ns,
        next_probe_ns=state.next_probe_ns,
        reconnected=state.reconnected,
        hung=state.hung,
    )
