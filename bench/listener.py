"""An ear on NATS: what a monitor publishes, counted in columns."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from drey_core.values import KIND_NONE, State
from drey_runtime.batches import decode_batch
from drey_runtime.bus import Bus
from drey_runtime.nats_client import Msg

_BATCHES = 1000


class BusCounter:
    """Counts rows, merged updates and gaps, and which channels have a live value.

    `ages_ms` holds, of every row of the last thousand messages since `reset`, the time from the
    IOC's stamp to the batch's.
    """

    def __init__(self) -> None:
        self.reset()
        self.watch_for(np.zeros(0, np.int64))

    def reset(self) -> None:
        """Count from here."""
        self.rows = self.merged = self.gaps = self.bytes = 0
        self._last: tuple[int, int] | None = None
        self._ages: deque[NDArray[np.float64]] = deque(maxlen=_BATCHES)

    def watch_for(self, channels: NDArray[np.int64]) -> None:
        """Forget what was seen; `wait_all` waits for these (ascending) from here."""
        self._wanted = channels
        self._valued = np.zeros(len(channels), np.bool_)
        self._all = asyncio.Event()
        self.all_at = 0.0

    async def wait_all(self, timeout: float) -> None:
        """Wait until every wanted channel is connected and has a value. TimeoutError."""
        async with asyncio.timeout(timeout):
            await self._all.wait()

    @property
    def updates(self) -> int:
        """Updates that the batches stand for: their rows, and what those replaced."""
        return self.rows + self.merged

    @property
    def ages_ms(self) -> NDArray[np.float64]:
        """Ages of the rows when their batch was cut."""
        return np.concatenate([np.zeros(0), *self._ages])

    async def on_batch(self, message: Msg) -> None:
        """Count one message."""
        batch, columns = decode_batch(message.data)
        self.bytes += len(message.data)
        self.rows += len(columns)
        self.merged += int(columns.merged.sum())
        self._look_for_gap(batch.epoch, batch.sequence)
        self._ages.append((batch.time_ns - columns.source_time) / 1e6)
        if not self._all.is_set():
            good = (columns.state == State.CONNECTED) & (columns.kind != KIND_NONE)
            self._see_channels(columns.key[good])

    def _look_for_gap(self, epoch: int, sequence: int) -> None:
        if self._last is not None and self._last[0] == epoch and sequence > self._last[1] + 1:
            self.gaps += 1
        self._last = (epoch, sequence)

    def _see_channels(self, channels: NDArray[np.int64]) -> None:
        if not len(self._wanted):
            return
        index = np.minimum(np.searchsorted(self._wanted, channels), len(self._wanted) - 1)
        self._valued[index[self._wanted[index] == channels]] = True
        if self._valued.all():
            self.all_at = time.perf_counter()
            self._all.set()


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[BusCounter]:
    """A listener of all shards, for the scope."""
    listener = BusCounter()
    bus = Bus(url, "drey", "drey-bench")
    await bus.subscribe_handler(bus.full_subject("values", "*"), listener.on_batch)
    running = asyncio.create_task(bus.run())
    try:
        await bus.wait_connected(10)
        yield listener
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
