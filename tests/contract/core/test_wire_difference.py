"""Encoded comparisons against the generated classes, over pairs of the hostile corpus."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from drey.compare.v1 import compare_pb2, compare_service_pb2
from drey_core.compare import Comparison, compare
from drey_core.values import ARRAY, Columns, Kind, State, heap_ref, pack_strings
from drey_core.wire import chunk_rows
from drey_core.wire_difference import (
    DifferenceChannels,
    DifferenceRows,
    DifferenceValues,
    encode_rows,
)
from drey_core.wire_values import MAX_CHUNK_BYTES, wrap_payload
from drey_testing.corpus import hostile_columns
from drey_testing.value_messages import to_proto

OLD, NEW = (b"a", b"b"), (b"b", b"a")


@dataclass
class Side:
    """One role of the corpus compared with itself, shifted."""

    comparison: Comparison
    reference: Columns
    other: Columns

    @property
    def channels(self) -> DifferenceChannels:
        return DifferenceChannels(self.comparison, DifferenceValues(self.other, lambda c: NEW, 1))

    @property
    def stored(self) -> DifferenceValues:
        return DifferenceValues(self.reference, lambda c: OLD)


def side(shift: int) -> Side:
    reference = hostile_columns()
    n = len(reference)
    other = reference.take_rows((np.arange(n) + shift) % n)
    comparison = compare(
        reference,
        other,
        np.full(n, 0.5),
        np.zeros(n),
        reference_labels=lambda row: OLD,
        other_labels=lambda row: NEW,
    )
    return Side(comparison, reference, other)


def check_value(message, field: str, columns: Columns, row: int, labels, fresh: int) -> None:
    assert message.HasField(field) == (columns.state[row] != State.ABSENT)
    if message.HasField(field):
        value = to_proto(columns, row, lambda c: labels, fresh)
        assert getattr(message, field).SerializeToString() == value.SerializeToString()


def check(message, present: bool, expected: Side, row: int, with_values: bool) -> None:
    comparison = expected.comparison
    assert present == bool(comparison.cls[row])
    if not present:
        return
    assert message.difference_class == comparison.cls[row]
    for field, name in (
        ("delta", "delta"),
        ("relative_delta", "relative"),
        ("deviation", "deviation"),
    ):
        figure = float(getattr(comparison, name)[row])
        assert message.HasField(field) != math.isnan(figure)
        if not math.isnan(figure):
            assert getattr(message, field) == figure
    assert message.elements_different == comparison.elements_different[row]
    assert message.largest_at == comparison.largest_at[row]
    assert message.labels_moved == comparison.labels_moved[row]
    if with_values:
        check_value(message, "other", expected.other, row, NEW, 1)
    else:
        assert not message.HasField("other")


def decoded(encoded: list[bytes], size: int = MAX_CHUNK_BYTES) -> list[compare_pb2.ComparisonRow]:
    messages = [wrap_payload(2, part) for part in chunk_rows(encoded, size)]
    return [
        row
        for message in messages
        for row in compare_service_pb2.CompareResponse.FromString(message).rows.rows
    ]


@pytest.mark.parametrize("with_values", [True, False])
@pytest.mark.parametrize("others", [1, 16])
def test_rows_decode_to_the_comparisons(others, with_values):
    sides = [(side(k), side(k + 1)) for k in range(others)]
    n = len(sides[0][0].comparison)
    names = [f"PV:{i}" for i in range(n)]
    devices = [f"D{i % 3}" for i in range(n)]
    first = np.arange(n) % (others + 1) - 1
    cells = [
        tuple(
            each.channels if with_values else DifferenceChannels(each.comparison)
            for each in (sp, rb)
        )
        for sp, rb in sides
    ]
    reference = (sides[0][0].stored, sides[0][1].stored) if with_values else None
    encoded = encode_rows(DifferenceRows(names, np.arange(n) + 5, devices, reference, cells, first))
    rows = decoded(encoded, 4000)
    assert [row.number - 5 for row in rows] == list(range(n))
    for at, row in enumerate(rows):
        assert (row.name, row.device) == (names[at], devices[at])
        assert row.HasField("first_different") == (first[at] >= 0)
        assert row.first_different == max(first[at], 0)
        assert len(row.cells) == others
        if with_values:
            check_value(row, "reference_setpoint", sides[0][0].reference, at, OLD, 0)
            check_value(row, "reference_readback", sides[0][1].reference, at, OLD, 0)
        else:
            assert not row.HasField("reference_setpoint")
        for cell, (setpoint, readback) in zip(row.cells, sides, strict=True):
            check(cell.setpoint, cell.HasField("setpoint"), setpoint, at, with_values)
            check(cell.readback, cell.HasField("readback"), readback, at, with_values)


def test_a_large_array_is_shown_by_its_first_part():
    raw = np.arange(200_000, dtype="<f8").tobytes()
    columns = Columns.empty_columns(1)
    columns.kind[:], columns.state[:] = Kind.FLOAT64 | ARRAY, State.CONNECTED
    columns.data[:] = heap_ref(0, len(raw))
    columns = replace(columns, heap=raw)
    found = compare(columns, columns, np.zeros(1), np.zeros(1))
    none = DifferenceChannels(Comparison.empty_comparison(1))
    one = DifferenceChannels(found, DifferenceValues(columns, freshness=np.full(1, 2, np.uint8)))
    numbers = np.ones(1, np.int64)
    (row,) = decoded(
        encode_rows(DifferenceRows(["PV"], numbers, ["D"], None, [(one, none)], -numbers))
    )
    value = row.cells[0].setpoint.other
    assert value.part.total_elements == 200_000
    assert value.part.first_element == 0
    assert value.freshness == 2
    shown = value.float64_array.elements
    assert 0 < len(shown) < 200_000 and list(shown) == list(range(len(shown)))


@pytest.mark.parametrize("others", [1, 16])
def test_all_large_values_of_a_row_fit_into_one_message(others):
    raw = np.arange(1_300_000, dtype="<f8").tobytes()
    strings = pack_strings([b"x" * 5_000_000])
    columns = Columns.empty_columns(2)
    columns.kind[:] = (Kind.FLOAT64 | ARRAY, Kind.STRING | ARRAY)
    columns.state[:] = State.CONNECTED
    columns.data[:] = (heap_ref(0, len(raw)), heap_ref(len(raw), len(strings)))
    columns = replace(columns, heap=raw + strings)
    found = compare(columns, columns, np.zeros(2), np.zeros(2))
    values = DifferenceValues(columns)
    cells = [(DifferenceChannels(found, values), DifferenceChannels(found, values))] * others
    rows = DifferenceRows(
        ["WAVE", "TEXTS"], np.array([7, 8]), ["", ""], (values, values), cells, np.full(2, -1)
    )
    encoded = encode_rows(rows)
    assert max(map(len, encoded)) < 2 * MAX_CHUNK_BYTES
    wave, texts = decoded(encoded)
    assert wave.cells[-1].setpoint.other.part.total_elements == 1_300_000
    assert "TEXTS" in texts.reference_readback.unsent.message
