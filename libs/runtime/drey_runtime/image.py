"""The image in Redis: the latest value of every channel, as pages, fenced by epoch.

Keys, under the namespace: `shard:{n}:epoch`, `shard:{n}:heartbeat`, `shard:{n}:directory`,
`page:{p}`, `catalog:{p}`, `metadata:{p}` (see `drey.events.v1` and `drey.storage.v1`). A write of
an owner goes through a script that refuses an epoch older than the shard's, all pages of it or
none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat
from drey.storage.v1.pages_pb2 import ImagePage
from drey_core.directory import CatalogPage, MetadataPage
from drey_core.election import EPOCH_STEP
from drey_core.errors import Aborted, Malformed, Reason, Unavailable
from drey_core.page_image import encode_page, fill_pages
from drey_core.pages import PAGE_SLOTS, Pages
from drey_core.slot_sequences import Ages
from drey_runtime.directory_codec import decode_catalog, decode_metadata
from drey_runtime.edge import (
    SEQUENCE_LIMIT,
    decode_directory_version,
    decode_heartbeat,
    note_error,
    parse_guard,
    require_stamp,
)
from drey_runtime.retrying import reraise_cancellation

# KEYS[1] is the shard's epoch, ARGV[1] ours. Returns the epoch in force when it is greater: then
# nothing is written. Epochs are compared as strings of 20 digits, because numbers of Lua are
# doubles. One above ARGV[2] was never an owner's, and is overwritten.
_FENCE = """
local held = redis.call('GET', KEYS[1])
if held and #held == 20 and held > ARGV[1] and held <= ARGV[2] then return held end
if held ~= ARGV[1] then redis.call('SET', KEYS[1], ARGV[1]) end
"""
# The other keys are set to ARGV[3..].
_SET = (
    _FENCE
    + """
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1]) end
return '0'
"""
)
# A write of many keys is laid beside them in parts, and put in place by one script. What an owner
# that died leaves beside them goes by itself.
_STAGE = (
    _FENCE
    + """
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', 60) end
return '0'
"""
)
_COMMIT = (
    _FENCE
    + """
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i] .. ARGV[3]) == 0 then return 'lost' end
end
for i = 2, #KEYS do
  redis.call('RENAME', KEYS[i] .. ARGV[3], KEYS[i])
  redis.call('PERSIST', KEYS[i])
