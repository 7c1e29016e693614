"""Pages of lists and chunks of streams, cut by what their messages take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from drey_core.errors import InvalidArgument
from drey_core.token import Position, encode_page_token

T = TypeVar("T")
M = TypeVar("M", bound=Message)

MAX_PAGE_BYTES = 3 << 20
"""Bytes of the items of one page: with what stands beside them a page stays under 4 MiB."""
MAX_CHUNK_BYTES = 1 << 20
"""Bytes of the items of one message of a stream."""
_ITEM_HEAD = 6
"""Tag and length before an item."""
DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


def check_page_size(
    given: int,
    *,
    most: int = MAX_PAGE_SIZE,
    default: int = DEFAULT_PAGE_SIZE,
    field: str = "page_size",
) -> int:
    """Number of items of a page by the `page_size` of a request.

    0 is the default, and more than `most` means `most` (AIP-158): a client that asks for much gets
    what there is, page by page. Raises `InvalidArgument` where it is negative.
    """
    if given < 0:
        raise InvalidArgument(
            f"{field}: {given} is negative; 0 is the default, {default}",
            field=field,
            metadata={"field": field},
        )
    return min(given or default, most)


def cut_page(
    kind: str,
    query: bytes,
    items: Iterable[T],
    size: int,
    message: Callable[[T], M],
    key: Callable[[T], Sequence[Position]],
) -> tuple[list[M], str]:
    """(the messages of a page, the token of the next; empty: this is the last).

    `items` are items in the order of the list, one more than `size` where there are more. A page
    has at most `size` of them, and at most `MAX_PAGE_BYTES`, but one in any case; the token stands
    for the place right after the last one in it.
    """
    page: list[M] = []
    last: T | None = None
    taken = 0
    for item in items:
        made = message(item)
        taken += made.ByteSize() + _ITEM_HEAD
        if last is not None and (len(page) == size or taken > MAX_PAGE_BYTES):
            return page, encode_page_token(kind, query, key(last))
        page.append(made)
        last = item
    return page, ""


def in_chunks(
    items: Iterable[T], size_of: Callable[[T], int], limit: int = MAX_CHUNK_BYTES
) -> Iterator[list[T]]:
    """Items for one message of a stream each: up to `limit` bytes, or one that is larger."""
    part: list[T] = []
    taken = 0
    for item in items:
        size = size_of(item) + _ITEM_HEAD
        if part and taken + size > limit:
            yield part
            part, taken = [], 0
        part.append(item)
        taken += size
    if part:
        yield part
