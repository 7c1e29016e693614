"""The catalog from `DirectoryService`, and from the image where that is away."""

from __future__ import annotations

import grpc

from drey.internal.directory.v1.directory_service_pb2 import GetCatalogPagesRequest
from drey.internal.directory.v1.directory_service_pb2_grpc import DirectoryServiceStub
from drey.storage.v1.pages_pb2 import CatalogPage
from drey_core.errors import Unavailable
from drey_monitor.ports import CatalogUpdate
from drey_runtime.directory_codec import encode_catalog
from drey_runtime.image import Image

_DEADLINE_S = 10.0


class DirectoryClient:
    """`CatalogSource` over the snapshot service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = DirectoryServiceStub(channel)

    async def fetch(self, since: int) -> CatalogUpdate:
        """See `CatalogSource`."""
        pages: dict[int, bytes] = {}
        version = since
        try:
            call = self._stub.GetCatalogPages(
                GetCatalogPagesRequest(since_version=since),
                timeout=_DEADLINE_S,
            )
            async for response in call:
                version = response.version
                pages.update((_number(raw), raw) for raw in response.pages)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(
                f"the catalog cannot be read: {error.code().name}: {error.details()}"
            ) from error
        return CatalogUpdate(version, pages, whole=since == 0)


class ImageCatalog:
    """`CatalogSource` over what the last owners left in the image; whole, whatever is asked."""

    def __init__(self, image: Image, shards: int) -> None:
        self._image, self._shards = image, shards

    async def fetch(self, since: int) -> CatalogUpdate:
        """See `CatalogSource`. Version 0 where the image has no directory."""
        versions = [v for v in await self._image.directory_versions(self._shards) if v]
        numbers = sorted({p for v in versions for p in v.pages})
        pages = await self._image.catalog_pages(numbers)
        # a shard that lags behind makes the whole as old as itself, so that nothing is skipped
        version = min((v.catalog_version for v in versions), default=0)
        return CatalogUpdate(version, {p.number: encode_catalog(p) for p in pages}, whole=True)


def _number(raw: bytes) -> int:
    """Number of an encoded page: its first field, a varint, wherever our own codec wrote it."""
    if raw[:1] != b"\x08":
        return int(CatalogPage.FromString(raw).number)
    number, at = 0, 1
    while raw[at] & 0x80:
        number |= (raw[at] & 0x7F) << 7 * (at - 1)
        at += 1
    return number | raw[at] << 7 * (at - 1)
