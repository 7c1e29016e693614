"""A rig around monitor processes: real servers, a directory service of the test's own, a listener.

The monitors run as processes, as they do in the field, so that they can be killed and stopped.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import grpc
import numpy as np

from drey.events.v1.changes_pb2 import CatalogChanged
from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat, ValueBatch
from drey.internal.control.v1.control_service_pb2_grpc import ControlServiceStub
from drey.internal.directory.v1.directory_service_pb2 import (
    GetCatalogPagesRequest,
    GetCatalogPagesResponse,
)
from drey_core.directory import ROLE_READBACK, CatalogPage
from drey_core.errors import DreyError, Unimplemented
from drey_core.pages import PAGE_MASK, PAGE_SHIFT
from drey_core.values import Columns
from drey_runtime.auth import TokenVerifier, make_keys
from drey_runtime.batches import decode_batch
from drey_runtime.bus import Bus
from drey_runtime.directory_codec import encode_catalog
from drey_runtime.image import Image
from drey_runtime.nats_client import Msg
from drey_runtime.server import serve_grpc
from drey_runtime.settings import CommonSettings
from drey_stack import Nats, Valkey, free_port
from drey_testing.signing import in_the_name_of, signed_as_gateway

PVA = 2
DIRECTORY = "drey.internal.directory.v1.DirectoryService"


DATABASE = """
record(ao,"MINUS"){field(VAL,"-0.0") field(PINI,"YES")}
record(calc,"NAN"){field(CALC,"NAN") field(PINI,"YES")}
record(calc,"INF"){field(CALC,"INF") field(PINI,"YES")}
record(longout,"LONG"){field(VAL,"-2147483648") field(PINI,"YES")}
record(waveform,"DOUBLES"){field(FTVL,"DOUBLE") field(NELM,"5")}
record(stringout,"STRING"){field(VAL,"caf\udce9") field(PINI,"YES")}
record(mbbo,"ENUM"){field(ZRST,"off") field(ONST,"\udce9t\udce9") field(ZRVL,"0") field(ONVL,"1")
 field(VAL,"1") field(PINI,"YES")}
record(ao,"ALARM"){field(VAL,"9") field(HIHI,"8") field(HHSV,"MAJOR") field(PINI,"YES")
 field(EGU,"mA") field(PREC,"3")}
record(ao,"A"){field(VAL,"1") field(PINI,"YES")}
record(ao,"B"){field(VAL,"2") field(PINI,"YES")}
record(calc,"FAST"){field(CALC,"VAL+1") field(SCAN,".1 second")}
"""
"""Records of the test's IOC."""

CHANNELS: dict[int, str] = {
    256: "MINUS",
    257: "NAN",
    258: "INF",
    259: "LONG",
    260: "DOUBLES",
    261: "STRING",
    262: "ENUM",
    263: "ALARM",
    264: "A",
    700: "FAST",
    900: "NOBODY:SERVES:THIS",
}
"""Channel numbers and addresses; two pages, gaps, and one that nobody serves."""

LIVING = [c for c in CHANNELS if c != 900]
"""Those that somebody serves."""


async def eventually(
    condition: Callable[[], Awaitable[bool]], what: str, timeout: float = 300.0
) -> float:
    """Wait until `condition` holds; the seconds it took. AssertionError naming `what`."""
    began = time.monotonic()
    while time.monotonic() - began < timeout:
        with suppress(DreyError):
            if await condition():
                return time.monotonic() - began
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within {timeout} s")


