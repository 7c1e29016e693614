"""Snapshots as views: loaded from Postgres, kept in memory while they are in use.

Everything kept is immutable and addressed by its hash, so nothing here can be out of date.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from drey_core.directory import Directory, MetadataIndex
from drey_core.page_storage import (
    ValuePage,
    join_pages,
    load_text,
    load_times,
    load_values,
)
from drey_core.pages import PageHash, Pages, hash_bytes
from drey_runtime.directory_codec import decode_catalog, decode_metadata
from drey_snapshot.snapshots.adapters.store import ManifestEntry, SnapshotStore
from drey_snapshot.snapshots.domain.lru import Lru
from drey_snapshot.snapshots.domain.records import Record
from drey_snapshot.snapshots.domain.tree import NO_PAGE, TreeEntry, decode_tree
from drey_snapshot.snapshots.domain.views import DirectoryView, Names, ValuesView

_PAGE_CACHE_BYTES = 8 << 20
_VIEW_CACHE_BYTES = 16 << 20
_COMPARED = 2
"""Views that are kept in any case: those of a comparison that is asked for again."""
_DIRECTORIES = 3


class Library:
    """Loads views of snapshots and of directories."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._values: Lru[PageHash, ValuePage] = Lru(_PAGE_CACHE_BYTES)
        self._times: Lru[PageHash, bytes] = Lru(_PAGE_CACHE_BYTES // 2)
        self._views: Lru[str, ValuesView] = Lru(_VIEW_CACHE_BYTES, _COMPARED)
        self._names: Lru[PageHash, Names] = Lru(_DIRECTORIES)
        self._directories: Lru[PageHash, DirectoryView] = Lru(_DIRECTORIES)
        self._lock = asyncio.Lock()

    async def view(self, record: Record) -> ValuesView:
        """All values of a snapshot."""
        kept_view = self._views.get(record.facts.id)
        if kept_view is not None:
            return kept_view
        # One load at a time: the second of two that ask for the same one finds it here.
        async with self._lock:
            kept_view = self._views.get(record.facts.id)
            if kept_view is not None:
                return kept_view
            manifest = await self._store.read_manifest(record.no)
            where = await self._read_directory(record.facts.directory_hash)
            pages = await self._read_pages(manifest)
            view = ValuesView(
                where, pages, record.facts.time_ns, tuple(e.value_hash for e in manifest)
            )
            self._views.put_value(record.facts.id, view, view.weight)
            return view

    async def directory(self, tree_hash: PageHash) -> DirectoryView:
        """The directory that a tree names."""
        kept_directory = self._directories.get(tree_hash)
        if kept_directory is not None:
            return kept_directory
        async with self._lock:
            return await self._read_directory(tree_hash)

    def keep_view(self, snapshot_id: str, view: ValuesView) -> None:
        """Keep the view of a snapshot that was just taken."""
        self._views.put_value(snapshot_id, view, view.weight)

    def keep_directory(self, tree_hash: PageHash, view: DirectoryView) -> None:
        """Keep a directory that was just stored."""
        self._directories.put_value(tree_hash, view)

    def kept_directory(self, tree_hash: PageHash) -> DirectoryView | None:
        """A directory, if it is in memory."""
        return self._directories.get(tree_hash)

    async def _value_pages(self, hashes: Sequence[PageHash]) -> dict[PageHash, ValuePage]:
        """Value pages by hash."""
        held = {h: page for h in set(hashes) if (page := self._values.get(h)) is not None}
        wanted = [h for h in dict.fromkeys(hashes) if h not in held]
        if wanted:
            data = await self._store.page_data(wanted)
            loaded = await asyncio.to_thread(load_values, [data[h] for h in wanted])
            for h, page in zip(wanted, loaded, strict=True):
                self._values.put_value(h, page, len(page[0]) + len(page[1]))
                held[h] = page
        return held

    async def _times_pages(self, hashes: Sequence[PageHash]) -> dict[PageHash, bytes]:
        """Pages of receive times by hash."""
        held = {h: page for h in set(hashes) if (page := self._times.get(h)) is not None}
        wanted = [h for h in dict.fromkeys(hashes) if h not in held]
        if wanted:
            data = await self._store.page_data(wanted)
            loaded = await asyncio.to_thread(load_times, [data[h] for h in wanted])
            for h, page in zip(wanted, loaded, strict=True):
                self._times.put_value(h, page, len(page))
                held[h] = page
        return held

    async def _read_pages(self, manifest: Sequence[ManifestEntry]) -> Pages:
        values = await self._value_pages([e.value_hash for e in manifest])
        times = await self._times_pages([e.times_hash for e in manifest])
        numbers = np.array([e.page for e in manifest], np.int64)
        return join_pages(
            numbers,
            [values[e.value_hash] for e in manifest],
            [times[e.times_hash] for e in manifest],
        )

    async def _read_directory(self, tree_hash: PageHash) -> DirectoryView:
        kept_directory = self._directories.get(tree_hash)
        if kept_directory is not None:
            return kept_directory
        blobs = await self._store.page_data([tree_hash])
        (raw,) = load_text([blobs[tree_hash]])
        entries = decode_tree(raw)
        wanted = {h for e in entries for h in (e.catalog, e.metadata) if h != NO_PAGE}
        data = await self._store.page_data(list(wanted))
        names_key = names_hash(entries)
        names = self._names.get(names_key)
        view = await asyncio.to_thread(_assemble_directory, entries, data, names)
        self._names.put_value(names_key, view.names)
        self._directories.put_value(tree_hash, view)
        return view


def names_hash(entries: Sequence[TreeEntry]) -> PageHash:
    """What the catalog's part of a tree is called by."""
    return hash_bytes(b"".join(e.catalog for e in sorted(entries, key=lambda e: e.page)))


def _assemble_directory(
    entries: Sequence[TreeEntry], data: dict[PageHash, bytes], names: Names | None
) -> DirectoryView:
    known_entries = [e for e in entries if e.metadata != NO_PAGE]
    if names is None:
        raws = load_text([data[e.catalog] for e in entries])
        names = Names(Directory.from_pages(0, [decode_catalog(raw) for raw in raws]))
    metadata = load_text([data[e.metadata] for e in known_entries])
    return DirectoryView(
        names,
        MetadataIndex(decode_metadata(raw) for raw in metadata),
        {e.page: e.metadata for e in known_entries},
    )
