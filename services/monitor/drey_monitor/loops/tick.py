"""One drain of the table a tick, one batch a tick for each shard that changed."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

from drey_core.errors import Unavailable
from drey_monitor.adapters.channels import ChannelHub
from drey_monitor.owned import Owned, Shards
from drey_runtime import telemetry
from drey_runtime.batches import encode_batches
from drey_runtime.clock import now_ns
from drey_runtime.image import Image

log = logging.getLogger(__name__)

_LONG_SLEEP_S = 1.0
_CHECK_S = 1.0
_FEW = 256
"""Channels whose metadata changed: so many are written at once, more when the time for it comes."""


class Ticker:
    """Drains, folds, cuts, and hands over to the publisher and the image; waits for neither.

    Costs nothing while nothing changes. A change after a quiet time goes out at once, the next
    ones a tick later.
    """

    def __init__(self, hub: ChannelHub, shards: Shards, image: Image, tick: float) -> None:
        self._hub, self._shards, self._image, self._tick = hub, shards, image, tick
        self._dirty: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Tick for ever."""
        due = time.monotonic()
        try:
            while True:
                await self._wait_for_change()
                await asyncio.sleep(max(due - time.monotonic(), 0))
                began = time.monotonic()
                if began - due > _LONG_SLEEP_S:
                    await self._check_epochs()
                due = max(due + self._tick, began)
                await self.drain_and_cut()
                telemetry.loop_seconds.record(time.monotonic() - began, {"loop": "tick"})
        finally:
            if self._dirty is not None:
                await _cancel_and_wait(self._dirty)

    async def _wait_for_change(self) -> None:
        """Wait until the table or a shard has something."""
        if self._dirty is None:
            self._dirty = asyncio.create_task(self._hub.wait_dirty(), name="wait for values")
        changed = asyncio.create_task(self._shards.changed.wait(), name="wait for shards")
        try:
            await asyncio.wait({self._dirty, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel_and_wait(changed)
        if self._dirty.done():
            self._dirty.result()
            self._dirty = None

    async def _check_epochs(self) -> None:
        """After the process stood still (or was idle): whether the shards are still ours.

        A stopped process that goes on must not publish what a newer owner has overtaken.
        """
        for owned in self._shards:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    epoch = await self._image.epoch(owned.shard)
                if epoch > owned.state.epoch:
                    self._shards.supersede_owner(owned, epoch)

    async def drain_and_cut(self) -> None:
        """Drain once and cut what changed."""
        self._shards.changed.clear()
        drained = await self._hub.drain_updates()
        for shard, values in drained.items():
            self._shards.fold_columns(shard, values)
            telemetry.loop_items.add(len(values), {"loop": "drain"})
        for owned in self._shards:
            if 0 < self._hub.count_news(owned.shard) <= _FEW:
                owned.directory_wake.set()
            self._cut_batch(owned)

    def _cut_batch(self, owned: Owned) -> None:
        cut = owned.state.cut_batch() if owned.may_publish else None
        if cut is None:
            return
        owned.image_wake.set()
        owned.send_batches(
            encode_batches(
                cut.columns,
                shard=owned.shard,
                epoch=owned.state.epoch,
                sequence=cut.sequence,
                time_ns=now_ns(),
                directory_version=owned.directory.written_version,
            )
        )
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "batch", extra={"shard": owned.shard, "seq": cut.sequence, "rows": len(cut.columns)}
            )


async def _cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end, so that it leaves nothing behind."""
    task.cancel()
    await asyncio.wait({task})
