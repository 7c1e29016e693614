"""The simulated machine in Drey: its PVs in the catalog, its channels connected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey_cli.errors import CliError

_CHUNK = 512 << 10


async def import_catalog(
    channel: grpc.aio.Channel,
    path: Path,
    call: dict[str, Any],
    *,
    keep_existing: bool = False,
) -> catalog_pb2.ImportSummary:
    """Import the file; CliError where a row is refused. `call`: metadata and timeout."""
    catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
    summary = catalog_pb2.ImportSummary()
    async for response in catalog.ImportPvs(_upload(path, keep_existing), **call):
        if response.HasField("summary"):
            summary = response.summary
    if not summary.applied:
        raise CliError(f"the import was refused: {summary.refused} rows")
    return summary


async def connected_channels(channel: grpc.aio.Channel, call: dict[str, Any]) -> tuple[int, int]:
    """How many channels the monitors have, and how many of them are connected."""
    monitor = monitor_service_pb2_grpc.MonitorServiceStub(channel)
    status = await monitor.GetMonitorStatus(monitor_service_pb2.GetMonitorStatusRequest(), **call)
    return sum(s.channels for s in status.shards), sum(s.connected for s in status.shards)


def _upload(path: Path, keep_existing: bool) -> Iterator[catalog_service_pb2.ImportPvsRequest]:
    yield catalog_service_pb2.ImportPvsRequest(
        options=catalog_service_pb2.ImportOptions(
            format=catalog_pb2.FILE_FORMAT_CSV,
            file_name=path.name,
            keep_existing=keep_existing,
            request_id=str(uuid4()),
        )
    )
    content = path.read_bytes()
    for start in range(0, len(content), _CHUNK):
        yield catalog_service_pb2.ImportPvsRequest(data=content[start : start + _CHUNK])


def dead_channels(folder: Path) -> int:
    """Channels in the catalog that no IOC serves, by the machine's own word."""
    found = json.loads((folder / "machine.json").read_text())
    return len(found["dead"])