class FakeDirectory:
    """`DirectoryService` over a dictionary of channel number and (address, protocol)."""

    def __init__(self) -> None:
        self.version = 0
        self._pages: dict[int, CatalogPage] = {}
        self._versions: dict[int, int] = {}

    def set(self, channels: Iterable[tuple[int, str | None]], protocol: int = 1) -> None:
        """Give channels an address, or, with None, take them away; one new version for all."""
        self.version += 1
        for channel, address in channels:
            number, slot = channel >> PAGE_SHIFT, channel & PAGE_MASK
            if self._versions.get(number) != self.version:
                self._pages[number] = _copied(self._pages.get(number), number)
            page = self._pages[number]
            page.pv_number[slot] = channel if address is not None else 0
            page.role[slot] = ROLE_READBACK
            page.protocol[slot] = protocol
            page.names[slot] = page.addresses[slot] = address or ""
            self._versions[number] = self.version

    async def GetCatalogPages(
        self, request: GetCatalogPagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[GetCatalogPagesResponse]:
        """See the contract."""
        changed = sorted(n for n, v in self._versions.items() if v > request.since_version)
        raws = [encode_catalog(self._pages[n]) for n in changed]
        for start in range(0, max(len(raws), 1), 64):
            yield GetCatalogPagesResponse(version=self.version, pages=raws[start : start + 64])

    async def ResolveChannels(
        self, request: object, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        """Not part of the rig."""
        for _ in ():
            yield b""
        raise Unimplemented("ResolveChannels is not part of the rig")

    async def GetRestorePolicies(
        self, request: object, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        """Not part of the rig."""
        for _ in ():
            yield b""
        raise Unimplemented("GetRestorePolicies is not part of the rig")


def _copied(page: CatalogPage | None, number: int) -> CatalogPage:
    if page is None:
        return CatalogPage.empty_page(number)
    return CatalogPage(
        number,
        page.pv_number.copy(),
        page.role.copy(),
        page.protocol.copy(),
        page.read_only.copy(),
        page.absolute.copy(),
        page.relative.copy(),
        list(page.names),
        list(page.addresses),
        list(page.devices),
    )


class Listener:
    """Everything that monitors publish, kept in order."""

    def __init__(self) -> None:
        self.batches: list[tuple[ValueBatch, Columns]] = []
        self.beats: list[Heartbeat] = []
        self.directories: list[DirectoryVersion] = []

    async def on_values(self, message: Msg) -> None:
        """A batch came."""
        self.batches.append(decode_batch(message.data))

    async def on_heartbeat(self, message: Msg) -> None:
        """A heartbeat came."""
        self.beats.append(Heartbeat.FromString(message.data))

    async def on_directory(self, message: Msg) -> None:
        """A directory version came."""
        self.directories.append(DirectoryVersion.FromString(message.data))

    def rows_of(self, channel: int) -> list[tuple[ValueBatch, Columns, int]]:
        """All rows of one channel so far: batch, its columns, row."""
        return [
            (batch, columns, int(row))
            for batch, columns in self.batches
            for row in np.flatnonzero(columns.key == channel)
        ]


class MonitorProcess:
    """One `python -m drey_monitor`."""

    def __init__(self, env: dict[str, str], log: Path, port: int) -> None:
        self.port, self.log = port, log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "drey_monitor"], env=env, stdout=file, stderr=file
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, timeout: float = 300.0) -> int:
        """Wait for its end; the exit code."""
        return await asyncio.to_thread(self.process.wait, timeout)


class MonitorRig:
    """NATS, Valkey, a directory service and monitors, in a folder. Postgres is the caller's."""

    def __init__(self, folder: Path, postgres_url: str, shards: int = 1) -> None:
        self.folder, self.shards = folder, shards
        self._postgres_url = postgres_url
        self.nats, self.valkey = Nats(folder / "nats"), Valkey(folder / "valkey")
        self.directory = FakeDirectory()
        self.listener = Listener()
        self.monitors: list[MonitorProcess] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the servers and listen."""
        await self._stack.enter_async_context(self.nats)
        await self._stack.enter_async_context(self.valkey)
        make_keys(self.folder / "keys", ["gateway", "snapshot", "monitor"])
        trusted = self.folder / "keys" / "trusted.json"
        self.settings = CommonSettings(trusted_keys=trusted)
        self.directory_port = 0
        self._server = AsyncExitStack()
        await self.start_directory()
        self._stack.push_async_callback(self.stop_directory)
        self.image = await self._stack.enter_async_context(
            Image.open_image(self.valkey.url, "drey")
        )
        await self._listen()
        self._stack.push_async_callback(self.stop_monitors)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        await self._stack.aclose()

    async def start_directory(self) -> None:
        """Serve the directory, on the port it had."""
        verifier = TokenVerifier.from_file(self.folder / "keys" / "trusted.json", "snapshot")
        self.directory_port, _ = await self._server.enter_async_context(
            serve_grpc(
                self.settings,
                f"127.0.0.1:{self.directory_port}",
                verifier,
                [(DIRECTORY, self.directory)],
                grace_s=0.1,
            )
        )

    async def stop_directory(self) -> None:
        """Serve it no more."""
        await self._server.aclose()

    async def _listen(self) -> None:
        self.bus = Bus(self.nats.url, "drey", "test")
        task = asyncio.create_task(self.bus.run())
        self._stack.push_async_callback(_cancelled, task)
        await self.bus.wait_connected(300)
        await self.bus.subscribe_handler(
            self.bus.full_subject("values", "*"), self.listener.on_values
        )
        await self.bus.subscribe_handler(
            self.bus.full_subject("heartbeats", "*"), self.listener.on_heartbeat
        )
        await self.bus.subscribe_handler(
            self.bus.full_subject("directory", "*"), self.listener.on_directory
        )

    def start_monitor(
        self,
        urls: Mapping[str, str] = MappingProxyType({}),
        directory: str = "",
        **settings: str,
    ) -> MonitorProcess:
        """Start one more monitor; `settings` as `TICK="0.05"`, `urls` as `NATS`: another way.

        `directory`: host and port by which it asks for the catalog, where not the rig's own.
        """
        port = free_port()
        keys = self.folder / "keys"
        env = os.environ | {
            "DREY_POSTGRES_URL": self._postgres_url,
            "DREY_NATS_URL": self.nats.url,
            "DREY_REDIS_URL": self.valkey.url,
            "DREY_SHARDS": str(self.shards),
            "DREY_SNAPSHOT_TARGET": directory or f"127.0.0.1:{self.directory_port}",
            "DREY_TRUSTED_KEYS": str(keys / "trusted.json"),
            "DREY_SIGNING_KEY": str(keys / "monitor.pem"),
            "DREY_LOG_FORMAT": "text",
            "DREY_MONITOR_LISTEN": f"127.0.0.1:{port}",
            "DREY_MONITOR_HEARTBEAT": "0.2",
            "DREY_MONITOR_SETTLE": "0.3",
            **{f"DREY_{name}_URL": url for name, url in urls.items()},
            **{f"DREY_MONITOR_{name}": value for name, value in settings.items()},
        }
        log = self.folder / f"monitor{len(self.monitors)}.log"
        monitor = MonitorProcess(env, log, port)
        self.monitors.append(monitor)
        return monitor

    async def stop_monitors(self) -> None:
        """Kill those that run."""
        for monitor in self.monitors:
            if monitor.process.poll() is None:
                monitor.process.kill()
            await monitor.ended()

    def control(self, monitor: MonitorProcess, role: str) -> tuple[ControlServiceStub, Any]:
        """A stub of a monitor's control service, and the metadata of a caller with `role`."""
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{monitor.port}")
        self._stack.push_async_callback(channel.close)
        signed = signed_as_gateway(channel, self.folder / "keys", "monitor")
        return ControlServiceStub(signed), in_the_name_of("test", role)

    async def announce(self) -> None:
        """Publish that the catalog changed."""
        event = CatalogChanged(version=self.directory.version)
        await self.bus.publish(self.bus.full_subject("catalog"), event.SerializeToString())

    async def read(self, channels: Iterable[int]) -> Columns:
        """Channels from the image."""
        wanted = np.array(list(channels), np.int64)
        pages, _ = await self.image.read_pages(np.unique(wanted >> PAGE_SHIFT).tolist())
        return pages.columns_of_channels(wanted)

    async def wait_states(
        self, channels: Iterable[int], state: int, timeout: float = 300.0
    ) -> float:
        """Wait until the image says `state` of all channels; the seconds it took."""
        wanted = list(channels)

        async def all_so() -> bool:
            return bool(((await self.read(wanted)).state == state).all())

        return await eventually(all_so, f"state {state} of {wanted[:5]}", timeout)

    async def wait_settled(self, timeout: float = 300.0) -> float:
        """Wait until the image's heartbeat of every shard says settled."""

        async def settled() -> bool:
            beats = await self.image.read_heartbeats(self.shards)
            return all(b is not None and b.settled for b in beats)

        return await eventually(settled, "settled", timeout)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
