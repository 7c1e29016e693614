"""Values taken at one instant, in the form in which they are sent, and the messages of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from drey_core.values import I8, U1, Columns
from drey_core.wire import chunk_rows
from drey_core.wire_columns import column_chunks
from drey_core.wire_values import encode_varint, wrap_payload

MESSAGE_BYTES = 256 << 10
"""Bytes that a message aims at: what waits in gRPC for a client that does not read."""
_COLUMN_BYTES = 48
_BASELINE = 2
_DIFF = 4
_MERGED_TAG = b"\x10"
_COLUMNS = 3
"""Of GetValuesResponse, BaselineChunk and Diff alike; `rows` are 1."""


class InstantValues(Protocol):
    """Values of one instant."""

    def bytes_size(self) -> int:
        """Bytes of all messages together, about."""

    def iterate_chunks(self) -> Iterator[bytes]:
        """Messages of about `MESSAGE_BYTES`, of any type that has `rows` and `columns`."""


@dataclass(frozen=True, slots=True)
class TakenRows:
    """Rows as `RowCache` gives them."""

    rows: Sequence[bytes]

    def bytes_size(self) -> int:
        """See `InstantValues`."""
        return sum(map(len, self.rows))

    def iterate_chunks(self) -> Iterator[bytes]:
        """See `InstantValues`."""
        return chunk_rows(self.rows, MESSAGE_BYTES)


@dataclass(frozen=True, slots=True)
class TakenColumns:
    """Columns of channels; all shapes (n,)."""

    pv_numbers: I8
    roles: U1
    columns: Columns
    freshness: U1

    def bytes_size(self) -> int:
        """See `InstantValues`."""
        return len(self.columns) * _COLUMN_BYTES + len(self.columns.heap)

    def iterate_chunks(self) -> Iterator[bytes]:
        """See `InstantValues`."""
        for part in column_chunks(
            self.pv_numbers, self.roles, self.columns, MESSAGE_BYTES, self.freshness
        ):
            yield wrap_payload(_COLUMNS, part)


def baseline_messages(taken: InstantValues) -> Iterator[bytes]:
    """`WatchPvsResponse` messages of a baseline, each of about `MESSAGE_BYTES`."""
    return (wrap_payload(_BASELINE, part) for part in taken.iterate_chunks())


def diff_messages(taken: InstantValues, merged: int) -> Iterator[bytes]:
    """`WatchPvsResponse` messages of one diff; the first carries what was merged."""
    tail = _MERGED_TAG + encode_varint(merged) if merged else b""
    for part in taken.iterate_chunks():
        yield wrap_payload(_DIFF, part + tail)
        tail = b""
