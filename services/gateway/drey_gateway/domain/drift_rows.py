"""`DriftRow`s encoded once, shared by every watcher that is sent them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import LabelSource
from drey_core.tolerance import F8
from drey_core.values import I8, U1, Columns, State
from drey_core.wire import RowEncoder
from drey_core.wire_values import wrap_payload
from drey_gateway.domain.image import Mask

LARGE_BYTES = 256 << 10
"""A row whose values take more has none."""
_ROWS = 1
_STORED_TAG = b"\x12"
_DEVIATION_TAG = b"\x19"
_SETPOINT_CLASS_TAG, _READBACK_CLASS_TAG = b"\x28", b"\x30"
_DIFFERENT, _TOO_LARGE = b"\x38\x01", b"\x40\x01"


class DriftRowEncoder:
    """Rows of the PVs of one reference; arrays of shape (n,). Those not encoded are empty."""

    def __init__(self, then: RowEncoder, numbers: I8, setpoint: Columns, readback: Columns) -> None:
        """`then` encodes the values of the reference."""
        self._numbers, self._then = numbers, then
        self._stored = (setpoint, readback)
        self.names: Sequence[str] = ()
        """Of now."""
        self._now: RowEncoder
        self._stored_bytes: NDArray[Any] = np.full(len(numbers), b"", object)
        self._bytes: NDArray[Any] = np.full(len(numbers), b"", object)

    def rename_rows(self, names: Sequence[str]) -> Mask:
        """Give the PVs' names of now; which are others."""
        if names == self.names:
            return np.zeros(len(names), bool)
        before = self.names or [""] * len(names)
        self.names, self._now = names, RowEncoder(names, self._numbers)
        return np.array([a != b for a, b in zip(names, before, strict=True)], bool)

    def row_bytes(self, rows: I8) -> list[bytes]:
        """Field `rows = 1` of each."""
        encoded_rows: list[bytes] = self._bytes[rows].tolist()
        return encoded_rows

    def forget_rows(self, rows: I8) -> None:
        """Give their memory back."""
        self._bytes[rows] = b""
        self._stored_bytes[rows] = b""

    def encode_rows(
        self,
        rows: I8,
        values: tuple[Columns, Columns],
        present: Mask,
        freshness: U1,
        classes: U1,
        deviations: F8,
        different: Mask,
        labels: tuple[LabelSource, LabelSource],
    ) -> None:
        """Encode some rows, `present` and `classes` of shape (2, m), `labels` of now and then."""
        live = self._now.encode_rows(
            rows,
            *values,
            freshness,
            sp_present=present[0],
            rb_present=present[1],
            labels=labels[0],
        )
        stored = self._stored_rows(rows, labels[1])
        kinds = zip(classes[0].tolist(), classes[1].tolist(), strict=True)
        deviation_bytes = np.ascontiguousarray(deviations, "<f8").tobytes()
        has_deviation = (~np.isnan(deviations)).tolist()
        for place, (row, (setpoint, readback), differs) in enumerate(
            zip(rows.tolist(), kinds, different.tolist(), strict=True)
        ):
            now, then = live[place], stored[place]
            tail = _SETPOINT_CLASS_TAG + bytes((setpoint,)) + _READBACK_CLASS_TAG
            tail += bytes((readback,))
            if has_deviation[place]:
                tail = _DEVIATION_TAG + deviation_bytes[8 * place : 8 * place + 8] + tail
            if differs:
                tail += _DIFFERENT
            if len(now) + len(then) > LARGE_BYTES:
                now, then = _bare_row(row, self._now), _bare_row(row, self._then)
                tail += _TOO_LARGE
            self._bytes[row] = wrap_payload(_ROWS, now + _STORED_TAG + then[1:] + tail)

    def _stored_rows(self, rows: I8, labels: LabelSource) -> list[bytes]:
        """Values of the reference never change: each row of them is encoded once."""
        new = rows[self._stored_bytes[rows] == b""]
        if len(new):
            setpoint, readback = (side.take_rows(new) for side in self._stored)
            encoded = self._then.encode_rows(
                new,
                setpoint,
                readback,
                sp_present=setpoint.state != State.ABSENT,
                rb_present=readback.state != State.ABSENT,
                labels=labels,
            )
            self._stored_bytes[new] = np.fromiter(encoded, object, len(encoded))
        encoded_rows: list[bytes] = self._stored_bytes[rows].tolist()
        return encoded_rows


def _bare_row(row: int, encoder: RowEncoder) -> bytes:
    """Name and number of a PV."""
    return encoder.encode_rows(np.array([row]), None, None)[0]
