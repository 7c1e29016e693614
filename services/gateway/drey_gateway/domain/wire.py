"""Watch messages from rows already encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drey_core.wire import chunk, varint, wrap

MESSAGE_BYTES = 256 << 10
"""Bytes that a message aims at: what waits in gRPC for a client that does not read."""
_BASELINE = 2
_DIFF = 4
_MERGED_TAG = b"\x10"


def baseline_messages(rows: Sequence[bytes]) -> Iterator[bytes]:
    """`WatchPvsResponse` messages of a baseline, each of about `MESSAGE_BYTES`."""
    return (wrap(_BASELINE, part) for part in chunk(rows, MESSAGE_BYTES))


def diff_messages(rows: Sequence[bytes], merged: int) -> Iterator[bytes]:
    """`WatchPvsResponse` messages of one diff; the first carries what was merged."""
    tail = _MERGED_TAG + varint(merged) if merged else b""
    for part in chunk(rows, MESSAGE_BYTES):
        yield wrap(_DIFF, part + tail)
        tail = b""
