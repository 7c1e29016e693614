"""The image in a real Valkey: what is written comes back, and an older epoch writes nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat
from drey_core.directory import CatalogPage, MetadataPage
from drey_core.errors import Reason, Unavailable
from drey_core.page_image import encode_page
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_SLOTS
from drey_core.values import ARRAY, Columns, Kind
from drey_runtime import image as image_module
from drey_runtime.directory_codec import encode_catalog, encode_metadata
from drey_runtime.image import EpochSuperseded, Image
from drey_stack import Valkey


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[Valkey]:
    async with Valkey(tmp_path / "valkey") as part:
        yield part


@pytest.fixture
async def image(valkey: Valkey) -> AsyncIterator[Image]:
    async with Image.open_image(valkey.url, "test") as found:
        yield found


def table() -> PageTable:
    out = PageTable(np.array([1, 3]))
    values = [1.5, -0.0, b"\xff", [1, 2, 3]]
    kinds = [Kind.FLOAT64, Kind.FLOAT64, Kind.STRING, Kind.INT32 | ARRAY]
    out.apply_batch(Columns.from_values(np.array([256, 257, 800, 801]), values, kinds))
    return out


async def test_ages_of_slots_come_back_and_none_means_new(image: Image) -> None:
    pages = table().take_pages(np.arange(1))
    ages = np.arange(PAGE_SLOTS, dtype=np.uint16)[None, :] * 257
    await image.write_pages(0, 1, 70_000, 0, pages, ages)
    _, stamps = await image.read_pages(pages.numbers.tolist())
    assert (stamps.ages == ages).all()
    await image.write_pages(0, 1, 70_001, 0, pages)
    _, stamps = await image.read_pages(pages.numbers.tolist())
    assert not stamps.ages.any()


async def test_pages_come_back_bit_for_bit_with_their_stamps(image: Image) -> None:
    pages = table().take_pages(np.arange(2))
    await image.write_pages(0, 7, 9, 11, pages)
    got, stamps = await image.read_pages([1, 2, 3])
    assert stamps.epoch.tolist() == [7, 0, 7]
    assert stamps.sequence.tolist() == [9, 0, 9]
    assert [encode_page(got, i) for i in (0, 2)] == [encode_page(pages, i) for i in (0, 1)]
    assert not got.values["state"][1].any()


async def test_an_older_epoch_changes_nothing(image: Image) -> None:
    pages = table().take_pages(np.arange(2))
    await image.write_pages(0, 8, 1, 0, pages)
    pages.values["data"][:] = 0
    with pytest.raises(EpochSuperseded):
        await image.write_pages(0, 7, 99, 0, pages)
    with pytest.raises(EpochSuperseded):
        await image.write_heartbeat(Heartbeat(shard=0, epoch=7))
    _, stamps = await image.read_pages([1, 3])
    assert stamps.epoch.tolist() == [8, 8]
    await image.write_pages(1, 7, 1, 0, pages)  # another shard has epochs of its own
    assert await image.epoch(0) == 8
    assert await image.epoch(1) == 7


async def test_epochs_beyond_what_a_double_holds_are_told_apart(image: Image) -> None:
    pages = table().take_pages(np.arange(2))
    await image.write_pages(0, 2**60 + 1, 1, 0, pages)
    with pytest.raises(EpochSuperseded):
        await image.write_pages(0, 2**60, 2, 0, pages)


async def test_directory_and_heartbeats(image: Image) -> None:
    catalog, metadata = CatalogPage.empty_page(1), MetadataPage.empty_page(1)
    catalog.pv_number[3] = 5
    catalog.names[3] = "A:é"
    metadata.labels[3] = (b"OFF, really", b"\xff")
    metadata.units[3] = b"\xb0C"
    version = DirectoryVersion(shard=0, epoch=1, version=2, pages=[1], page_versions=[2])
    await image.write_directory(
        version, {1: encode_catalog(catalog)}, {1: encode_metadata(metadata)}
    )
    (got,) = await image.catalog_pages([1, 2])
    assert (got.pv_number[3], got.names[3]) == (5, "A:é")
    (got_metadata,) = await image.metadata_pages([1])
    assert got_metadata.labels == {3: (b"OFF, really", b"\xff")}
    assert got_metadata.units[3] == b"\xb0C"
    assert (await image.directory_versions(2)) == [version, None]
    beat = Heartbeat(shard=1, epoch=3, sequence=4)
    await image.write_heartbeat(beat)
    assert (await image.read_heartbeats(2)) == [None, beat]


async def test_when_redis_is_away_it_says_so_and_recovers(image: Image, valkey: Valkey) -> None:
    pages = table().take_pages(np.arange(2))
    await image.write_pages(0, 1, 1, 0, pages)
    await valkey.kill()
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable) as caught:
            await image.read_pages([1])
    assert caught.value.reason == Reason.IMAGE_UNAVAILABLE
    with pytest.raises(Unavailable):
        await image.write_pages(0, 1, 2, 0, pages)
    await valkey.start()
    await image.write_pages(0, 1, 3, 0, pages)
    _, stamps = await image.read_pages([1])
    assert stamps.sequence.tolist() == [3]


async def test_a_cancelled_writer_ends_whatever_the_client_does_with_it(image: Image) -> None:
    """The Redis client may lose a cancellation; a loop over it must end all the same."""
    started = asyncio.Event()

    async def forever() -> None:
        sequence = 0
        while True:
            sequence += 1
            await image.write_heartbeat(Heartbeat(shard=0, epoch=1, sequence=sequence))
            started.set()

    for _ in range(50):
        started.clear()
        task = asyncio.create_task(forever())
        await started.wait()
        await asyncio.sleep(0.001)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=60)
        assert done
        assert task.cancelled()


async def test_more_at_a_time_than_there_are_connections(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for its turn: 128 shards of two monitors once exhausted the pool."""
    monkeypatch.setattr(image_module, "_WAIT_S", 60.0)  # whatever the pace of the machine
    async with Image.open_image(valkey.url, "test") as image:
        await asyncio.gather(*(image.ping_server() for _ in range(500)))
        assert await image.epoch(0) == 0


