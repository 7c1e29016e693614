"""A watch as a program uses it, without a gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drey.common.v1 import value_pb2
from drey.monitor.v1 import monitor_service_pb2, watch_pb2
from drey_client.watch import LiveWatch
from drey_client.watch_state import WatchModel


class ScriptedCall:
    """A call of which the test says when a message comes."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.cancelled = False

    async def read(self) -> Any:
        return await self.messages.get()

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedChannel:
    """Answers every method with one call."""

    def __init__(self, call: ScriptedCall) -> None:
        self._call = call

    async def __aenter__(self) -> ScriptedChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *method, **codec: lambda *request, **options: self._call


@pytest.mark.parametrize("turns", range(8))
async def test_a_watch_that_is_cancelled_as_a_message_comes_ends(turns):
    """`turns` of the loop after it came, which takes its way through some futures."""
    call = ScriptedCall()
    channel: Any = ScriptedChannel(call)
    watch = LiveWatch(lambda: channel, (), watch_pb2.WatchSpec())

    async def follow() -> None:
        async for _ in watch:
            pass

    following = asyncio.create_task(follow())
    for _ in range(20):
        await asyncio.sleep(0)
    call.messages.put_nowait(monitor_service_pb2.WatchPvsResponse())
    for _ in range(turns):
        await asyncio.sleep(0)
    following.cancel()
    await asyncio.wait({following}, timeout=60)
    assert following.cancelled()
    assert call.cancelled


def test_what_is_held_has_the_name_that_was_told_last():
    row, metadata = value_pb2.PvRow(number=4, name="before"), watch_pb2.MetadataChunk()
    model = WatchModel()
    model.apply_message(monitor_service_pb2.WatchPvsResponse(baseline={"rows": [row]}))
    row.name = "after"
    model.apply_message(monitor_service_pb2.WatchPvsResponse(diff={"rows": [row]}))
    assert model.rows[4].name == "after"
    metadata.rows.add(number=4, name="夜班")
    model.apply_message(monitor_service_pb2.WatchPvsResponse(metadata=metadata))
    assert model.rows[4].name == "夜班"
