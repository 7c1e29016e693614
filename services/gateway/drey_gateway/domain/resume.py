"""Resume tokens: where a watch stands, told in terms that every gateway understands.

A token holds a hash of what is watched and, for each shard, two points of its stream, each an
(epoch, sequence): up to the first the client has everything, and of nothing after the second has it
anything. They differ where a gateway has read pages of the image ahead of the stream. So another
gateway may go on from a token when it has got as far as the second, and sends what came after the
first. A token is not a secret and grants nothing; a checksum finds what was altered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from drey_core.errors import InvalidArgument, Reason
from drey_core.values import I8

_MAGIC = b"DW2"
_CHECK_BYTES = 8
_HASH_BYTES = 16
_ENTRY = struct.Struct("<HQQQQ")

Point = tuple[int, int]
"""(epoch, sequence)."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says, by shard: `positions` up to which the client has everything, and `seen`,
    after which it has nothing; the shards of both are the same."""

    selection: bytes
    positions: Mapping[int, Point]
    seen: Mapping[int, Point]


def selection_hash(pv_numbers: I8, setpoints: I8, readbacks: I8, manner: bytes = b"") -> bytes:
    """16 bytes for a set of PVs with their channels as watched; all shapes (n,).

    `manner` stands for what makes that which is held another thing than the values themselves.
    """
    digest = hashlib.blake2b(digest_size=_HASH_BYTES, person=b"drey-watch")
    for column in (pv_numbers, setpoints, readbacks):
        digest.update(np.ascontiguousarray(column, "<i8").tobytes())
    digest.update(manner)
    return digest.digest()


def encode_token(token: Token) -> str:
    """Opaque text, URL-safe; about 45 characters a shard."""
    body = b"".join(
        (
            _MAGIC,
            token.selection,
            *(
                _ENTRY.pack(shard, *position, *token.seen[shard])
                for shard, position in sorted(token.positions.items())
            ),
        )
    )
    return base64.urlsafe_b64encode(_check_body(body) + body).rstrip(b"=").decode()


def decode_token(text: str) -> Token:
    """Inverse. Raises `InvalidArgument` (TOKEN_UNKNOWN) for any other text, which is every other
    spelling of the same too."""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", True)
    except (UnicodeError, binascii.Error, ValueError) as error:
        raise _unknown_token() from error
    check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
    head = len(_MAGIC) + _HASH_BYTES
    whole = len(body) >= head and (len(body) - head) % _ENTRY.size == 0
    if check != _check_body(body) or not body.startswith(_MAGIC) or not whole:
        raise _unknown_token()
    positions, seen = {}, {}
    for shard, epoch, sequence, *last in _ENTRY.iter_unpack(body[head:]):
        positions[shard], seen[shard] = (epoch, sequence), (last[0], last[1])
    token = Token(body[len(_MAGIC) : head], positions, seen)
    if encode_token(token) != text:  # padding, bits that say nothing, shards twice or in disorder
        raise _unknown_token()
    return token


def _check_body(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES, person=b"drey-token").digest()


def _unknown_token() -> InvalidArgument:
    return InvalidArgument(
        "the token was altered, or is not one; begin without a token",
        reason=Reason.TOKEN_UNKNOWN,
        field="token",
        metadata={"field": "token"},
    )