end
return '0'
"""
)
_PART_KEYS = 2000
_PART_BYTES = 32 << 20
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
class ImageMemory:
    """Bytes that Redis uses and that it may use (0: no limit), what it does at the limit, and how
    many keys it has thrown away there since it started."""

    used: int
    most: int
    policy: str
    evicted_keys: int


@dataclass(frozen=True, slots=True)
class PageStamps:
    """Stamps of pages read from the image; arrays of shape (n,); epoch 0: the page is not there."""

    epoch: NDArray[np.uint64]
    sequence: NDArray[np.uint64]
    time_ns: NDArray[np.int64]
    ages: Ages
    """Shape (n, 256): how many batches before `sequence` each slot changed, or more."""


class Image:
    """The image of one site. All methods raise `Unavailable` when Redis is away, within 2 s."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis, self._ns = redis, namespace
        self._set = redis.register_script(_SET)
        self._stage = redis.register_script(_STAGE)
        self._commit = redis.register_script(_COMMIT)

    @classmethod
    @asynccontextmanager
    async def open_image(cls, url: str, namespace: str) -> AsyncIterator[Image]:
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

    def _shard_key(self, *parts: object) -> str:
        return ":".join([self._ns, *map(str, parts)])

    async def ping_server(self) -> None:
        """Whether Redis answers."""
        with _translate_errors():
            await self._redis.ping()

    async def memory(self) -> ImageMemory:
        """What Redis has of memory, for the image and whatever else is in it."""
        with _translate_errors():
            found = await self._redis.info()
        return ImageMemory(
            int(found["used_memory"]),
            int(found.get("maxmemory", 0)),
            str(found.get("maxmemory_policy", "")),
            int(found.get("evicted_keys", 0)),
        )

    # --- writing, by the owner of a shard ---

    async def epoch(self, shard: int) -> int:
        """The epoch in force; 0 when the image has none."""
        (raw,) = await self._read_keys([self._shard_key("shard", shard, "epoch")])
        return _parse_epoch(raw)

    async def claim_shard(self, shard: int, epoch: int) -> None:
        """Refuse every older epoch from here on. Raises `EpochSuperseded` as the writes do."""
        await self._fenced_set(shard, epoch, {})

    async def write_pages(
        self,
        shard: int,
        epoch: int,
        sequence: int,
        time_ns: int,
        pages: Pages,
        ages: Ages | None = None,
    ) -> None:
        """Write pages of the shard. Raises `EpochSuperseded` when the epoch is too old.

        `ages`, shape (n, 256): how many batches ago each slot changed; None: not known.
        """
        items = {
            self._shard_key("page", number): ImagePage(
                number=number,
                epoch=epoch,
                sequence=sequence,
                time_ns=time_ns,
                page=encode_page(pages, index),
                slot_ages=b"" if ages is None else ages[index].astype("<u2").tobytes(),
            ).SerializeToString()
            for index, number in enumerate(pages.numbers.tolist())
        }
        await self._fenced_set(shard, epoch, items)

    async def write_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Write the sign of life."""
        key = self._shard_key("shard", heartbeat.shard, "heartbeat")
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
        items = {self._shard_key("catalog", n): raw for n, raw in catalog.items()}
        items |= {self._shard_key("metadata", n): raw for n, raw in metadata.items()}
        items[self._shard_key("shard", version.shard, "directory")] = version.SerializeToString()
        await self._fenced_set(version.shard, version.epoch, items)

    async def _fenced_set(self, shard: int, epoch: int, items: Mapping[str, bytes]) -> None:
        """Set all of `items` or none, and none when a newer owner has the shard."""
        parts = list(_name_parts(items))
        if len(parts) == 1:
            await self._run_script(self._set, shard, epoch, items, list(items.values()))
            return
        beside = f":next:{epoch}"
        for names in parts:
            staged = [name + beside for name in names]
            await self._run_script(self._stage, shard, epoch, staged, [items[n] for n in names])
        await self._run_script(self._commit, shard, epoch, items, [beside.encode()])

    async def _run_script(
        self,
        script: AsyncScript,
        shard: int,
        epoch: int,
        names: Iterable[str],
        values: Sequence[bytes],
    ) -> None:
        with _translate_errors():
            held = await script(
                keys=[self._shard_key("shard", shard, "epoch"), *names],
                args=[f"{epoch:020d}", f"{epoch + EPOCH_STEP:020d}", *values],
            )
        if held == b"lost":
            raise _unavailable_image("it has lost a part of what was written")
        if held != b"0":
            raise EpochSuperseded(shard, int(held), epoch)

    # --- reading ---

    async def read_pages(self, numbers: Sequence[int]) -> tuple[Pages, PageStamps]:
        """Pages by number (ascending), those not there or torn with every slot absent."""
        return _decode_pages(
            numbers, await self._read_keys([self._shard_key("page", n) for n in numbers])
        )

    async def read_shard(self, shard: int, numbers: Sequence[int]) -> tuple[Pages, PageStamps, int]:
        """As `read_pages`, with the epoch in force in the shard; all of one instant."""
        epoch, *raws = await self._read_keys(
            [
                self._shard_key("shard", shard, "epoch"),
                *(self._shard_key("page", n) for n in numbers),
            ]
        )
        return *_decode_pages(numbers, raws), _parse_epoch(epoch)

    async def read_heartbeats(self, shards: int) -> list[Heartbeat | None]:
        """The last sign of life of each shard; None for one that never had an owner."""
        raws = await self._read_keys(
            [self._shard_key("shard", s, "heartbeat") for s in range(shards)]
        )
        beats = [_accept_page(decode_heartbeat, raw, "image heartbeats") for raw in raws]
        return [b if b is not None and b.shard == s else None for s, b in enumerate(beats)]

    async def directory_versions(self, shards: int) -> list[DirectoryVersion | None]:
        """The directory version of each shard, with all of its pages; None where there is none."""
        raws = await self._read_keys(
            [self._shard_key("shard", s, "directory") for s in range(shards)]
        )
        versions = [_accept_page(decode_directory_version, raw, "image directory") for raw in raws]
        return [v if v is not None and v.shard == s else None for s, v in enumerate(versions)]

    async def directory_version(self, shard: int) -> DirectoryVersion | None:
        """That of one shard."""
        (raw,) = await self._read_keys([self._shard_key("shard", shard, "directory")])
        return _accept_page(decode_directory_version, raw, "image directory")

    async def catalog_pages(self, numbers: Sequence[int]) -> list[CatalogPage]:
        """Catalog pages by number; those not there or torn are left out."""
        raws = await self.catalog_bytes(numbers)
        pages = [catalog_page(n, raw) for n, raw in zip(numbers, raws, strict=True)]
        return [p for p in pages if p is not None]

    async def catalog_bytes(self, numbers: Sequence[int]) -> list[bytes | None]:
        """Catalog pages by number as they are in the image; give them to `catalog_page`."""
        return await self._read_keys([self._shard_key("catalog", n) for n in numbers])

    async def metadata_pages(self, numbers: Sequence[int]) -> list[MetadataPage]:
        """Metadata pages by number; those not there or torn are left out."""
        raws = await self.metadata_bytes(numbers)
        pages = [metadata_page(n, raw) for n, raw in zip(numbers, raws, strict=True)]
        return [p for p in pages if p is not None]

    async def metadata_bytes(self, numbers: Sequence[int]) -> list[bytes | None]:
        """Metadata pages by number as they are in the image; give them to `metadata_page`."""
        return await self._read_keys([self._shard_key("metadata", n) for n in numbers])

    async def lost_pages(self, numbers: Sequence[int]) -> tuple[list[int], list[int]]:
        """Which pages are not there: of values, and of the directory (catalog or metadata)."""
        kinds = ("page", "catalog", "metadata")
        keys = [self._shard_key(kind, n) for kind in kinds for n in numbers]
        if not keys:
            return [], []
        with _translate_errors():
            if await self._redis.exists(*keys) == len(keys):
                return [], []
            there = np.array(await self._commands_exists(keys), bool).reshape(3, len(numbers))
        wanted = np.asarray(numbers)
        return wanted[~there[0]].tolist(), wanted[~(there[1] & there[2])].tolist()

    async def _commands_exists(self, keys: Sequence[str]) -> list[int]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.exists(key)
            return await pipeline.execute()

    async def _read_keys(self, keys: list[str]) -> list[bytes | None]:
        if not keys:
            return []
        with _translate_errors():
            stored_bytes: list[bytes | None] = await self._redis.mget(keys)  # type: ignore[assignment]
        return stored_bytes


_T = TypeVar("_T")


def _accept_page(decode: Callable[[bytes], _T], raw: bytes | None, source: str) -> _T | None:
    """What is not there or torn is None; the latter is counted."""
    if not raw:
        return None
    try:
        return decode(raw)
    except Malformed as error:
        note_error(error, source)
        return None


def catalog_page(number: int, raw: bytes | None) -> CatalogPage | None:
    """A catalog page of the image; None for one that is not there or torn."""
    page = _accept_page(decode_catalog, raw, "image catalog pages")
    return page if page is not None and page.number == number else None


def metadata_page(number: int, raw: bytes | None) -> MetadataPage | None:
    """A metadata page of the image; None for one that is not there or torn."""
    page = _accept_page(decode_metadata, raw, "image metadata pages")
    return page if page is not None and page.number == number else None


def _parse_epoch(raw: bytes | None) -> int:
    """The epoch in force; 0 where there is none, or something that never was one."""
    if not raw:
        return 0
    epoch = int(raw) if len(raw) == 20 and raw.isdigit() else SEQUENCE_LIMIT + 1
    if epoch > SEQUENCE_LIMIT:
        note_error(Malformed(f"an epoch {raw[:32]!r}"), "image epochs")
        return 0
    return epoch


def _name_parts(items: Mapping[str, bytes]) -> Iterator[list[str]]:
    """Names in parts of a bounded number and size; at least one, which may be empty."""
    part: list[str] = []
    size = 0
    for name, raw in items.items():
        if part and (len(part) == _PART_KEYS or size + len(raw) > _PART_BYTES):
            yield part
            part, size = [], 0
        part.append(name)
        size += len(raw)
    yield part


def _decode_pages(numbers: Sequence[int], raws: list[bytes | None]) -> tuple[Pages, PageStamps]:
    n = len(numbers)
    pages = Pages.empty_pages(np.asarray(numbers, np.int64))
    stamps = PageStamps(
        np.zeros(n, np.uint64),
        np.zeros(n, np.uint64),
        np.zeros(n, np.int64),
        np.zeros((n, PAGE_SLOTS), np.uint16),
    )
    have = [i for i, raw in enumerate(raws) if raw]

    def refuse(row: int, error: Malformed) -> None:
        note_error(error, "image pages")
        stamps.epoch[row] = stamps.sequence[row] = stamps.time_ns[row] = 0

    fill_pages(pages, have, _image_bodies(numbers, raws, stamps), refuse)
    return pages, stamps


def _image_bodies(
    numbers: Sequence[int], raws: list[bytes | None], stamps: PageStamps
) -> Iterator[bytes]:
    """The image forms of the pages that are there, their stamps noted; empty for a torn one.

    One at a time: fresh memory for all of them takes longer to get than they take to decode.
    """
    for i, raw in enumerate(raws):
        if raw:
            image_page = _accept_page(_image_page, raw, "image pages")
            if image_page is None or image_page.number != numbers[i]:
                yield b""
                continue
            stamps.epoch[i] = image_page.epoch
            stamps.sequence[i] = image_page.sequence
            stamps.time_ns[i] = image_page.time_ns
            if image_page.slot_ages:
                stamps.ages[i] = np.frombuffer(image_page.slot_ages, "<u2")
            yield image_page.page


def _image_page(raw: bytes) -> ImagePage:
    with parse_guard("an image page"):
        image_page = ImagePage.FromString(raw)
    require_stamp("an image page", image_page.epoch, image_page.sequence)
    if len(image_page.slot_ages) not in (0, 2 * PAGE_SLOTS):
        raise Malformed(f"an image page: slot_ages has {len(image_page.slot_ages)} bytes")
    return image_page


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Redis's errors as ours, and a cancellation that it lost raised all the same."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        reraise_cancellation()
        raise _unavailable_image(error) from error
    reraise_cancellation()


def _unavailable_image(error: object) -> Unavailable:
    return Unavailable(f"Redis is away: {error}", reason=Reason.IMAGE_UNAVAILABLE)
