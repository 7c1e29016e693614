"""What the gateway needs of the world outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drey.common.v1 import selector_pb2
from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat
from drey_core.directory import CatalogPage, MetadataPage
from drey_core.pages import Pages
from drey_core.values import I8
from drey_runtime.image import PageStamps

U8 = NDArray[np.uint64]


class ImageReader(Protocol):
    """The image in Redis. `drey_runtime.image.Image` is one; all raise `Unavailable`."""

    async def read_shard(self, shard: int, numbers: Sequence[int]) -> tuple[Pages, PageStamps, int]:
        """Pages of a shard by number, ascending, and the epoch in force, as of one instant."""
        ...

    async def read_heartbeats(self, shards: int) -> list[Heartbeat | None]:
        """Last signs of life."""
        ...

    async def directory_versions(self, shards: int) -> list[DirectoryVersion | None]:
        """Versions of the directory by shard."""
        ...

    async def catalog_pages(self, numbers: Sequence[int]) -> list[CatalogPage]: ...

    async def metadata_pages(self, numbers: Sequence[int]) -> list[MetadataPage]:
        """Metadata pages."""
        ...


class Resolver(Protocol):
    """Whoever knows ids, tags and scopes."""

    async def resolve_selector(
        self, selector: selector_pb2.Selector, allow_unknown: bool
    ) -> tuple[I8, list[str]]:
        """(numbers of PVs, names not found). Raises as `DirectoryService.ResolveChannels`."""
        ...
