"""Two hundred screens that watch the drift of all PVs from one snapshot, at one gateway process.

A tenth of the PVs moves at 10 Hz; a hundredth of these is beyond its tolerance, so that each look
at them has something to tell. What the gateway uses without a screen, which folds the values in any
case, is measured before, and taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from bench.live import LiveSite, live, ours
from bench.load import shares
from bench.names import catalog_csv
from bench.report import Result
from drey.monitor.v1 import monitor_service_pb2 as pb

_SCREENS = 200
_CHANNELS = 10
_MOVING_SHARE, _BEYOND_SHARE = 0.1, 0.01
_WIDE = "1e12"
"""Tolerance that nothing that moves ever leaves."""
_RATE_HZ = 10.0
_SETTLE_S = 3.0
_WINDOW_S = 5.0
_BASELINES_S = 120.0
_TARGET_SHARE = 0.2
_METHOD = "/drey.monitor.v1.MonitorService/WatchDrift"
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
_END = b"\x1a"
"""Begins the message that ends a baseline."""


class Screen:
    """One that only receives; nothing is decoded."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.ready = asyncio.Event()
        self.messages = self.size = 0

    async def run(self) -> None:
        """Until the call is cancelled."""
        async for message in self._call:
            self.messages += 1
            self.size += len(message)
            if message[:1] == _END:
                self.ready.set()


def _open_call(channel: Any, request: bytes, metadata: Any) -> Any:
    return channel.unary_stream(_METHOD)(request, metadata=metadata)


async def _widen_tolerances(site: LiveSite, pvs: int, first: int, last: int) -> None:
    """Give the PVs from `first` to `last` a tolerance that they stay within."""
    head, *lines = catalog_csv(pvs, both=False).decode().splitlines()
    lines[first:last] = [f"{line.rpartition(',')[0]},{_WIDE}" for line in lines[first:last]]
    await site.site.import_csv("\n".join([head, *lines, ""]).encode())


@asynccontextmanager
async def _screens(site: LiveSite, snapshot_id: str, count: int) -> AsyncIterator[list[Screen]]:
    """So many screens, each with its baseline."""
    spec = pb.DriftSpec(hysteresis=0.8)
    spec.reference.snapshot_id = snapshot_id
    request = pb.WatchDriftRequest(spec=spec).SerializeToString()
    async with AsyncExitStack() as stack:
        server = site.site.stack.server
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server, options=_OPTIONS))
            for _ in range(min(_CHANNELS, count))
        ]
        calls: list[Any] = [
            _open_call(channels[n % len(channels)], request, site.site.call["metadata"])
            for n in range(count)
        ]
        screens = [Screen(call) for call in calls]
        tasks = [asyncio.create_task(screen.run()) for screen in screens]
        try:
            async with asyncio.timeout(_BASELINES_S):
                await asyncio.gather(*(screen.ready.wait() for screen in screens))
            yield screens
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def run(pvs: int, runs: int) -> Result:
    """A catalog of `pvs`."""
    result = Result("drift", pvs)
    mine, moving = await ours(), round(pvs * _MOVING_SHARE)
    beyond = max(round(moving * _BEYOND_SHARE), 1)
    async with live(pvs, mine, moving=moving) as site:
        await _widen_tolerances(site, pvs, beyond, moving)
        snapshot_id = (await site.site.take()).id
        await site.ioc.rate(_RATE_HZ)
        process = {"gateway": site.process("gateway")}

        async def used() -> float:
            await asyncio.sleep(_SETTLE_S)
            return (await shares(process, _WINDOW_S))["gateway"]

        base = [await used() for _ in range(runs)]
        async with _screens(site, snapshot_id, 1):
            one = [await used() for _ in range(runs)]
        async with _screens(site, snapshot_id, _SCREENS) as screens:
            before = sum(s.messages for s in screens), sum(s.size for s in screens)
            many = [await used() for _ in range(runs)]
            seconds = runs * (_SETTLE_S + _WINDOW_S)
            messages = (sum(s.messages for s in screens) - before[0]) / seconds
            megabytes = (sum(s.size for s in screens) - before[1]) / seconds / 1e6
    idle = sorted(base)[len(base) // 2]
    result.figure("cpu_share_200_screens", [share - idle for share in many], _TARGET_SHARE)
    result.figure("cpu_share_1_screen", [share - idle for share in one], None)
    result.figure("gateway_cpu_share_without", base, None)
    result.figure("messages_per_s", [messages], None)
    result.figure("sent_megabytes_per_s", [megabytes], None)
    result.notes.append(
        f"channel access: {mine}; {moving} PVs move at {_RATE_HZ:g} Hz, {beyond} differ"
    )
    result.notes.append("screens, IOC, monitor and gateway share the cores")
    return result
