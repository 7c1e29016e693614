"""Encoded differences against the generated classes, over pairs of the hostile corpus."""

import math
from dataclasses import replace

import numpy as np

from drey.snapshot.v1 import snapshot_service_pb2
from drey_core.compare import compare
from drey_core.values import ARRAY, Columns, Kind, State, heap_ref, pack_strings
from drey_core.wire import MAX_CHUNK_BYTES, chunk, wrap
from drey_core.wire_difference import Side, encode_differences
from drey_runtime.mapping.value import to_proto
from drey_testing.corpus import hostile_columns

OLD, NEW = (b"a", b"b"), (b"b", b"a")


def side(shift: int) -> Side:
    reference = hostile_columns()
    n = len(reference)
    other = reference.take((np.arange(n) + shift) % n)
    comparison = compare(
        reference,
        other,
        np.full(n, 0.5),
        np.zeros(n),
        reference_labels=lambda row: OLD,
        other_labels=lambda row: NEW,
    )
    return Side(comparison, reference, other, lambda c: OLD, lambda c: NEW, 1)


def check(message, present: bool, expected: Side, row: int) -> None:
    comparison = expected.comparison
    assert present == bool(comparison.cls[row])
    if not present:
        return
    assert getattr(message, "class") == comparison.cls[row]
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
    for field, columns, labels, fresh in (
        ("reference", expected.reference, OLD, 0),
        ("other", expected.other, NEW, 1),
    ):
        assert message.HasField(field) == (columns.state[row] != State.ABSENT)
        if message.HasField(field):
            value = to_proto(columns, row, lambda c, labels=labels: labels, fresh)
            assert getattr(message, field).SerializeToString() == value.SerializeToString()


def test_differences_decode_to_the_comparison():
    setpoint, readback = side(0), side(1)
    n = len(setpoint.comparison)
    rows = np.arange(n)[::-1].copy()
    names = [f"PV:{i}" for i in range(n)]
    encoded = encode_differences(names, np.arange(n) + 5, rows, setpoint, readback)
    messages = [wrap(2, part) for part in chunk(encoded, 4000)]
    assert len(messages) > 1
    differences = [
        difference
        for message in messages
        for difference in snapshot_service_pb2.CompareSnapshotsResponse.FromString(
            message
        ).differences.differences
    ]
    assert [d.number - 5 for d in differences] == rows.tolist()
    for row, d in zip(rows.tolist(), differences, strict=True):
        assert d.name == names[row]
        check(d.setpoint, d.HasField("setpoint"), setpoint, row)
        check(d.readback, d.HasField("readback"), readback, row)


def test_a_large_array_is_shown_by_its_first_part():
    raw = np.arange(200_000, dtype="<f8").tobytes()
    columns = Columns.empty(1)
    columns.kind[:], columns.state[:] = Kind.FLOAT64 | ARRAY, State.CONNECTED
    columns.data[:] = heap_ref(0, len(raw))
    columns = replace(columns, heap=raw)
    found = compare(columns, columns, np.zeros(1), np.zeros(1))
    one = Side(found, columns, columns, other_freshness=np.full(1, 2, np.uint8))
    (encoded,) = encode_differences(["PV"], np.ones(1, np.int64), np.zeros(1, np.int64), one, None)
    message = snapshot_service_pb2.CompareSnapshotsResponse.FromString(wrap(2, encoded))
    value = message.differences.differences[0].setpoint.other
    assert value.part.total_elements == 200_000
    assert value.part.first_element == 0
    assert value.freshness == 2
    shown = value.float64_array.elements
    assert 0 < len(shown) < 200_000 and list(shown) == list(range(len(shown)))


def test_four_large_values_of_a_difference_fit_into_one_message():
    raw = np.arange(1_300_000, dtype="<f8").tobytes()
    strings = pack_strings([b"x" * 5_000_000])
    columns = Columns.empty(2)
    columns.kind[:] = (Kind.FLOAT64 | ARRAY, Kind.STRING | ARRAY)
    columns.state[:] = State.CONNECTED
    columns.data[:] = (heap_ref(0, len(raw)), heap_ref(len(raw), len(strings)))
    columns = replace(columns, heap=raw + strings)
    found = compare(columns, columns, np.zeros(2), np.zeros(2))
    side = Side(found, columns, columns)
    numbers = np.array([7, 8])
    encoded = encode_differences(["WAVE", "TEXTS"], numbers, np.arange(2), side, side)
    assert max(map(len, encoded)) < 2 * MAX_CHUNK_BYTES
    message = snapshot_service_pb2.CompareSnapshotsResponse.FromString(wrap(2, b"".join(encoded)))
    wave, texts = message.differences.differences
    assert wave.setpoint.other.part.total_elements == 1_300_000
    assert "TEXTS" in texts.readback.reference.unsent.message
