"""Lets go of writes that may still take place, once their IOCs have answered."""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from drey_core.errors import DreyError
from drey_restore.adapters.channels import ChannelPool
from drey_restore.adapters.store import RestoreStore
from drey_restore.limits import Clock
from drey_runtime.database import is_unavailable

log = logging.getLogger(__name__)

_CONNECT_S = 1.0


class ReleaseLoop:
    """Looks every second. Runs until cancelled.

    The channels were opened after the writes were sent, and a circuit is served in order: one that
    is connected says that what was sent before has been done, or dropped. Where the table cannot
    close a channel, it is the one of the write, and the table knows when its answer has come.
    """

    def __init__(
        self, store: RestoreStore, channels: ChannelPool, clock: Clock, period_s: float = 1.0
    ) -> None:
        self._store, self._channels, self._clock = store, channels, clock
        self._period_s = period_s

    async def run(self) -> None:
        """See the class."""
        while True:
            try:
                await self.release_once()
            except DreyError as error:
                if not is_unavailable(error):
                    raise
                log.debug("held writes could not be looked at: %s", error.message)
            await asyncio.sleep(self._period_s)

    async def release_once(self) -> None:
        """Once."""
        held = await self._store.unanswered_writes()
        if not held:
            return
        table = self._channels.table
        async with self._channels.use_channels([write.address for write in held]) as used:
            connected = await table.wait_connected(used.used_slots(), _CONNECT_S)
            done = connected & ~table.unanswered_slots(used.used_slots())
        answered = [held[row] for row in np.flatnonzero(done).tolist()]
        if answered:
            await self._store.release_unanswered(answered, self._clock())
            for write in answered:
                log.info(
                    "a held write is let go", extra={"pv": write.name, "address": write.address}
                )
