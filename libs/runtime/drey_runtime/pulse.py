"""Follows the signs of life that owners leave in the image; see `drey_core.signs`."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from drey.events.v1.values_pb2 import Heartbeat
from drey_core.errors import Unavailable
from drey_core.signs import SignsOfLife
from drey_runtime.image import Image

_LOOK_S = 0.25
_JUDGE_S = 1.5
"""Who has just begun to look waits so long for a change; an owner gives two a second."""


class Pulses:
    """Looks four times a second, so that an age is right to a quarter of a second."""

    def __init__(self, image: Image, shards: int) -> None:
        self._image, self._shards = image, shards
        self._signs = SignsOfLife()
        self._begun: float | None = None

    async def run(self) -> None:
        """Look for ever; Redis being away is waited out."""
        while True:
            with suppress(Unavailable):
                await self._read_heartbeats()
            await asyncio.sleep(_LOOK_S)

    async def read_pulses(self) -> list[tuple[Heartbeat | None, int | None]]:
        """Each shard's sign of life, and the nanoseconds since one was seen to come, or None.

        Waits a moment where this process has just begun to look. `Unavailable` without Redis.
        """
        while True:
            beats = await self._read_heartbeats()
            now = time.monotonic_ns()
            ages = [self._signs.age_ns(shard, now) for shard in range(self._shards)]
            waits = any(b is not None and age is None for b, age in zip(beats, ages, strict=True))
            assert self._begun is not None
            if not waits or time.monotonic() - self._begun > _JUDGE_S:
                return list(zip(beats, ages, strict=True))
            await asyncio.sleep(_LOOK_S / 5)

    async def _read_heartbeats(self) -> list[Heartbeat | None]:
        beats = await self._image.read_heartbeats(self._shards)
        self._begun = self._begun or time.monotonic()
        now = time.monotonic_ns()
        for shard, beat in enumerate(beats):
            sign = (beat.epoch, beat.sequence, beat.time_ns) if beat is not None else None
            self._signs.see_sign(shard, sign, now)
        return beats
