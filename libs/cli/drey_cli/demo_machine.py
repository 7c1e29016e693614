"""The simulated machine: its PVs in the catalog, its channels connected, its values compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey_cli.errors import CliError

if TYPE_CHECKING:
    from drey.common.v1.value_pb2 import Value

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
    async for response in catalog.ImportPvs(_upload_requests(path, keep_existing), **call):
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


def _upload_requests(
    path: Path, keep_existing: bool
) -> Iterator[catalog_service_pb2.ImportPvsRequest]:
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
    description = json.loads((folder / "machine.json").read_text())
    return len(description["dead"])


_SCALARS = frozenset(
    f"{kind}_value"
    for kind in (
        *("float64", "float32", "int64", "int32", "int16", "int8"),
        *("uint64", "uint32", "uint16", "uint8", "bool", "string"),
    )
)


def plain(value: Value) -> Any:
    """The data of a value as numbers, text and lists; None where there is none."""
    which = value.WhichOneof("data")
    if which is None:
        return None
    data = getattr(value, which)
    if which in _SCALARS:
        return data
    if which == "raw_string_value":
        return data.decode(errors="replace")
    if which == "enum_value":
        return data.index
    if which == "uint8_array":
        return list(data)
    if which == "string_array":
        return list(data.elements) or [e.decode(errors="replace") for e in data.raw_elements]
    return list(data.elements)


def same(stored: Any, read: Any, absolute: float, relative: float) -> bool:
    """Whether `read` is `stored` within tolerance, element by element; NaN is NaN."""
    if isinstance(stored, list) or isinstance(read, list):
        left = stored if isinstance(stored, list) else [stored]
        right = read if isinstance(read, list) else [read]
        return len(left) == len(right) and all(
            same(a, b, absolute, relative) for a, b in zip(left, right, strict=True)
        )
    if isinstance(stored, str) or isinstance(read, str):
        return bool(stored == read)
    if math.isnan(stored) or math.isnan(read):
        return math.isnan(stored) and math.isnan(read)
    return bool(stored == read) or abs(stored - read) <= absolute + relative * abs(stored)
