"""The live machine by its image in Redis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drey.events.v1.values_pb2 import Heartbeat
from drey_core.pages import Pages, shard_of_page
from drey_core.values import I8
from drey_runtime.clock import now_ns
from drey_runtime.image import Image
from drey_runtime.pulse import Pulses
from drey_runtime.waiting import run_together
from drey_snapshot.snapshots.domain.gates import ShardPulse
from drey_snapshot.snapshots.domain.records import ShardStamp


@dataclass(frozen=True, slots=True)
class ImageReading:
    """Pages of the image at `time_ns`, writable, and the pulse of each shard that has one of them.

    `shard_count`: see `shard_of_page`.
    """

    pages: Pages
    pulses: list[ShardPulse]
    time_ns: int
    shard_count: int

    def stale_pages(self, max_age_ns: int) -> I8:
        """Numbers of the pages whose shard is not fresh."""
        stale = [p.stamp.shard for p in self.pulses if not p.is_fresh(max_age_ns)]
        shards = shard_of_page(self.pages.numbers, self.shard_count)
        return self.pages.numbers[np.isin(shards, stale)]


class LiveSource:
    """Reads the image; `Unavailable` (IMAGE_UNAVAILABLE) while Redis is away."""

    def __init__(self, image: Image, pulses: Pulses, shards: int) -> None:
        self._image, self._pulses, self._shards = image, pulses, shards

    async def read_pages(self, numbers: I8) -> ImageReading:
        """Pages by number, ascending, and the pulses of their shards."""
        pulses, (pages, _) = await run_together(
            self._pulses.read_pulses(), self._image.read_pages(numbers.tolist())
        )
        used = np.unique(shard_of_page(numbers, self._shards)).tolist()
        return ImageReading(
            pages, [_shard_pulse(s, *pulses[s]) for s in used], now_ns(), self._shards
        )


def _shard_pulse(shard: int, beat: Heartbeat | None, age_ns: int | None) -> ShardPulse:
    if beat is None:
        return ShardPulse(ShardStamp(shard, 0, 0, 0), False, False)
    stamp = ShardStamp(shard, beat.epoch, beat.sequence, -1 if age_ns is None else age_ns)
    return ShardPulse(stamp, True, beat.image_failing)
