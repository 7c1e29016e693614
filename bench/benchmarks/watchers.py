"""What watchers cost before anything moves: a thousand idle ones, a baseline, a hundred at once.

The image is written by the benchmark, without a monitor. Clients take bytes and look at no more
than what kind of message each is; they are one process, which is this one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import grpc
import psutil

from bench.load import cpu_seconds
from bench.report import Result
from bench.site import EVERYTHING, BenchSite, site
from drey.common.v1 import form_pb2, selector_pb2
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import watch_pb2

_WATCHERS, _CHANNELS = 1_000, 20
_AT_ONCE = 100
_WATCHED = 1_000
"""PVs of one screen."""
_MEMORY_MB, _ROWS_S, _COLUMNS_S, _RECONNECT_S = 250.0, 0.15, 0.05, 2.0
_IDLE_S = 5.0
_HANGS_S = 300.0
_AGAIN_S = 0.02
_METHOD = "/drey.monitor.v1.MonitorService/WatchPvs"
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16 << 20),
]
_BASELINE_END = b"\x1a"
"""Begins the message that ends a baseline."""


def _encode_request(names: Sequence[str] = (), form: int = 0, token: str = "") -> bytes:
    selector = selector_pb2.Selector(names=names) if names else EVERYTHING
    spec = watch_pb2.WatchSpec(selector=selector, form=form)  # type: ignore[arg-type]
    return pb.WatchPvsRequest(spec=spec, token=token).SerializeToString()


async def _read_baseline(call: Any) -> str:
    """Read until the client holds the truth; the token that names it."""
    async for message in call:
        if message[:1] == _BASELINE_END:
            return pb.WatchPvsResponse.FromString(message).baseline_end.token
    raise RuntimeError("the watch ended before its baseline")


class WatchingScreen:
    """A client with a connection of its own, which it makes anew each time."""

    def __init__(self, bench_site: BenchSite, names: Sequence[str]) -> None:
        self._site, self._names = bench_site, names
        self.token = ""

    async def hold_truth(self) -> None:
        """Connect, from the token if there is one, as often as it takes to hold the truth."""
        request = _encode_request(self._names, token=self.token)
        while True:
            server = self._site.stack.server
            async with grpc.aio.insecure_channel(server, options=_OPTIONS) as channel:
                method: Any = channel.unary_stream(_METHOD)
                call = method(request, metadata=self._site.call["metadata"])
                try:
                    self.token = await _read_baseline(call)
                    return
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                finally:
                    call.cancel()
            await asyncio.sleep(_AGAIN_S)


def _gateway(bench_site: BenchSite) -> psutil.Process:
    (pid,) = [
        status.pid
        for status in bench_site.stack.supervisor.child_statuses()
        if status.name == "gateway"
    ]
    assert pid is not None
    return psutil.Process(pid)


async def _measure_baseline(bench_site: BenchSite, form: int) -> tuple[float, float]:
    """Seconds until the client holds all PVs, and seconds of CPU that the gateway took."""
    gateway = _gateway(bench_site)
    await bench_site.drift()  # no row is encoded yet
    await _until_folded(bench_site)
    method: Any = bench_site.channel.unary_stream(_METHOD)
    used, begin = cpu_seconds(gateway), time.perf_counter()
    call = method(_encode_request(form=form), metadata=bench_site.call["metadata"])
    await _read_baseline(call)
    took = time.perf_counter() - begin
    call.cancel()
    return took, cpu_seconds(gateway) - used


async def _until_folded(bench_site: BenchSite) -> None:
    """Until the gateway has read what was written last, and rests."""
    gateway = _gateway(bench_site)
    async with asyncio.timeout(_HANGS_S):
        while True:
            used = cpu_seconds(gateway)
            await asyncio.sleep(0.5)
            if cpu_seconds(gateway) - used < 0.1:
                return


async def _measure_idle(bench_site: BenchSite, screens: Sequence[list[str]]) -> tuple[float, float]:
    """Megabytes of the gateway with these watchers, and the cores that it takes then."""
    gateway = _gateway(bench_site)
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(bench_site.stack.server, options=_OPTIONS)
            )
            for _ in range(_CHANNELS)
        ]
        methods: list[Any] = [channel.unary_stream(_METHOD) for channel in channels]
        calls, readers = [], []
        # gRPC cancels a call that its server has not begun within 30 s: few at a time
        for start in range(0, len(screens), _CHANNELS):
            opened = [
                methods[n % _CHANNELS](_encode_request(names), metadata=bench_site.call["metadata"])
                for n, names in enumerate(screens[start : start + _CHANNELS])
            ]
            async with asyncio.timeout(_HANGS_S):
                await asyncio.gather(*(_read_baseline(call) for call in opened))
            readers += [asyncio.create_task(_read_all(call)) for call in opened]
            calls += opened
        used = cpu_seconds(gateway)
        await asyncio.sleep(_IDLE_S)
        share = (cpu_seconds(gateway) - used) / _IDLE_S
        megabytes = gateway.memory_info().rss / 1e6
        for call in calls:
            call.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    return megabytes, share


async def _read_all(call: Any) -> None:
    async for _ in call:
        pass


async def _all_at_once(
    bench_site: BenchSite, screens: Sequence[WatchingScreen], before: Callable[[], Awaitable[None]]
) -> float:
    """Seconds from `before`'s end until the last of them holds the truth."""
    await before()
    begin = time.perf_counter()
    async with asyncio.timeout(_HANGS_S):
        await asyncio.gather(*(screen.hold_truth() for screen in screens))
    return time.perf_counter() - begin


