"""The machine as it is now, from the image: values, metadata, and which shards are silent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import MetadataIndex
from drey_core.pages import page_of
from drey_core.values import I8, Columns
from drey_runtime.directory_codec import decode_metadata
from drey_runtime.image import Image


@dataclass(frozen=True)
class LiveValues:
    """Values of channels in the order asked; `stale[i]`: its monitor is silent."""

    values: Columns
    stale: NDArray[np.bool_]
    metadata: MetadataIndex


class LiveMachine:
    """Reads the image. Raises `Unavailable` (IMAGE_UNAVAILABLE) while Redis is away."""

    def __init__(self, image: Image, shards: int, stale_after_s: float) -> None:
        self._image, self._shards = image, shards
        self._stale_after_ns = int(stale_after_s * 1e9)
        self._metadata = MetadataIndex()
        self._versions: dict[int, tuple[int, int]] = {}
        self._lock = asyncio.Lock()

    async def read(self, channels: I8, now_ns: int) -> LiveValues:
        """Values and metadata of channels (0 means none: absent), as of now."""
        numbers = np.unique(page_of(channels[channels != 0]))
        pages, _ = await self._image.read_pages(numbers.tolist())
        values = pages.columns(channels)
        async with self._lock:
            await self._refresh_metadata(numbers)
        silent = await self._silent_shards(now_ns)
        stale = silent[page_of(channels) % self._shards]
        return LiveValues(values, stale, self._metadata)

    async def _refresh_metadata(self, numbers: I8) -> None:
        """Read again the pages whose version is not the one that we have."""
        versions: dict[int, tuple[int, int]] = {}
        for found in await self._image.directory_versions(self._shards):
            if found is not None:
                stamps = zip(found.pages, found.page_versions, strict=True)
                versions |= {page: (found.epoch, version) for page, version in stamps}
        wanted = [
            n for n in numbers.tolist() if n not in versions or self._versions.get(n) != versions[n]
        ]
        raws = await self._image.metadata_bytes(wanted)
        for number, raw in zip(wanted, raws, strict=True):
            if raw is None:
                self._metadata.pages.pop(number, None)
                self._versions.pop(number, None)
                continue
            self._metadata.replace(decode_metadata(raw))
            if number in versions:
                self._versions[number] = versions[number]

    async def _silent_shards(self, now_ns: int) -> NDArray[np.bool_]:
        beats = await self._image.heartbeats(self._shards)
        return np.array(
            [
                beat is None or beat.image_failing or now_ns - beat.time_ns > self._stale_after_ns
                for beat in beats
            ],
            bool,
        )
