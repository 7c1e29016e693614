"""Listens to the heartbeats of all monitors: a newer owner of our shard ends our ownership."""

from __future__ import annotations

import math
import time

from drey_core.election import epoch_believable
from drey_core.errors import Malformed
from drey_monitor.owned import Shards
from drey_runtime.edge import decode_heartbeat, note_error
from drey_runtime.nats_client import Msg

_SETTLED_S = 5.0
"""After so long the rate of a new owner is its own."""


class HeardBeat:
    """The owner of a shard as its heartbeats tell. Times are of one monotonic clock."""

    def __init__(self, owner: str, epoch: int) -> None:
        self.owner, self.epoch = owner, epoch
        self.heard_at = self.since = -math.inf
        self.channels = self.connected = 0
        self.updates_per_s: float | None = None

    def hear_beat(self, owner: str, epoch: int, now: float) -> None:
        """A heartbeat came."""
        if epoch != self.epoch or self.since == -math.inf:
            self.since = now
        self.owner, self.epoch, self.heard_at = owner, epoch, now

    def note_load(self, channels: int, connected: int, updates_per_s: float) -> None:
        """What it costs. An owner that has just begun has not measured: the rate before stands."""
        self.channels, self.connected = channels, connected
        if self.heard_at - self.since >= _SETTLED_S:
            self.updates_per_s = updates_per_s


class EpochListener:
    """The greatest epoch heard of each shard. Works while Redis is away."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._epochs: dict[int, int] = {}
        self.beats: dict[int, HeardBeat] = {}
        """What the owner of each shard said last."""

    def epoch(self, shard: int) -> int:
        """The greatest epoch heard; 0 where none was."""
        return self._epochs.get(shard, 0)

    async def on_heartbeat(self, message: Msg) -> None:
        """A `Heartbeat` came, possibly our own."""
        try:
            beat = decode_heartbeat(message.data)
            owned = self._shards.get(beat.shard)
            known_epoch = max(self.epoch(beat.shard), owned.state.epoch if owned else 0)
            if not epoch_believable(beat.epoch, known_epoch):
                raise Malformed(f"a heartbeat of epoch {beat.epoch}, where {known_epoch} is known")
        except Malformed as error:
            note_error(error, "heartbeats")
            return
        self._epochs[beat.shard] = max(known_epoch, beat.epoch)
        if beat.epoch == self._epochs[beat.shard]:
            heard = self.beats.setdefault(beat.shard, HeardBeat(beat.owner, beat.epoch))
            heard.hear_beat(beat.owner, beat.epoch, time.monotonic())
            heard.note_load(beat.channels, beat.connected, beat.updates_per_s)
        if owned is not None and beat.epoch > owned.state.epoch:
            self._shards.supersede_owner(owned, beat.epoch)
