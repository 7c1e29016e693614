"""The image in Redis: the latest value of every channel, as pages, fenced by epoch.

Keys, under the namespace: `shard:{n}:epoch`, `shard:{n}:heartbeat`, `shard:{n}:directory`,
`page:{p}`, `catalog:{p}`, `metadata:{p}` (see `drey.events.v1` and `drey.storage.v1`). A write of
an owner goes through a script that refuses an epoch older than the shard's, all pages of it or
none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat
from drey.storage.v1.pages_pb2 import ImagePage
from drey_core.directory import CatalogPage, MetadataPage
from drey_core.errors import Aborted, Reason, Unavailable
from drey_core.pages import Pages, encode_page, fill_pages
from drey_runtime.cancellation import reraise_cancellation
from drey_runtime.directory_codec import decode_catalog, decode_metadata

# KEYS[1] is the shard's epoch; the other keys are set to ARGV[2..]. Returns the epoch in force when
# it is greater than ARGV[1] (nothing is written), else 0. Epochs are compared as strings of 20
# digits, because numbers of Lua are doubles.
_FENCED_SET = """
local held = redis.call('GET', KEYS[1])
if held and held > ARGV[1] then return held end
if held ~= ARGV[1] then redis.call('SET', KEYS[1], ARGV[1]) end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i]) end
return '0'
"""
_CHUNK = 2000
_CONNECTIONS = 32
_WAIT_S = 2.0


class EpochSuperseded(Aborted):
    """A newer owner has the shard, under `epoch`: stop publishing at once."""

    def __init__(self, shard: int, epoch: int, ours: int) -> None:
        super().__init__(
            f"shard {shard} belongs to epoch {epoch}, not {ours} any more",
            metadata={"shard": str(shard), "epoch": str(epoch)},
        )
        self.epoch = epoch


@dataclass(frozen=True, slots=True)
class PageStamps:
    """Stamps of pages read from the image; arrays of shape (n,); epoch 0: the page is not there."""

    epoch: NDArray[np.uint64]
    sequence: NDArray[np.uint64]
    time_ns: NDArray[np.int64]


class Image:
    """The image of one site. All methods raise `Unavailable` when Redis is away, within 2 s."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis, self._ns = redis, namespace
        self._script = redis.register_script(_FENCED_SET)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, namespace: str) -> AsyncIterator[Image]:
        """An image over a pool of its own, which waits for a free connection. Doesn't connect yet.

        A process needs at most 32 connections, whatever it does at a time.
        """
        pool = BlockingConnectionPool.from_url(
            url,
            socket_timeout=2,
            socket_connect_timeout=1,
            retry=Retry(NoBackoff(), 1),
            max_connections=_CONNECTIONS,
            timeout=_WAIT_S,
        )
        redis = Redis.from_pool(pool)
        try:
            yield cls(redis, namespace)
        finally:
            await redis.aclose()

    def _key(self, *parts: object) -> str:
        return ":".join([self._ns, *map(str, parts)])

    async def ping(self) -> None:
        """Whether Redis answers."""
        with _translated():
            await self._redis.ping()

    # --- writing, by the owner of a shard ---

    async def epoch(self, shard: int) -> int:
        """The epoch in force; 0 when the image has none."""
        return int(await self._get(self._key("shard", shard, "epoch")) or b"0")

    async def claim(self, shard: int, epoch: int) -> None:
        """Refuse every older epoch from here on. Raises `EpochSuperseded` as the writes do."""
        await self._fenced_set(shard, epoch, {})

    async def write_pages(
        self, shard: int, epoch: int, sequence: int, time_ns: int, pages: Pages
    ) -> None:
        """Write pages of the shard. Raises `EpochSuperseded` when the epoch is too old."""
        items = {
            self._key("page", number): ImagePage(
                number=number,
                epoch=epoch,
                sequence=sequence,
                time_ns=time_ns,
                page=encode_page(pages, index),
            ).SerializeToString()
            for index, number in enumerate(pages.numbers.tolist())
        }
        await self._fenced_set(shard, epoch, items)

    async def write_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Write the sign of life."""
        key = self._key("shard", heartbeat.shard, "heartbeat")
        await self._fenced_set(
            heartbeat.shard, heartbeat.epoch, {key: heartbeat.SerializeToString()}
        )

    async def write_directory(
        self,
        version: DirectoryVersion,
        catalog: Mapping[int, bytes],
        metadata: Mapping[int, bytes],
    ) -> None:
        """Write encoded directory pages by number, and then the version that names them."""
        items = {self._key("catalog", n): raw for n, raw in catalog.items()}
        items |= {self._key("metadata", n): raw for n, raw in metadata.items()}
        items[self._key("shard", version.shard, "directory")] = version.SerializeToString()
        await self._fenced_set(version.shard, version.epoch, items)

    async def _fenced_set(self, shard: int, epoch: int, items: Mapping[str, bytes]) -> None:
        names = list(items)
        stamp = f"{epoch:020d}"
        with _translated():
            for start in range(0, max(len(names), 1), _CHUNK):
                chunk = names[start : start + _CHUNK]
                held = await self._script(
                    keys=[self._key("shard", shard, "epoch"), *chunk],
                    args=[stamp, *(items[n] for n in chunk)],
                )
                if held != b"0":
                    raise EpochSuperseded(shard, int(held), epoch)

    # --- reading ---

    async def read_pages(self, numbers: Sequence[int]) -> tuple[Pages, PageStamps]:
        """Pages by number (ascending), those not there with every slot absent."""
        return _decoded(numbers, await self._mget([self._key("page", n) for n in numbers]))

    async def read_shard(self, shard: int, numbers: Sequence[int]) -> tuple[Pages, PageStamps, int]:
        """As `read_pages`, with the epoch in force in the shard; all of one instant."""
        epoch, *raws = await self._mget(
            [self._key("shard", shard, "epoch"), *(self._key("page", n) for n in numbers)]
        )
        return *_decoded(numbers, raws), int(epoch or b"0")

    async def heartbeats(self, shards: int) -> list[Heartbeat | None]:
        """The last sign of life of each shard; None for one that never had an owner."""
        raws = await self._mget([self._key("shard", s, "heartbeat") for s in range(shards)])
        return [Heartbeat.FromString(raw) if raw else None for raw in raws]

    async def directory_versions(self, shards: int) -> list[DirectoryVersion | None]:
        """The directory version of each shard, with all of its pages; None where there is none."""
        raws = await self._mget([self._key("shard", s, "directory") for s in range(shards)])
        return [DirectoryVersion.FromString(raw) if raw else None for raw in raws]

    async def catalog_pages(self, numbers: Sequence[int]) -> list[CatalogPage]:
        """Catalogue pages by number; those not there are left out."""
        raws = await self._mget([self._key("catalog", n) for n in numbers])
        return [decode_catalog(raw) for raw in raws if raw]

    async def metadata_pages(self, numbers: Sequence[int]) -> list[MetadataPage]:
        """Metadata pages by number; those not there are left out."""
        return [decode_metadata(raw) for raw in await self.metadata_bytes(numbers) if raw]

    async def metadata_bytes(self, numbers: Sequence[int]) -> list[bytes | None]:
        """Encoded metadata pages by number, as they are stored in snapshots."""
        return await self._mget([self._key("metadata", n) for n in numbers])

    async def _get(self, key: str) -> bytes | None:
        (found,) = await self._mget([key])
        return found

    async def _mget(self, keys: list[str]) -> list[bytes | None]:
        if not keys:
            return []
        with _translated():
            found: list[bytes | None] = await self._redis.mget(keys)  # type: ignore[assignment]
        return found


def _decoded(numbers: Sequence[int], raws: list[bytes | None]) -> tuple[Pages, PageStamps]:
    n = len(numbers)
    pages = Pages.empty(np.asarray(numbers, np.int64))
    stamps = PageStamps(np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.int64))
    have = [i for i, raw in enumerate(raws) if raw]
    fill_pages(pages, have, _bodies(raws, stamps))
    return pages, stamps


def _bodies(raws: list[bytes | None], stamps: PageStamps) -> Iterator[bytes]:
    """The image forms of the pages that are there, their stamps noted.

    One at a time: fresh memory for all of them takes longer to get than they take to decode.
    """
    for i, raw in enumerate(raws):
        if raw:
            found = ImagePage.FromString(raw)
            stamps.epoch[i] = found.epoch
            stamps.sequence[i] = found.sequence
            stamps.time_ns[i] = found.time_ns
            yield found.page


@contextmanager
def _translated() -> Iterator[None]:
    """Redis's errors as ours, and a cancellation that it lost raised all the same."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        reraise_cancellation()
        raise _away(error) from error
    reraise_cancellation()


def _away(error: BaseException) -> Unavailable:
    return Unavailable(f"Redis is away: {error}", reason=Reason.IMAGE_UNAVAILABLE)
