"""Listens to the heartbeats of all monitors: a newer owner of our shard ends our ownership."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from nats.aio.msg import Msg

from drey.events.v1.values_pb2 import Heartbeat
from drey_monitor.owned import Shards


class Rivals:
    """The greatest epoch heard of each shard. Works while Redis is away."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._epochs: dict[int, int] = {}
        self.malformed = 0

    def epoch(self, shard: int) -> int:
        """The greatest epoch heard; 0 where none was."""
        return self._epochs.get(shard, 0)

    async def on_heartbeat(self, message: Msg) -> None:
        """A `Heartbeat` came, possibly our own."""
        try:
            beat = Heartbeat.FromString(message.data)
        except DecodeError:
            self.malformed += 1
            return
        self._epochs[beat.shard] = max(self.epoch(beat.shard), beat.epoch)
        owned = self._shards.get(beat.shard)
        if owned is not None and beat.epoch > owned.state.epoch:
            self._shards.supersede(owned, beat.epoch)
