"""Metadata pages of the image, read again only where a monitor says that they changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from drey_core.directory import MetadataIndex, MetadataPage
from drey_core.distinct import distinct_values
from drey_core.errors import Unavailable
from drey_core.page_storage import store_text
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PageHash, hash_bytes
from drey_runtime.directory_codec import encode_metadata
from drey_runtime.image import Image, metadata_page

Stamp = tuple[int, int]
"""Epoch of the owner and version of the page."""
_INLINE_PAGES = 16


@dataclass(frozen=True, slots=True)
class KnownPage:
    """A metadata page as last read, with the form in which it is stored."""

    stamp: Stamp
    hash: PageHash
    stored: bytes
    page: MetadataPage


@dataclass(frozen=True, slots=True)
class KnownMetadata:
    """What is known of all channels now. Immutable."""

    known: dict[int, KnownPage]
    index: MetadataIndex

    def with_labels(self, labels: Mapping[int, tuple[bytes, ...]]) -> KnownMetadata:
        """The same, with other labels of some channels; empty ones are not known."""
        known = dict(self.known)
        channels = np.array(sorted(labels), np.int64)
        for number in distinct_values(channels >> PAGE_SHIFT).tolist():
            of_page = channels[channels >> PAGE_SHIFT == number].tolist()
            before = known.get(number)
            page = MetadataPage.empty_page(number) if before is None else before.page
            changed = page.labels | {c & PAGE_MASK: labels[c] for c in of_page}
            page = replace(page, labels={slot: texts for slot, texts in changed.items() if texts})
            raw = encode_metadata(page)
            stamp = (0, 0) if before is None else before.stamp
            known[number] = KnownPage(stamp, hash_bytes(raw), store_text(raw), page)
        return KnownMetadata(known, MetadataIndex(entry.page for entry in known.values()))


class MetadataSource:
    """Follows the metadata in the image by the versions of its pages."""

    def __init__(self, image: Image, shards: int) -> None:
        self._image, self._shards = image, shards
        self._live = KnownMetadata({}, MetadataIndex())
        self._lock = asyncio.Lock()

    @property
    def cached_metadata(self) -> KnownMetadata:
        """As last read, without asking Redis."""
        return self._live

    async def current_metadata(self) -> KnownMetadata:
        """As it is now; one small read where nothing changed. `Unavailable` without Redis."""
        async with self._lock:
            stamps = await self._read_stamps()
            known_pages = self._live.known
            stale = [
                n
                for n, stamp in stamps.items()
                if n not in known_pages or known_pages[n].stamp != stamp
            ]
            if not stale:
                return self._live
            # The versions were read before the pages: a page that changes in between is read
            # once more the next time, never missed.
            raws = await self._image.metadata_bytes(stale)
            read_pages = [(n, stamps[n], raw) for n, raw in zip(stale, raws, strict=True) if raw]
            if len(read_pages) > _INLINE_PAGES:
                made = await asyncio.to_thread(_decode_pages, read_pages)
            else:
                made = _decode_pages(read_pages)
            known_pages = {**known_pages, **made}
            index = MetadataIndex(entry.page for entry in known_pages.values())
            self._live = KnownMetadata(known_pages, index)
            return self._live

    async def current_or_cached(self) -> KnownMetadata:
        """As `current`, or as last read while Redis is away."""
        try:
            return await self.current_metadata()
        except Unavailable:
            return self._live

    async def _read_stamps(self) -> dict[int, Stamp]:
        versions = await self._image.directory_versions(self._shards)
        return {
            page: (shard.epoch, version)
            for shard in versions
            if shard is not None
            for page, version in zip(shard.pages, shard.page_versions, strict=True)
        }


def _decode_pages(read_pages: list[tuple[int, Stamp, bytes]]) -> dict[int, KnownPage]:
    pages = ((n, stamp, raw, metadata_page(n, raw)) for n, stamp, raw in read_pages)
    return {
        n: KnownPage(stamp, hash_bytes(raw), store_text(raw), page)
        for n, stamp, raw, page in pages
        if page is not None
    }
