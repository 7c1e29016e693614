"""A live site: an IOC, the whole stack, its catalog, and monitors started by the benchmark."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from bench.ioc import BenchIoc, ioc
from bench.listener import BusCounter, listening
from bench.names import catalog_csv
from bench.site import BenchSite, opened
from drey_ca import open_table
from drey_core.errors import Unimplemented
from drey_stack import ChildState, HttpOptions
from drey_stack.ports import LOOPBACK, free_port
from drey_stack.whole import StackOptions

VARIABLE = "DREY_BENCH_CHANNEL_ACCESS"
PEER = "aioca"
_VALUES_S = 300.0
_QUIET_S = 0.6
_STANDBY_S = 2.0
"""A standby is ready when started; give it the time to load its catalog, as it has in life."""


async def ours() -> str:
    """The implementation that is measured: native where it was built, or what the variable says."""
    if VARIABLE in os.environ:
        return os.environ[VARIABLE]
    try:
        async with open_table("native"):
            return "native"
    except Unimplemented:
        return PEER


class LiveSite:
    """The running site, its IOC, and an ear on the bus."""

    def __init__(self, site: BenchSite, ioc: BenchIoc, listener: BusCounter) -> None:
        self.site, self.ioc, self.listener = site, ioc, listener

    async def start_monitor(self, implementation: str, number: int = 0, **settings: str) -> None:
        """Start a monitor over `implementation`; returns when it serves. `settings`: DREY_…"""
        child = self.site.stack._service_child("monitor", "monitor")
        environment = {**(child.env or {}), "DREY_MONITOR_CHANNEL_ACCESS": implementation}
        if number:  # a standby: nobody calls it
            environment["DREY_MONITOR_LISTEN"] = f"{LOOPBACK}:{free_port()}"
            child = replace(child, name=f"monitor-{number}", ready=None)
        await self.site.stack.supervisor.start_child(
            replace(child, env={**environment, **settings})
        )

    async def stop_monitor(self, number: int = 0) -> None:
        """Stop it."""
        await self.site.stack.supervisor.stop_child(f"monitor-{number}" if number else "monitor")

    async def until_valued(self) -> None:
        """Wait until the monitor has published a live value of every channel."""
        await self.listener.wait_all(_VALUES_S)

    def watch_for_all(self) -> None:
        """From here on `until_valued` waits for every channel anew."""
        self.listener.watch_for(np.sort(self.site.directory.channels))

    async def until_moved(self, timeout: float) -> None:
        """Wait until the monitor has published what the IOC last did: nothing comes for a while."""
        async with asyncio.timeout(timeout):
            seen = -1
            while seen != self.listener.rows:
                seen = self.listener.rows
                await asyncio.sleep(_QUIET_S)

    async def until_standby(self) -> None:
        """Wait until every monitor runs, and the shard's owner has settled."""
        async with asyncio.timeout(_VALUES_S):
            while True:
                (beat,) = await self.site.image.read_heartbeats(1)
                states = [s.state for s in self.site.stack.supervisor.child_statuses()]
                if beat and beat.settled and set(states) == {ChildState.READY}:
                    break
                await asyncio.sleep(0.1)
        await asyncio.sleep(_STANDBY_S)

    def names_of(self, readbacks: Sequence[str]) -> list[str]:
        """Names of the PVs with these readbacks. KeyError."""
        directory = self.site.directory
        name_of = dict(zip(directory.readback_address, directory.names, strict=True))
        return [name_of[address] for address in readbacks]

    def part_pids(self) -> dict[str, int]:
        """Process ids of NATS and Valkey."""
        parts = {"nats": self.site.stack.nats.pid, "valkey": self.site.stack.valkey.pid}
        return {name: pid for name, pid in parts.items() if pid is not None}

    def process(self, name: str) -> psutil.Process:
        """The process of a service or part, for its CPU time and memory."""
        for status in self.site.stack.supervisor.child_statuses():
            if status.name == name and status.pid is not None:
                return psutil.Process(status.pid)
        raise RuntimeError(f"{name} does not run")


@asynccontextmanager
async def live(
    pvs: int,
    implementation: str,
    *,
    both: bool = False,
    moving: int = 0,
    groups: int = 10,
    monitors: int = 1,
    settings_of: Callable[[int], Mapping[str, str]] = lambda _: {},
    http: HttpOptions | None = None,
) -> AsyncIterator[LiveSite]:
    """IOC, stack and catalog; with `monitors` running and every value published.

    `settings_of` a monitor's number: DREY_… of its own.
    """
    async with AsyncExitStack() as resources:
        folder = Path(resources.enter_context(TemporaryDirectory(prefix="drey-bench-")))
        source = await resources.enter_async_context(
            ioc(pvs, both=both, moving=moving, groups=groups)
        )
        services = ("SNAPSHOT", "RESTORE")
        environment = {f"DREY_{name}_CHANNEL_ACCESS": implementation for name in services}
        options = StackOptions(folder, monitors=0, environment=environment, http=http)
        site = await resources.enter_async_context(opened(options, pvs))
        await site.import_csv(catalog_csv(pvs, both=both))
        await site.load_directory()
        listener = await resources.enter_async_context(listening(site.stack.nats.url))
        live_site = LiveSite(site, source, listener)
        live_site.watch_for_all()
        for number in range(monitors):
            await live_site.start_monitor(implementation, number, **settings_of(number))
        if monitors:
            await live_site.until_valued()
            await site.until_known()
            # First values come before the subscriptions, which keep an IOC busy for seconds.
            await source.until_idle()
        yield live_site