async def test_a_large_write_is_all_or_nothing(
    image: Image, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees a half of it, and one whose owner is deposed in between leaves nothing."""
    numbers = np.arange(1, 4501)
    pages = PageTable(numbers).take_pages(np.arange(4500))
    await image.write_pages(0, 1, 1, 0, pages)
    seen = set()

    async def look() -> None:
        while True:
            _, stamps = await image.read_pages([1, 2300, 4500])
            seen.add(tuple(stamps.sequence.tolist()))

    looking = asyncio.create_task(look())
    for sequence in range(2, 8):
        await image.write_pages(0, 1, sequence, 0, pages)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert {len(set(stamps)) for stamps in seen} == {1}

    async with Image.open_image(valkey.url, "test") as other:
        commit = image._commit

        async def deposed_before(**arguments: Any) -> object:
            await other.claim_shard(0, 2)
            return await commit(**arguments)

        monkeypatch.setattr(image, "_commit", deposed_before)
        with pytest.raises(EpochSuperseded):
            await image.write_pages(0, 1, 99, 0, pages)
    _, stamps = await image.read_pages(numbers.tolist())
    assert set(stamps.sequence.tolist()) == {7}
    async with Redis.from_url(valkey.url) as redis:
        assert 0 < await redis.ttl("test:page:1:next:1") <= 60
        assert await redis.ttl("test:page:1") == -1


async def test_what_is_torn_is_not_there(image: Image, valkey: Valkey) -> None:
    pages = table().take_pages(np.arange(2))
    await image.write_pages(0, 1, 1, 0, pages)
    async with Redis.from_url(valkey.url) as redis:
        whole = await redis.get("test:page:1")
        other = await redis.get("test:page:3")
        assert isinstance(whole, bytes)
        for raw in (b"\xff", whole[:-3], whole.replace(b"DRYP", b"DRYQ"), other):
            await redis.set("test:page:1", raw)
            got, stamps = await image.read_pages([1, 3])
            assert stamps.epoch.tolist() == [0, 1]
            assert not got.values["state"][0].any()
        for key in ("heartbeat", "directory", "epoch"):
            await redis.set(f"test:shard:0:{key}", b"\xff\xff")
        await redis.set("test:catalog:1", b"\xff")
        await redis.set("test:metadata:1", b"\xff")
    assert await image.read_heartbeats(1) == [None]
    assert await image.directory_versions(1) == [None]
    assert await image.epoch(0) == 0
    assert await image.catalog_pages([1]) == []
    assert await image.metadata_pages([1]) == []
    await image.write_pages(0, 2, 1, 0, pages)
    assert await image.epoch(0) == 2


async def test_lost_pages_are_found(image: Image, valkey: Valkey) -> None:
    await image.write_pages(0, 1, 1, 0, table().take_pages(np.arange(2)))
    assert await image.lost_pages([1, 2, 3]) == ([2], [1, 2, 3])
    assert await image.lost_pages([]) == ([], [])
