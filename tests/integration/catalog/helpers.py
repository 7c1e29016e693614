"""Calls that many tests of the catalog make."""

from __future__ import annotations

from contextlib import contextmanager

import grpc
import pytest

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey_runtime.status import reason_of


async def create(service, setpoint: str = "", readback: str = "", **fields) -> catalog_pb2.Pv:
    """Add a PV; what is said of channels (`protocol`, `setpoint_tolerance`) is put into these."""
    tags = [catalog_pb2.TagRef(group=g, tag=t) for g, t in fields.pop("tags", ())]
    protocol = fields.pop("protocol", catalog_pb2.PROTOCOL_UNSPECIFIED)
    said = {role: fields.pop(f"{role}_tolerance", None) for role in ("setpoint", "readback")}
    pv = catalog_pb2.Pv(tags=tags, **fields)
    for role, address in (("setpoint", setpoint), ("readback", readback)):
        if address:
            getattr(pv, role).MergeFrom(
                catalog_pb2.Channel(
                    address=address, channel_protocol=protocol, tolerance=said[role]
                )
            )
    return (await service.catalog.CreatePv(rpc.CreatePvRequest(pv=pv))).pv


async def update(service, pv: catalog_pb2.Pv, *paths: str, **more) -> catalog_pb2.Pv:
    request = rpc.UpdatePvRequest(pv=pv, **more)
    request.update_mask.paths.extend(paths)
    return (await service.catalog.UpdatePv(request)).pv


async def import_(service, content: bytes, chunk: int = 1000, **options):
    """(rows, summary) of an import."""

    async def messages():
        yield rpc.ImportPvsRequest(options=rpc.ImportOptions(**options))
        for at in range(0, len(content), chunk):
            yield rpc.ImportPvsRequest(data=content[at : at + chunk])

    rows, summary = [], None
    async for answer in service.catalog.ImportPvs(messages()):
        if answer.HasField("summary"):
            summary = answer.summary
        else:
            rows += answer.rows.rows
    return rows, summary


async def names(service, **fields) -> list[str]:
    answer = await service.catalog.ListPvs(rpc.ListPvsRequest(**fields))
    return [pv.name for pv in answer.pvs]


@contextmanager
def refused(code: grpc.StatusCode, reason: str, field: str | None = None):
    """The block must fail with this code, this reason, and this field where given."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield caught
    found, metadata = reason_of(caught.value)
    assert (caught.value.code(), found) == (code, reason), caught.value.details()
    if field is not None:
        assert metadata.get("field") == field
