"""The catalog from `DirectoryService`, and from the image where that is away."""

from __future__ import annotations

import grpc

from drey_runtime.directory_codec import check_catalog, encode_catalog
from drey_runtime.image import Image
from drey_runtime.upstream import CatalogPagesClient, CatalogUpdate


def directory_client(channel: grpc.aio.Channel) -> CatalogPagesClient[bytes]:
    """`CatalogSource` over the snapshot service."""
    return CatalogPagesClient(channel, lambda raw: (check_catalog(raw), raw))


class ImageCatalog:
    """`CatalogSource` over what the last owners left in the image; whole, whatever is asked."""

    def __init__(self, image: Image, shards: int) -> None:
        self._image, self._shards = image, shards

    async def fetch_changes(self, since: int) -> CatalogUpdate[bytes]:
        """See `CatalogSource`. Version 0 where the image has no directory."""
        versions = [v for v in await self._image.directory_versions(self._shards) if v]
        numbers = sorted({p for v in versions for p in v.pages})
        pages = await self._image.catalog_pages(numbers)
        # a shard that lags behind makes the whole as old as itself, so that nothing is skipped
        version = min((v.catalog_version for v in versions), default=0)
        return CatalogUpdate(version, {p.number: encode_catalog(p) for p in pages}, whole=True)
