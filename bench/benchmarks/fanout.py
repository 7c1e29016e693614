"""Two hundred watchers of a thousand PVs each at 10 Hz, over gRPC from one gateway process.

Then the same with ten more that read nothing.

The watchers live in two further processes that only receive, and look into one message of twenty
afterwards. They, the IOC and the monitor share the machine's cores with the gateway.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import psutil

from bench.live import LiveSite, live, ours
from bench.load import shares
from bench.names import readbacks
from bench.report import Result
from drey.common.v1 import selector_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc, watch_pb2

_WATCHERS = 200
_WATCHED = 1_000
_MOVING = 4_000
_CROWDS = 2
_STALLED = 10
_RATE_HZ = 10.0
_SETTLE_S = 2.0
_WINDOW_S = 4.0
_TARGET_MS = 200.0
_LONG_S = 90.0


class Crowd:
    """One process of watchers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def tell(self, what: object) -> None:
        """Send one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        await self.process.stdin.drain()

    async def answer(self) -> dict[str, Any]:
        """Its next line. RuntimeError when it has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(_LONG_S):
            line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("the watchers ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def _start_crowd(site: LiveSite, selections: list[list[str]]) -> AsyncIterator[Crowd]:
    """A process with a watcher for each selection; all have their baseline."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "bench.crowd"],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        crowd = Crowd(process)
        stack = site.site.stack
        await crowd.tell({"server": stack.server, "key": stack.key, "selections": selections})
        await crowd.answer()
        yield crowd
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def _stalled_watcher(site: LiveSite, names: list[str]) -> AsyncIterator[None]:
    """A watcher that never reads a message, over a connection of its own."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(site.site.stack.server, options=options) as channel:
        stub = monitor_service_pb2_grpc.MonitorServiceStub(channel)
        request = monitor_service_pb2.WatchPvsRequest(
            spec=watch_pb2.WatchSpec(selector=selector_pb2.Selector(names=names))
        )
        call = stub.WatchPvs(request, metadata=site.site.call["metadata"])
        await call.initial_metadata()
        try:
            yield
        finally:
            call.cancel()


async def _measure_window(crowds: list[Crowd]) -> dict[str, float]:
    """What the watchers saw over one window: the worst of the processes."""
    # While a report is made nothing is read: what waited meanwhile is no part of the window.
    await asyncio.sleep(_SETTLE_S)
    for crowd in crowds:
        await crowd.tell("clear")
    await asyncio.sleep(_WINDOW_S)
    for crowd in crowds:
        await crowd.tell("report")
    answers = [await crowd.answer() for crowd in crowds]
    worst = {name: max(a[name] for a in answers) for name in answers[0]}
    for name in ("megabytes", "rows"):
        worst[name] = sum(a[name] for a in answers)
    return worst


def _watcher_selections(names: list[str]) -> list[list[str]]:
    """For each watcher consecutive PVs, not from the same one for all."""
    twice = names + names
    watched = min(_WATCHED, len(names))
    return [
        twice[first : first + watched] for first in (i * 97 % len(names) for i in range(_WATCHERS))
    ]


async def run(pvs: int, runs: int) -> Result:
    """A catalog of `pvs`, of which 4,000 move at 10 Hz."""
    result = Result("fanout", pvs)
    mine, moving = await ours(), min(_MOVING, pvs)
    async with live(pvs, mine, moving=moving) as site, AsyncExitStack() as stack:
        selections = _watcher_selections(site.names_of(readbacks(moving)))
        crowds = [
            await stack.enter_async_context(_start_crowd(site, selections[i::_CROWDS]))
            for i in range(_CROWDS)
        ]
        await site.ioc.rate(_RATE_HZ)
        processes = {"gateway": site.process("gateway"), "monitor": site.process("monitor")}
        processes |= {f"crowd{i}": psutil.Process(c.process.pid) for i, c in enumerate(crowds)}
        used = asyncio.create_task(shares(processes, _WINDOW_S))
        plain = [await _measure_window(crowds) for _ in range(runs)]
        stalled = []
        for _ in range(runs):
            # anew for each window: one that reads nothing is cut after half a minute
            async with AsyncExitStack() as readers:
                for names in selections[:_STALLED]:
                    await readers.enter_async_context(_stalled_watcher(site, names))
                stalled.append(await _measure_window(crowds))
        share = await used
    result.figure("p99_ms", [w["p99_ms"] for w in plain], _TARGET_MS)
    result.figure("p99_with_stalled_ms", [w["p99_ms"] for w in stalled], _TARGET_MS)
    result.figure("p50_ms", [w["p50_ms"] for w in plain], None)
    result.figure("worst_watcher_p99_ms", [w["worst_watcher_p99_ms"] for w in plain], None)
    rows = [w["rows"] / _WINDOW_S for w in plain]
    result.figure(
        "rows_per_s", rows, 0.95 * len(selections) * len(selections[0]) * _RATE_HZ, at_least=True
    )
    result.figure("sent_megabytes_per_s", [w["megabytes"] / _WINDOW_S for w in plain], None)
    result.figure("gateway_cpu_share", [share["gateway"]], None)
    clients = sum(value for name, value in share.items() if name.startswith("crowd"))
    result.figure("watchers_cpu_share", [clients], None)
    result.notes.append(f"channel access: {mine}; {_WATCHERS} watchers in {_CROWDS} processes")
    result.notes.append(f"stalled: {_STALLED} more watchers that read nothing")
    result.notes.append("watchers, IOC, monitor and gateway share the cores")
    return result
