"""Page tokens: opaque to the client, bound to one list and one query, and checked.

A token is not a secret and grants nothing: the checksum finds tokens that were altered or mixed
up, and the query hash those that were made for another filter. Anybody can make one with a checksum
that is right, so a list says of what its positions are, and is given nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from uuid import UUID

from drey_core.errors import InvalidArgument, Reason

_VERSION = 1
_CHECK_BYTES = 8

Position = str | int | float
"""One part of the key after which the next page begins."""
PartType = type[str] | type[int] | type[float] | type[UUID]
"""What a part is: a text that Postgres can hold, an integer of 64 bits, a number, an id's text."""


def query_hash(*parts: object) -> bytes:
    """16 bytes that stand for a query: equal for equal `parts` by their `repr`."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def encode_page_token(kind: str, query_hash: bytes, position: Sequence[Position]) -> str:
    """The token of the page after `position` in the list `kind` under that query."""
    return _encode_body(kind, query_hash.hex(), position)


def _encode_body(kind: str, query: str, position: Sequence[Position]) -> str:
    raw = json.dumps([_VERSION, kind, query, list(position)], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_check_body(raw) + raw).rstrip(b"=").decode()


def decode_page_token(
    kind: str, query_hash: bytes, token: str, parts: Sequence[PartType]
) -> list[Position] | None:
    """The position in a token, or None for the empty token, which asks for the first page.

    It has as many parts as `parts`, each of its type. Raises `InvalidArgument` with reason
    MALFORMED_PAGE_TOKEN and field `page_token` when it was altered or forged, is spelled in another
    way than it was made, is of another list, or of another query.
    """
    if not token:
        return None
    found_kind, found_query, position = _parse_token(token)
    if token != _encode_body(found_kind, found_query, position):
        raise _malformed_token("the page token was altered, or is not one")
    if found_kind != kind:
        raise _malformed_token("the page token belongs to another list")
    if found_query != query_hash.hex():
        raise _malformed_token("the page token belongs to another query; begin again without one")
    if len(position) != len(parts) or not all(map(_is_part, position, parts)):
        raise _malformed_token("the page token was altered, or is not one")
    return position


def _is_part(value: object, wanted: PartType) -> bool:
    if wanted is int:
        return type(value) is int and -(1 << 63) <= value < 1 << 63
    if wanted is float:
        return type(value) is float
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
        return wanted is str or str(UUID(value)) == value
    except ValueError:
        return False


def _parse_token(token: str) -> tuple[str, str, list[Position]]:
    try:
        raw = base64.b64decode(
            token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True
        )
        check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check_body(body):
            raise _malformed_token("the page token was altered, or is not one")
        version, kind, query, position = json.loads(body)
    except (UnicodeError, binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise _malformed_token("the page token was altered, or is not one") from error
    if version != _VERSION or not isinstance(position, list):
        raise _malformed_token(
            "the page token was made by another version; begin again without one"
        )
    return str(kind), str(query), position


def _check_body(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES, person=b"drey-page").digest()


def _malformed_token(message: str) -> InvalidArgument:
    return InvalidArgument(
        message,
        reason=Reason.MALFORMED_PAGE_TOKEN,
        field="page_token",
        metadata={"field": "page_token"},
    )
