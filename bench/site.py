"""A site to measure on: the real stack, a catalog of n PVs, and an image without an IOC.

Every PV has a setpoint and a readback, so n PVs are 2n channels. The image is written by this
process as a monitor writes it, heartbeats included; `drift` moves all readbacks and some
setpoints, as a machine does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import grpc
import numpy as np

from bench.names import catalog_csv
from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey.common.v1 import selector_pb2
from drey.compare.v1 import compare_service_pb2_grpc
from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat
from drey.internal.directory.v1 import directory_service_pb2, directory_service_pb2_grpc
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.restore.v1 import restore_service_pb2, restore_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2, snapshot_service_pb2_grpc
from drey_core.directory import Directory, MetadataPage
from drey_core.page_table import PageTable
from drey_core.values import Columns, Kind, Origin, State
from drey_runtime.auth import TokenSigner
from drey_runtime.directory_codec import decode_catalog, encode_metadata
from drey_runtime.image import Image
from drey_stack.whole import Stack, StackOptions

__all__ = ["EVERYTHING", "BenchSite", "catalog_csv", "opened", "site"]

EVERYTHING = selector_pb2.Selector(all=True)
_CHUNK = 512 << 10
_AGAIN_S = 60.0
_KNOWN_S = 300.0
_GATES = snapshot_pb2.Gates()
"""This process writes the image, and has other work: its signs of life may come late."""
_GATES.max_age.FromSeconds(60)


class BenchSite:
    """The running site; stubs speak to the gateway with an admin's key."""

    def __init__(self, stack: Stack, channel: grpc.aio.Channel, image: Image, pvs: int) -> None:
        self.stack, self.pvs, self.image = stack, pvs, image
        self.channel = channel
        self.call: dict[str, Any] = {
            "metadata": (("authorization", f"Bearer {stack.key}"),),
            "timeout": 600.0,
        }
        self.catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.snapshots = snapshot_service_pb2_grpc.SnapshotServiceStub(channel)
        self.comparisons = compare_service_pb2_grpc.CompareServiceStub(channel)
        self.restores = restore_service_pb2_grpc.RestoreServiceStub(channel)
        self.directory: Directory
        self.table = PageTable(np.zeros(0, np.int64))
        self._rng = np.random.default_rng(1)
        self._sequence = 0
        self._columns = Columns.empty_columns()

    # --- catalog ---

    async def import_csv(self, content: bytes) -> catalog_pb2.ImportSummary:
        """Import a file by RPC."""
        summary = catalog_pb2.ImportSummary()

        async def import_requests() -> AsyncIterator[catalog_service_pb2.ImportPvsRequest]:
            yield catalog_service_pb2.ImportPvsRequest(
                options=catalog_service_pb2.ImportOptions(
                    format=catalog_pb2.FILE_FORMAT_CSV, request_id=str(uuid4())
                )
            )
            for start in range(0, len(content), _CHUNK):
                yield catalog_service_pb2.ImportPvsRequest(data=content[start : start + _CHUNK])

        async for response in self.catalog.ImportPvs(import_requests(), **self.call):
            if response.HasField("summary"):
                summary = response.summary
        if not summary.applied:
            raise RuntimeError(f"the import was refused: {summary}")
        return summary

    async def load_directory(self) -> None:
        """Ask for the catalog's pages as a monitor does."""
        signer = TokenSigner.from_file("monitor", self.stack.folder / "keys" / "monitor.pem")
        target = self.stack.client_environment["DREY_SNAPSHOT_TARGET"]
        pages: list[bytes] = []
        version = 0
        async with grpc.aio.insecure_channel(
            target, options=[("grpc.max_receive_message_length", 16 << 20)]
        ) as channel:
            stub = directory_service_pb2_grpc.DirectoryServiceStub(channel)
            request = directory_service_pb2.GetCatalogPagesRequest()
            method = "/drey.internal.directory.v1.DirectoryService/GetCatalogPages"
            metadata = signer.own_metadata("snapshot", method)
            async for response in stub.GetCatalogPages(request, metadata=metadata, timeout=300):
                pages += response.pages
                version = response.version
        self._raw_pages = {decode_catalog(raw).number: raw for raw in pages}
        self.directory = Directory.from_pages(version, [decode_catalog(raw) for raw in pages])

    # --- image ---

    async def publish_all(self) -> None:
        """Write the whole image and its directory, every channel connected."""
        channels = self.directory.channels
        n = len(channels)
        blank = Columns.empty_columns(n)
        now = time.time_ns()
        blank.kind[:] = Kind.FLOAT64
        blank.state[:] = State.CONNECTED
        blank.origin[:] = Origin.MONITOR
        blank.source_time[:] = now - self._rng.integers(0, 2_000_000_000, n)
        blank.receive_time[:] = now
        blank.data[:] = (100 * self._rng.standard_normal(n)).view(np.uint64)
        self._columns = blank.with_key(channels)
        self.table = PageTable(np.unique(channels >> 8))
        self.table.apply_batch(self._columns)
        await self._write_directory()
        await self._write_pages()

    async def drift(self, setpoints: int = 0) -> None:
        """Move all readbacks by noise, and `setpoints` setpoints by 1, and publish."""
        channels = self._columns.key
        readback = np.isin(channels, self.directory.readback_channel)
        chosen = readback.copy()
        if setpoints:
            rows = np.flatnonzero(~readback)
            chosen[self._rng.choice(rows, setpoints, replace=False)] = True
        values = self._columns.data.view(np.float64)
        values[readback] += 0.001 * self._rng.standard_normal(int(readback.sum()))
        values[chosen & ~readback] += 1.0
        now = time.time_ns()
        self._columns.source_time[chosen] = now - self._rng.integers(0, 10**9, int(chosen.sum()))
        self._columns.receive_time[chosen] = now
        self.table.apply_batch(self._columns.take_rows(np.flatnonzero(chosen)))
        await self._write_pages()

    async def stand_still(self, value: float) -> None:
        """Publish one value for every channel."""
        self._columns.data[:] = np.float64(value).view(np.uint64)
        self.table.apply_batch(self._columns)
        await self._write_pages()

    async def replace_restore(self, arguments: Sequence[str]) -> None:
        """Run Python with these arguments in place of the restore service."""
        child = self.stack._service_child("restore", "restore")
        await self.stack.supervisor.stop_child("restore")
        await self.stack.supervisor.start_child(replace(child, argv=[sys.executable, *arguments]))
        request = restore_service_pb2.ListPlansRequest()
        async with asyncio.timeout(_AGAIN_S):
            while True:  # until the gateway has found it again
                try:
                    await self.restores.ListPlans(request, **self.call)
                    return
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                await asyncio.sleep(0.2)

    async def _write_pages(self) -> None:
        self._sequence += 1
        pages = self.table.take_pages(np.arange(len(self.table.page_numbers)))
        await self.image.write_pages(0, 1, self._sequence, time.time_ns(), pages)
        await self.heartbeat()

    async def _write_directory(self) -> None:
        numbers = self.table.page_numbers.tolist()
        metadata = {}
        for number in numbers:
            page = MetadataPage.empty_page(number)
            page.kind[:] = Kind.FLOAT64
            page.count[:] = 1
            page.readable[:] = 1
            page.writable[:] = 1
            metadata[number] = encode_metadata(page)
        version = DirectoryVersion(
            shard=0,
            epoch=1,
            version=1,
            pages=numbers,
            page_versions=[1] * len(numbers),
            catalog_version=self.directory.version,
        )
        await self.image.write_directory(version, self._raw_pages, metadata)

    async def heartbeat(self) -> None:
        """A sign of life, as the owner of shard 0."""
        n = len(self._columns)
        await self.image.write_heartbeat(
            Heartbeat(
                shard=0,
                shard_count=1,
                epoch=1,
                sequence=self._sequence,
                time_ns=time.time_ns(),
                owner=f"bench:{os.getpid()}",
                channels=n,
                connected=n,
                tick_ms=100,
                directory_version=1,
                settled=True,
                catalog_version=self.directory.version,
                channel_access="none",
            )
        )

    async def keep_alive(self) -> None:
        """Heartbeats until cancelled."""
        while True:
            await self.heartbeat()
            await asyncio.sleep(0.4)

    async def until_known(self) -> None:
        """Wait until the gateway can be asked for the last PV of the catalog."""
        stub = monitor_service_pb2_grpc.MonitorServiceStub(self.channel)
        request = monitor_service_pb2.GetValuesRequest()
        request.selector.names.append(self.directory.names[-1])
        async with asyncio.timeout(_KNOWN_S):
            while True:
                rows = 0
                async for response in stub.GetValues(request, **self.call):
                    rows += len(response.rows)
                if rows:
                    return
                await asyncio.sleep(0.1)

    # --- snapshots ---

    async def take(self, title: str = "") -> snapshot_pb2.Snapshot:
        """Take a snapshot of everything from the image; returns when it is durable."""
        response = await self.snapshots.TakeSnapshot(
            snapshot_service_pb2.TakeSnapshotRequest(
                spec=snapshot_pb2.SnapshotSpec(
                    selector=EVERYTHING, title_template=title, gates=_GATES
                ),
                request_id=str(uuid4()),
            ),
            **self.call,
        )
        if not response.HasField("snapshot"):
            raise RuntimeError(f"no snapshot: {response.job}")
        return response.snapshot


