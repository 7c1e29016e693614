"""A client of WatchPvs that only takes bytes and the time, and looks into them afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from drey.common.v1 import selector_pb2
from drey.monitor.v1 import monitor_service_pb2, watch_pb2

_METHOD = "/drey.monitor.v1.MonitorService/WatchPvs"
_KEPT = 20_000
_BASELINE_S = 60.0


class Watcher:
    """One watch. `messages` are the last ones: when they came (ns since 1970), and their bytes."""

    def __init__(self) -> None:
        self.messages: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        self.bytes = 0
        self._begun = asyncio.Event()
        self.on_message: Callable[[bytes], None] | None = None

    async def run(self, call: Any) -> None:
        """Take messages until the stream ends."""
        async for message in call:
            self.messages.append((time.time_ns(), message))
            self.bytes += len(message)
            if self.on_message is not None:
                self.on_message(message)
            if not self._begun.is_set() and _ends_baseline(message):
                self._begun.set()

    async def baseline(self) -> None:
        """Wait for the end of the baseline. TimeoutError."""
        async with asyncio.timeout(_BASELINE_S):
            await self._begun.wait()


def latencies_ms(messages: Sequence[tuple[int, bytes]]) -> NDArray[np.float64]:
    """Milliseconds from the IOC's stamp to the arrival, of every row of these diffs."""
    latencies: list[float] = []
    for received_ns, message in messages:
        diff = monitor_service_pb2.WatchPvsResponse.FromString(message).diff
        latencies += [(received_ns - stamp(row)) / 1e6 for row in diff.rows]
    return np.array(latencies)


def stamp(row: Any) -> int:
    """Time of the newest channel of a row, by the IOC."""
    return max(int(row.setpoint.source_time_ns), int(row.readback.source_time_ns))


def _ends_baseline(message: bytes) -> bool:
    response = monitor_service_pb2.WatchPvsResponse.FromString(message)
    return response.WhichOneof("part") == "baseline_end"


@asynccontextmanager
async def watching(
    channel: grpc.aio.Channel, metadata: Any, names: Sequence[str]
) -> AsyncIterator[Watcher]:
    """A watch of `names` for the scope, its baseline complete."""
    method: Any = channel.unary_stream(
        _METHOD,
        request_serializer=monitor_service_pb2.WatchPvsRequest.SerializeToString,
        response_deserializer=None,
    )
    request = monitor_service_pb2.WatchPvsRequest(
        spec=watch_pb2.WatchSpec(selector=selector_pb2.Selector(names=list(names)))
    )
    call = method(request, metadata=metadata)
    watcher = Watcher()
    running = asyncio.create_task(watcher.run(call))
    begun = asyncio.create_task(watcher.baseline())
    try:
        await asyncio.wait({running, begun}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
            raise RuntimeError("the watch ended before its baseline")
        begun.result()
        yield watcher
    finally:
        begun.cancel()
        running.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await running
