"""Listens to the heartbeats of all monitors: a newer owner of our shard ends our ownership."""

from __future__ import annotations

from nats.aio.msg import Msg

from drey_core.epochs import believable
from drey_core.errors import Malformed
from drey_monitor.owned import Shards
from drey_runtime.edge import decode_heartbeat, note


class EpochListener:
    """The greatest epoch heard of each shard. Works while Redis is away."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._epochs: dict[int, int] = {}

    def epoch(self, shard: int) -> int:
        """The greatest epoch heard; 0 where none was."""
        return self._epochs.get(shard, 0)

    async def on_heartbeat(self, message: Msg) -> None:
        """A `Heartbeat` came, possibly our own."""
        try:
            beat = decode_heartbeat(message.data)
            owned = self._shards.get(beat.shard)
            known_epoch = max(self.epoch(beat.shard), owned.state.epoch if owned else 0)
            if not believable(beat.epoch, known_epoch):
                raise Malformed(f"a heartbeat of epoch {beat.epoch}, where {known_epoch} is known")
        except Malformed as error:
            note(error, "heartbeats")
            return
        self._epochs[beat.shard] = max(known_epoch, beat.epoch)
        if owned is not None and beat.epoch > owned.state.epoch:
            self._shards.supersede(owned, beat.epoch)
