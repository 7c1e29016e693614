"""The bytes of `drey_core.wire` against the generated classes, over the hostile corpus."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey.common.v1 import value_pb2
from drey.monitor.v1 import monitor_service_pb2, watch_pb2
from drey.snapshot.v1 import snapshot_service_pb2
from drey_core import wire, wire_columns, wire_values
from drey_core.errors import Malformed, Reason
from drey_core.times import is_suspect
from drey_core.values import ARRAY, Columns, Kind, State, pack_strings
from drey_runtime.mapping.columns import ColumnsReader, ReadColumns
from drey_runtime.mapping.value import from_proto
from drey_testing.corpus import HOSTILE, Case, columns, columns_of, hostile_columns
from drey_testing.value_messages import columns_from_proto, to_proto

LABELS = (b"STOP", b"RUN, slowly", b"", b"gr\xfcn", "磁石".encode())


def labels_of(channel: int) -> tuple[bytes, ...] | None:
    return LABELS if channel % 2 == 0 else None


def expected_data(cols: Columns, row: int) -> tuple[int, int | bytes]:
    kind = int(cols.kind[row])
    in_heap = kind & ARRAY or kind == Kind.STRING
    if in_heap:
        return kind, cols.heap_bytes(row)
    return kind, int(cols.data[row]) if kind else 0


def field_of(kind: int, raw: bytes | None) -> str | None:
    if kind == Kind.NONE:
        return None
    if kind == Kind.STRING:
        try:
            (raw or b"").decode()
        except UnicodeDecodeError:
            return "raw_string_value"
        return "string_value"
    return f"{Kind(kind & ~ARRAY).name.lower()}_{'array' if kind & ARRAY else 'value'}"


def check_value(value: value_pb2.Value, cols: Columns, row: int, freshness: int = 0) -> None:
    kind, data = expected_data(cols, row)
    assert from_proto(value) == (kind, data)
    raw = data if isinstance(data, bytes) else None
    assert value.WhichOneof("data") == field_of(kind, raw)
    assert value.source_time_ns == cols.source_time[row]
    assert value.receive_time_ns == cols.receive_time[row]
    assert value.state == cols.state[row]
    assert value.origin == cols.origin[row]
    assert value.freshness == freshness
    assert value.severity == (int(cols.severity[row]) + 1 if kind else 0)
    assert value.status == (int(cols.status[row]) + 1 if kind else 0)
    one = np.array([row])
    assert value.source_time_suspect == is_suspect(cols.source_time[one], cols.receive_time[one])[0]
    if kind == Kind.ENUM:
        known = labels_of(int(cols.key[row])) or ()
        index = int(cols.data[row])
        label = known[index].decode(errors="replace") if index < len(known) else ""
        assert value.enum_value.label == label


def encode_all(cols: Columns, other: Columns, **masks) -> list[bytes]:
    n = len(cols)
    encoder = wire.RowEncoder([f"PV:{i}" for i in range(n)], np.arange(n) + 7)
    return encoder.encode_rows(np.arange(n), cols, other, labels=labels_of, **masks)


def test_hostile_corpus_decodes_to_the_same_values():
    cols = hostile_columns()
    other = cols.take_rows(np.arange(len(cols))[::-1])
    rows = snapshot_service_pb2.RowChunk.FromString(b"".join(encode_all(cols, other))).rows
    assert len(rows) == len(HOSTILE)
    for i, row in enumerate(rows):
        assert (row.name, row.number) == (f"PV:{i}", i + 7)
        check_value(row.setpoint, cols, i)
        check_value(row.readback, other, i)


@given(columns(), st.data())
@settings(max_examples=150, deadline=None)
def test_any_columns_decode_to_the_same_values(cols, data):
    n = len(cols)
    booleans = st.lists(st.booleans(), min_size=n, max_size=n)
    sp = np.array(data.draw(booleans), bool)
    rb = np.array(data.draw(booleans), bool)
    fresh = np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), np.uint8)
    # a PV may have several rows in one go, each with other values
    index = st.integers(0, max(n - 1, 0))
    order = np.array(data.draw(st.lists(index, min_size=n, max_size=n)), np.int64)
    other = cols.take_rows(order)
    encoder = wire.RowEncoder(["µ" * i for i in range(n)], np.arange(n))
    for _ in range(2):  # the second time from the cache of prefixes
        encoded = encoder.encode_rows(
            order, cols, other, fresh, sp_present=sp, rb_present=rb, labels=labels_of
        )
        rows = watch_pb2.Diff.FromString(b"".join(encoded)).rows
        assert len(rows) == n
        for i, row in enumerate(rows):
            assert row.number == order[i]
            assert row.name == "µ" * int(order[i])
            assert row.HasField("setpoint") == sp[i]
            assert row.HasField("readback") == rb[i]
            if sp[i]:
                check_value(row.setpoint, cols, i, fresh[i])
            if rb[i]:
                check_value(row.readback, other, i, fresh[i])


def test_rows_are_field_one_of_every_message_that_holds_them():
    cols = hostile_columns()
    payload = b"".join(encode_all(cols, cols))
    for message in (
        snapshot_service_pb2.RowChunk,
        watch_pb2.BaselineChunk,
        watch_pb2.Diff,
        monitor_service_pb2.GetValuesResponse,
    ):
        assert len(message.FromString(payload).rows) == len(cols)
    whole = snapshot_service_pb2.ReadSnapshotResponse.FromString(
        wire_values.wrap_payload(3, payload)
    )
    assert len(whole.rows.rows) == len(cols)
    diff = monitor_service_pb2.WatchPvsResponse.FromString(wire_values.wrap_payload(4, payload))
    assert len(diff.diff.rows) == len(cols)


def test_rows_without_any_value_and_no_rows():
    encoder = wire.RowEncoder(["A"], np.array([1]))
    (row,) = watch_pb2.Diff.FromString(encoder.encode_rows(np.array([0]), None, None)[0]).rows
    assert row.name == "A"
    assert not row.HasField("setpoint")
    assert encoder.encode_rows(np.zeros(0, np.int64), None, None) == []


def assembled(rows, role: str):
    """(kind, bytes) of a value that came in parts."""
    data, at, kind = b"", 0, 0
    for row in rows:
        value = getattr(row, role)
        if not row.HasField(role):
            continue
        assert value.part.first_element == at
        bare = value_pb2.Value()
        bare.CopyFrom(value)
        bare.ClearField("part")
        kind, raw = from_proto(bare)
        assert isinstance(raw, bytes)
        data += raw
        at += len(raw) // {Kind.INT8: 1, Kind.FLOAT64: 8}[Kind(kind & ~ARRAY)]
        total = value.part.total_elements
    assert at == total
    return kind, data


def test_large_arrays_travel_in_parts():
    big = np.random.default_rng(1).integers(-128, 127, 1_000_000).astype("i1").tobytes()
    doubles = np.random.default_rng(2).normal(size=400_000).tobytes()
    setpoint = columns_of([Case("big", Kind.INT8 | ARRAY, big), Case("x", Kind.INT32, 5)])
    readback = columns_of([Case("d", Kind.FLOAT64 | ARRAY, doubles), Case("x", Kind.INT32, 6)])
    rows = encode_all(setpoint, readback)
    assert len(rows) == 2
    messages = list(wire.chunk_rows(rows))
    assert max(map(len, messages)) < 1.1 * wire_values.MAX_CHUNK_BYTES
    decoded = [r for m in messages for r in snapshot_service_pb2.RowChunk.FromString(m).rows]
    parts, last = decoded[:-1], decoded[-1]
    assert {row.name for row in parts} == {"PV:0"}
    assert assembled(parts, "setpoint") == (Kind.INT8 | ARRAY, big)
    assert assembled(parts, "readback") == (Kind.FLOAT64 | ARRAY, doubles)
    assert last.setpoint.int32_value == 5


def test_large_string_arrays_travel_in_parts():
    strings = [b"s" * (i % 50) for i in range(100_000)]
    cols = columns_of([Case("many", Kind.STRING | ARRAY, pack_strings(strings))])
    encoder = wire.RowEncoder(["A"], np.array([1]))
    messages = list(wire.chunk_rows(encoder.encode_rows(np.array([0]), cols, None)))
    rows = [r for m in messages for r in snapshot_service_pb2.RowChunk.FromString(m).rows]
    assert len(rows) > 1
    assert [s.encode() for r in rows for s in r.setpoint.string_array.elements] == strings


def rows_sent(cols: Columns, name: str = "A") -> list[value_pb2.PvRow]:
    encoder = wire.RowEncoder([name], np.array([1]))
    messages = list(wire.chunk_rows(encoder.encode_rows(np.array([0]), cols, cols)))
    assert max(map(len, messages)) < 4 << 20
    return [r for m in messages for r in snapshot_service_pb2.RowChunk.FromString(m).rows]


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ("µ€😀".encode() * 1_200_000, "string_value"),
        (b"\xff" * 11_000_000, "raw_string_value"),
        (b"x" * (wire_values.MAX_CHUNK_BYTES + 1), "string_value"),
    ],
)
def test_long_strings_travel_in_parts(raw, field):
    rows = rows_sent(columns_of([Case("long", Kind.STRING, raw)]))
    assert len(rows) > 2
    for role in ("setpoint", "readback"):
        values = [getattr(row, role) for row in rows if row.HasField(role)]
        assert {value.WhichOneof("data") for value in values} == {field}
        pieces = [getattr(value, field) for value in values]
        joined = [p.encode() if isinstance(p, str) else p for p in pieces]
        assert b"".join(joined) == raw
        starts = [sum(map(len, joined[:i])) for i in range(len(joined))]
        assert [value.part.first_element for value in values] == starts
        assert {value.part.total_elements for value in values} == {len(raw)}


def test_a_value_that_fits_no_message_is_an_error_in_its_row():
    strings = [b"a", b"x" * (wire_values.MAX_ELEMENT_BYTES + 1)]
    huge = columns_of([Case("huge", Kind.STRING | ARRAY, pack_strings(strings))])
    (row,) = rows_sent(huge, "A:HUGE")
    assert (row.name, row.number) == ("A:HUGE", 1)
    for value in (row.setpoint, row.readback):
        assert value.WhichOneof("data") == "unsent"
        assert int(value.unsent.reason) == Reason.VALUE_TOO_LARGE
        assert "A:HUGE" in value.unsent.message
        assert value.state == huge.state[0]
    largest = [b"b", b"x" * wire_values.MAX_ELEMENT_BYTES]
    rows = rows_sent(columns_of([Case("large", Kind.STRING | ARRAY, pack_strings(largest))]))
    for role in ("setpoint", "readback"):
        sent = [e for r in rows for e in getattr(r, role).string_array.elements]
        assert [s.encode() for s in sent] == largest


@given(st.lists(st.integers(0, 400), max_size=30), st.integers(100, 1000))
def test_chunks_hold_all_rows_in_order_within_the_limit(sizes, limit):
    rows = [wire_values.wrap_payload(1, bytes([i % 250]) * size) for i, size in enumerate(sizes)]
    messages = list(wire.chunk_rows(rows, limit))
    assert b"".join(messages) == b"".join(rows)
    assert all(messages)
    assert all(len(m) <= limit or m in rows for m in messages)


def read_columns(raws: list[bytes]) -> list[ReadColumns]:
    reader = ColumnsReader()
    found = [reader.join_columns(value_pb2.ValueColumns.FromString(raw)) for raw in raws]
    return [values for values in found if values is not None]


def test_columns_hold_the_corpus():
    cols = hostile_columns()
    picked = cols.take_rows(np.arange(0, len(cols), 2))  # leaves gaps in the heap
    numbers = np.arange(len(picked)) + 1000
    roles = (numbers % 2 + 1).astype("u1")
    fresh = (numbers % 3).astype("u1")
    chunks = list(wire_columns.column_chunks(numbers, roles, picked, 2000, fresh))
    assert len(chunks) > 2
    at = 0
    for part in read_columns(chunks):
        back, rows = part.columns, slice(at, at + len(part.columns))
        assert part.pv_numbers.tolist() == numbers[rows].tolist()
        assert part.roles.tolist() == roles[rows].tolist()
        assert part.freshness.tolist() == fresh[rows].tolist()
        for name in ("key", "kind", "state", "origin", "source_time", "receive_time"):
            assert (getattr(back, name) == getattr(picked, name)[rows]).all(), name
        for i in range(len(back)):
            assert expected_data(back, i) == expected_data(picked, at + i)
        at += len(back)
    assert at == len(picked)


def test_severities_and_statuses_are_numbered_alike_in_rows_and_columns():
    cols = hostile_columns()
    numbers, roles = np.arange(len(cols)), np.ones(len(cols), np.uint8)
    values = map(value_pb2.Value.FromString, wire_values.encode_values(cols, labels=labels_of))
    said = [(value.severity, min(value.status, 65535)) for value in values]
    assert (0, 0) in said
    messages = map(
        value_pb2.ValueColumns.FromString, wire_columns.column_chunks(numbers, roles, cols)
    )
    found = [
        pair
        for message in messages
        for pair in zip(message.severities, np.frombuffer(message.statuses, "<u2"), strict=True)
    ]
    assert found == said


def test_columns_of_unequal_lengths_are_refused():
    cols = hostile_columns()
    numbers, roles = np.arange(len(cols)), np.ones(len(cols), np.uint8)
    for name in ("origins", "statuses", "data", "freshness"):
        raw = wire_columns.encode_columns(numbers, roles, cols, roles)
        message = value_pb2.ValueColumns.FromString(raw)
        setattr(message, name, getattr(message, name)[1:])
        with pytest.raises(Malformed, match=r"^the columns of values differ in length"):
            ColumnsReader().join_columns(message)


def test_a_large_value_in_columns_comes_in_parts():
    big = np.random.default_rng(3).normal(size=1_300_000).tobytes()
    cols = columns_of(
        [
            Case("a", Kind.INT32, 5),
            Case("big", Kind.FLOAT64 | ARRAY, big),
            Case("text", Kind.STRING, b"x" * 4_000_000),
            Case("b", Kind.STRING, b"small"),
        ]
    )
    raws = list(wire_columns.column_chunks(np.arange(4) + 1, np.ones(4, np.uint8), cols))
    assert max(map(len, raws)) < 1.1 * wire_values.MAX_CHUNK_BYTES
    messages = list(map(value_pb2.ValueColumns.FromString, raws))
    numbers = [np.frombuffer(m.pv_numbers, "<i8").tolist() for m in messages]
    whole = [n for m, n in zip(messages, numbers, strict=True) if not m.HasField("part")]
    assert whole == [[1], [4]]
    for number, raw in ((2, big), (3, b"x" * 4_000_000)):
        parts = [m for m, n in zip(messages, numbers, strict=True) if n == [number]]
        assert b"".join(m.heap for m in parts) == raw
        assert all(int.from_bytes(m.data, "little") == len(m.heap) << 32 for m in parts)
        assert [m.part.first_element for m in parts] == [
            sum(len(p.heap) for p in parts[:i]) for i in range(len(parts))
        ]
        assert {m.part.total_elements for m in parts} == {len(raw)}
    back = [found.columns for found in read_columns(raws)]
    assert [columns.heap_bytes(0) for columns in back[1:]] == [big, b"x" * 4_000_000, b"small"]


def test_values_alone_decode_to_the_same():
    cols = hostile_columns()
    fresh = (np.arange(len(cols)) % 3).astype("u1")
    encoded = wire_values.encode_values(cols, fresh, labels=labels_of)
    for row, raw in enumerate(encoded):
        check_value(value_pb2.Value.FromString(raw), cols, row, fresh[row])
    assert wire_values.encode_values(Columns.empty_columns()) == []


def test_to_proto_and_back_over_the_corpus():
    cols = hostile_columns()
    values = [to_proto(cols, row, labels_of, 1) for row in range(len(cols))]
    for row, value in enumerate(values):
        check_value(value, cols, row, 1)
    back = columns_from_proto(cols.key.tolist(), values)
    for row in range(len(cols)):
        assert expected_data(back, row) == expected_data(cols, row)
    for name in ("kind", "state", "origin", "status", "source_time", "receive_time"):
        assert (getattr(back, name) == getattr(cols, name)).all(), name
    assert back.state[0] == State.CONNECTED
