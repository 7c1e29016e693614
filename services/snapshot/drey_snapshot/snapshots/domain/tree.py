"""The directory of a snapshot as one page: which catalog and metadata pages it has.

The tree is the list of (page number, hash of the catalog page, hash of the metadata page) by
page number, 68 bytes each after a header; no metadata is the hash of zeros. An unchanged directory
has the same tree and costs a snapshot one hash.

The digest of a snapshot is the hash over (page number, value hash) of its manifest. Values are
keyed by permanent channel numbers, so equal values of equal channels have equal digests, whatever
happened to descriptions, limits and receive times since; the directory is proven by its own hash.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from drey_core.errors import Internal
from drey_core.pages import HASH_BYTES, PageHash, hash_bytes

_ENTRY = struct.Struct("<I32s32s")
_MAGIC = b"DRYT\x01\x00\x00\x00"
_DIGEST_MAGIC = b"DRYS\x01\x00\x00\x00"
_DIGEST_ENTRY = struct.Struct("<I32s")
NO_PAGE = bytes(HASH_BYTES)


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """The directory pages of one page number; `metadata` is `NO_PAGE` where nothing is known."""

    page: int
    catalog: PageHash
    metadata: PageHash


def encode_tree(entries: Sequence[TreeEntry]) -> bytes:
    """The bytes of a tree; equal directories give equal bytes, in whatever order they come."""
    ordered = sorted(entries, key=lambda e: e.page)
    return _MAGIC + b"".join(_ENTRY.pack(e.page, e.catalog, e.metadata) for e in ordered)


def decode_tree(raw: bytes) -> list[TreeEntry]:
    """Inverse of `encode_tree`. Raises `Internal` for what is none."""
    body = raw[len(_MAGIC) :]
    if raw[: len(_MAGIC)] != _MAGIC or len(body) % _ENTRY.size:
        raise Internal("a directory tree of unknown form")
    return [TreeEntry(*fields) for fields in _ENTRY.iter_unpack(body)]


def digest_of(pages: Sequence[tuple[int, PageHash]]) -> PageHash:
    """The digest over (page number, value hash), in whatever order they come."""
    return hash_bytes(_DIGEST_MAGIC + b"".join(_DIGEST_ENTRY.pack(*p) for p in sorted(pages)))
