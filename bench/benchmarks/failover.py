"""The owner of the shard is killed with `kill -9`: time to fresh values at the watcher.

And it is stopped with SIGTERM, upon which it hands over: the longest time without values there.
Both by the embedded lock, and by a Kubernetes Lease; the kill without and with a warm standby.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from bench.live import LiveSite, live, ours
from bench.names import readbacks
from bench.report import Result
from bench.watcher import Watcher, stamp, watching
from drey.events.v1.instances_pb2 import InstanceReport
from drey.monitor.v1 import monitor_service_pb2
from drey_runtime.bus import Bus
from drey_runtime.nats_client import Msg
from drey_runtime.settings import CommonSettings
from drey_testing.cluster.api_server import ApiServer
from drey_testing.cluster.programs import ProgramsMissing

_MOVING = 400
_RATE_HZ = 10.0
_LONG_S = 60.0
_TARGET_S, _LEASE_TARGET_S = 1.0, 6.0
_HAND_OVER_S = 1.0
_KNOWN_S = 3.0
"""Owner and standby have heard of each other."""
_AFTER_S = 2.0
_NAMESPACE = "bench"
_WARM = {"DREY_MONITOR_WARM_STANDBYS": "1"}


class _Fresh:
    """Hears when every watched PV has a value that the IOC stamped after the kill."""

    def __init__(self, watcher: Watcher, wanted: int) -> None:
        self._wanted = wanted
        self._seen: set[int] = set()
        self._since = 0
        self.done = asyncio.Event()
        watcher.on_message = self._look_at

    def wait_from(self, since_ns: int) -> None:
        """Begin anew."""
        self._since = since_ns
        self._seen.clear()
        self.done.clear()

    def _look_at(self, message: bytes) -> None:
        if self.done.is_set() or not self._since:
            return
        for row in monitor_service_pb2.WatchPvsResponse.FromString(message).diff.rows:
            if stamp(row) > self._since:
                self._seen.add(row.number)
        if len(self._seen) == self._wanted:
            self.done.set()


async def _owner_pid(site: LiveSite) -> int:
    """Process id of the monitor that owns the shard, by its heartbeat."""
    (beat,) = await site.site.image.read_heartbeats(1)
    if beat is None:
        raise RuntimeError("the shard has no owner")
    return int(beat.owner.rpartition(":")[2])


class _Reports:
    """The last report of each monitor."""

    def __init__(self) -> None:
        self._reports: dict[str, InstanceReport] = {}

    @classmethod
    @asynccontextmanager
    async def listening(cls, nats_url: str) -> AsyncIterator[_Reports]:
        """Listens during the body."""
        reports, bus = cls(), Bus(nats_url, CommonSettings().namespace, "bench-reports")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(bus.run())
            await bus.subscribe_handler(
                bus.full_subject("instances", "monitor"), reports._note_report
            )
            yield reports
            task.cancel()

    async def _note_report(self, message: Msg) -> None:
        report = InstanceReport.FromString(message.data)
        self._reports[report.instance] = report

    async def until_warm(self, owner: int) -> int:
        """Wait until another than the process `owner` keeps the shard warm; its process id."""
        async with asyncio.timeout(_LONG_S):
            while True:
                for name, report in self._reports.items():
                    pid = int(name.rpartition(":")[2])
                    is_warm = set(report.standby_shards) & set(report.prepared)
                    if is_warm and pid != owner and psutil.pid_exists(pid):
                        return pid
                await asyncio.sleep(0.1)


async def _kill_owner(site: LiveSite, fresh: _Fresh) -> float:
    """Kill the owner; seconds until all watched PVs are fresh. The supervisor starts another."""
    pid = await _owner_pid(site)
    begin = time.perf_counter()
    fresh.wait_from(time.time_ns())
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(_LONG_S):
        await fresh.done.wait()
    return time.perf_counter() - begin


async def _hand_over(site: LiveSite, watcher: Watcher) -> float:
    """Stop the owner; the longest time between two messages with values until all is over."""
    process = psutil.Process(await _owner_pid(site))
    begin_ns = time.time_ns()
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(_LONG_S):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)
        await asyncio.sleep(_AFTER_S)
    arrivals = [begin_ns] + [
        received_ns
        for received_ns, message in list(watcher.messages)
        if received_ns >= begin_ns
        and monitor_service_pb2.WatchPvsResponse.FromString(message).diff.rows
    ]
    return max(later - earlier for earlier, later in itertools.pairwise(arrivals)) / 1e9


async def _measure(
    pvs: int, runs: int, implementation: str, settings_of: Callable[[int], Mapping[str, str]]
) -> tuple[list[float], list[float]]:
    """Seconds after a kill, and without values at a hand-over, of two monitors."""
    seconds: list[float] = []
    gaps: list[float] = []
    moving = min(_MOVING, pvs)
    async with live(
        pvs, implementation, moving=moving, monitors=2, settings_of=settings_of
    ) as site:
        names = site.names_of(readbacks(moving))
        await site.ioc.rate(_RATE_HZ)
        metadata = site.site.call["metadata"]
        async with watching(site.site.channel, metadata, names) as watcher:
            fresh = _Fresh(watcher, moving)
            for _ in range(runs):
                await site.until_standby()
                seconds.append(await _kill_owner(site, fresh))
            for _ in range(runs):
                await site.until_standby()
                await asyncio.sleep(_KNOWN_S)
                gaps.append(await _hand_over(site, watcher))
    return seconds, gaps


async def _measure_warm(
    pvs: int, runs: int, implementation: str, settings_of: Callable[[int], Mapping[str, str]]
) -> tuple[list[float], list[float], list[float]]:
    """Seconds after a kill where the standby is warm; MB of owners, and of standbys."""
    seconds: list[float] = []
    owner_mb: list[float] = []
    standby_mb: list[float] = []
    moving = min(_MOVING, pvs)

    def warm_settings(number: int) -> Mapping[str, str]:
        return {**settings_of(number), **_WARM}

    async with (
        live(pvs, implementation, moving=moving, monitors=2, settings_of=warm_settings) as site,
        _Reports.listening(site.site.stack.nats.url) as reports,
    ):
        names = site.names_of(readbacks(moving))
        await site.ioc.rate(_RATE_HZ)
        async with watching(site.site.channel, site.site.call["metadata"], names) as watcher:
            fresh = _Fresh(watcher, moving)
            for _ in range(runs):
                await site.until_standby()
                owner = await _owner_pid(site)
                standby = await reports.until_warm(owner)
                await site.ioc.until_idle()
                owner_mb.append(psutil.Process(owner).memory_info().rss / 1e6)
                standby_mb.append(psutil.Process(standby).memory_info().rss / 1e6)
                seconds.append(await _kill_owner(site, fresh))
    return seconds, owner_mb, standby_mb


@asynccontextmanager
async def _leases() -> AsyncIterator[Callable[[int], Mapping[str, str]]]:
    """A Lease at an API server of its own; settings of monitors that own by it, as shipped."""
    with TemporaryDirectory(prefix="drey-bench-") as folder:
        async with ApiServer.started(Path(folder)) as server:
            namespace = {"metadata": {"name": _NAMESPACE}}
            await server.call("POST", "/api/v1/namespaces", namespace)
            leases = f"/apis/coordination.k8s.io/v1/namespaces/{_NAMESPACE}/leases"
            await server.call("POST", leases, {"metadata": {"name": "drey-shard-0"}})
            kubeconfig = str(server.kubeconfig())
            yield lambda number: {
                "DREY_MONITOR_LEASE": "kubernetes",
                "DREY_MONITOR_LEASE_NAMESPACE": _NAMESPACE,
                "DREY_MONITOR_LEASE_IDENTITY": f"monitor-{number}",
                "DREY_MONITOR_LEASE_KUBECONFIG": kubeconfig,
            }


async def run(pvs: int, runs: int) -> Result:
    """Two monitors; `pvs` channels, 400 of which move at 10 Hz and are watched.

    By the embedded lock, then by a Lease where the programs of Kubernetes are built.
    """
    result = Result("failover", pvs)
    mine = await ours()
    result.notes.append(f"channel access: {mine}; a standby waits")
    seconds, gaps = await _measure(pvs, runs, mine, lambda _: {})
    result.figure("median_s", seconds, _TARGET_S)
    result.figure("worst_s", [max(seconds)], _TARGET_S)
    result.figure("hand_over_median_s", gaps, _HAND_OVER_S)
    result.figure("hand_over_worst_s", [max(gaps)], _HAND_OVER_S)
    warm, owner_mb, standby_mb = await _measure_warm(pvs, runs, mine, lambda _: {})
    result.figure("warm_median_s", warm, _TARGET_S)
    result.figure("warm_worst_s", [max(warm)], _TARGET_S)
    result.figure("owner_mb", owner_mb, None)
    result.figure("warm_standby_mb", standby_mb, None)
    try:
        async with _leases() as settings_of:
            seconds, gaps = await _measure(pvs, runs, mine, settings_of)
            warm, _, _ = await _measure_warm(pvs, runs, mine, settings_of)
    except ProgramsMissing as error:
        result.notes.append(f"NOT MEASURED with a Lease: {error}")
        return result
    result.figure("lease_median_s", seconds, _LEASE_TARGET_S)
    result.figure("lease_worst_s", [max(seconds)], _LEASE_TARGET_S)
    result.figure("lease_warm_median_s", warm, _LEASE_TARGET_S)
    result.figure("lease_warm_worst_s", [max(warm)], _LEASE_TARGET_S)
    result.figure("lease_hand_over_median_s", gaps, _HAND_OVER_S)
    result.figure("lease_hand_over_worst_s", [max(gaps)], _HAND_OVER_S)
    return result
