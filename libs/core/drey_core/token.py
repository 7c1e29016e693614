"""Page tokens: opaque to the client, bound to one list and one query, and checked.

A token is not a secret and grants nothing: the checksum finds tokens that were altered or mixed
up, and the query hash those that were made for another filter.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from drey_core.errors import InvalidArgument, Reason

_VERSION = 1
_CHECK_BYTES = 8

Position = str | int | float | bool | None
"""One part of the key after which the next page begins."""


def query_hash(*parts: object) -> bytes:
    """16 bytes that stand for a query: equal for equal `parts` by their `repr`."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def encode_page_token(kind: str, query_hash: bytes, position: Sequence[Position]) -> str:
    """The token of the page after `position` in the list `kind` under that query."""
    body = json.dumps([_VERSION, kind, query_hash.hex(), list(position)], separators=(",", ":"))
    raw = body.encode()
    return base64.urlsafe_b64encode(_check_body(raw) + raw).rstrip(b"=").decode()


def decode_page_token(kind: str, query_hash: bytes, token: str) -> list[Position] | None:
    """The position in a token, or None for the empty token, which asks for the first page.

    Raises `InvalidArgument` with reason MALFORMED_PAGE_TOKEN and field `page_token` when it was
    altered, is of another list, or of another query.
    """
    if not token:
        return None
    found_kind, found_query, position = _parse_token(token)
    if found_kind != kind:
        raise _malformed_token("the page token belongs to another list")
    if found_query != query_hash.hex():
        raise _malformed_token("the page token belongs to another query; begin again without one")
    return position


def _parse_token(token: str) -> tuple[str, str, list[Position]]:
    try:
        raw = base64.b64decode(
            token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True
        )
        check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check_body(body):
            raise _malformed_token("the page token was altered, or is not one")
        version, kind, query, position = json.loads(body)
    except (UnicodeError, binascii.Error, ValueError, TypeError) as error:
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