def _choose_screens(names: Sequence[str], count: int) -> list[list[str]]:
    """For each, consecutive PVs, not from the same one for all."""
    watched = min(_WATCHED, len(names))
    twice = [*names, *names]
    return [twice[n * 97 % len(names) :][:watched] for n in range(count)]


async def run(pvs: int, runs: int) -> Result:
    """A catalog of `pvs`; each screen watches a thousand of them."""
    result = Result("watchers", pvs)
    rows, columns, resumed, whole, killed, idle = [], [], [], [], [], []
    async with site(pvs) as bench_site:
        await bench_site.until_known()
        selections = _choose_screens(bench_site.directory.names, _WATCHERS)
        screens = [WatchingScreen(bench_site, names) for names in selections[:_AT_ONCE]]

        async def forget() -> None:
            for screen in screens:
                screen.token = ""
            await bench_site.drift()
            await _until_folded(bench_site)

        async def change() -> None:
            await bench_site.drift()
            await _until_folded(bench_site)

        async def kill() -> None:
            bench_site.stack.supervisor.kill("gateway")

        for _ in range(runs):
            rows.append(await _measure_baseline(bench_site, form_pb2.VALUE_FORM_ROWS))
            columns.append(await _measure_baseline(bench_site, form_pb2.VALUE_FORM_COLUMNS))
            whole.append(await _all_at_once(bench_site, screens, forget))
            resumed.append(await _all_at_once(bench_site, screens, change))
        for _ in range(runs):
            idle.append(await _measure_idle(bench_site, selections))
        for _ in range(runs):
            killed.append(await _all_at_once(bench_site, screens, kill))
    result.figure("idle_1000_mb", [megabytes for megabytes, _ in idle], _MEMORY_MB)
    result.figure("idle_1000_cpu_share", [share for _, share in idle], None)
    result.figure("baseline_rows_s", [took for took, _ in rows], _ROWS_S)
    result.figure("baseline_columns_s", [took for took, _ in columns], _COLUMNS_S)
    result.figure("baseline_rows_cpu_s", [used for _, used in rows], None)
    result.figure("baseline_columns_cpu_s", [used for _, used in columns], None)
    result.figure("reconnect_resumed_s", resumed, _RECONNECT_S)
    result.figure("reconnect_whole_s", whole, _RECONNECT_S)
    result.figure("reconnect_killed_s", killed, None)
    result.notes.append(f"{_AT_ONCE} clients reconnect, each over a connection of its own")
    result.notes.append(f"screens of {_WATCHED:,} PVs; `killed`: from kill -9 of the gateway on")
    result.notes.append("without a monitor: the image is written by the benchmark")
    return result
