"""Many big reads of one key: others are served beside them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.message import Message

from drey.common.v1 import form_pb2
from drey.compare.v1.compare_service_pb2 import CompareRequest
from drey.snapshot.v1 import snapshot_service_pb2 as rpc
from tests.integration.snapshot.conftest import state_of

READ = "/drey.snapshot.v1.SnapshotService/ReadSnapshot"
COMPARE = "/drey.compare.v1.CompareService/Compare"
PVS, CALLS = 1000, 150


@asynccontextmanager
async def reading(site, key_id: str):
    """A function that reads a stream to its end, with a connection and a key of its own."""
    async with grpc.aio.insecure_channel(site.settings.listen) as channel:

        async def read_all(path: str, request, begun: asyncio.Event) -> None:
            metadata = site.keys.metadata(path, name=key_id, key_id=key_id)
            call = channel.unary_stream(path)
            async for _ in call(request.SerializeToString(), metadata=metadata, timeout=600):
                begun.set()

        await channel.channel_ready()
        yield read_all


@pytest.mark.parametrize("path", [READ, COMPARE])
async def test_a_small_read_does_not_wait_for_all_big_ones_of_another_key(site, path) -> None:
    await site.add_pvs(PVS)
    await site.fill()
    snapshot = await site.take()
    small = rpc.ReadSnapshotRequest(id=snapshot.id, selector={"names": ["Q0:SP"]})
    await site.fill(2)
    other = await site.take()
    big: Message = rpc.ReadSnapshotRequest(id=snapshot.id, form=form_pb2.VALUE_FORM_ROWS)
    if path == COMPARE:
        states = {"reference": state_of(snapshot.id), "others": [state_of(other.id)]}
        big = CompareRequest(spec={**states, "with_values": True})
    begun = asyncio.Event()
    async with reading(site, "greedy") as read_big, reading(site, "modest") as read_small:
        running = [asyncio.ensure_future(read_big(path, big, begun)) for _ in range(CALLS)]
        await begun.wait()
        await read_small(READ, small, begun)
        ended = sum(each.done() for each in running)
        await asyncio.gather(*running)
    assert ended < CALLS / 2