@asynccontextmanager
async def opened(options: StackOptions, pvs: int) -> AsyncIterator[BenchSite]:
    """A stack, and a channel to its gateway."""
    settings = [("grpc.max_receive_message_length", 16 << 20), ("grpc.enable_http_proxy", 0)]
    async with (
        Stack(options) as stack,
        grpc.aio.insecure_channel(stack.server, options=settings) as channel,
        Image.open_image(stack.valkey.url, "drey") as image,
    ):
        yield BenchSite(stack, channel, image, pvs)


@asynccontextmanager
async def site(pvs: int, *, with_image: bool = True) -> AsyncIterator[BenchSite]:
    """A site of `pvs` PVs, imported, and with an image where asked for."""
    async with AsyncExitStack() as resources:
        folder = Path(resources.enter_context(TemporaryDirectory(prefix="drey-bench-")))
        options = StackOptions(folder, monitors=0)
        bench_site = await resources.enter_async_context(opened(options, pvs))
        if not with_image:
            yield bench_site
            return
        await bench_site.import_csv(catalog_csv(pvs))
        await bench_site.load_directory()
        await bench_site.publish_all()
        alive = asyncio.create_task(bench_site.keep_alive())
        try:
            yield bench_site
        finally:
            alive.cancel()
            with suppress(asyncio.CancelledError):
                await alive
