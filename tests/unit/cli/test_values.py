"""How values, times and tables look."""

import math

import pytest

from drey.common.v1 import value_pb2
from drey_cli.render.comparisons import deviation_cell
from drey_cli.render.table import Cell, Column, Table, escape_text, plain_lines
from drey_cli.render.values import alarm_cell, format_value, value_cell
from drey_cli.render.words import format_span, format_time

Value = value_pb2.Value


def meta(**fields):
    return value_pb2.ChannelMetadata(**fields)


FIRST = value_pb2.ARRAY_DECIMATION_FIRST


def extract(decimation: int, total: int) -> Value:
    elements = Value(float64_array={"elements": range(4)})
    return Value(extract={"total_elements": total, "decimation": decimation, "elements": elements})


@pytest.mark.parametrize(
    ("value", "metadata", "text"),
    [
        (Value(float64_value=1.23456), meta(units="A", precision=2), "1.23 A"),
        (Value(float64_value=1.23456), None, "1.23456"),
        (Value(float64_value=0.5), meta(precision=0), "0.5"),
        (Value(float64_value=5.0), meta(precision=0), "5"),
        (Value(float64_value=1e-9), meta(precision=3), "1e-09"),
        (Value(float64_value=-0.0), None, "-0"),
        (Value(float64_value=math.nan), meta(precision=3, units="A"), "NaN A"),
        (Value(float64_value=-math.inf), None, "-∞"),
        (Value(float32_value=0.1), None, "0.1"),
        (Value(int64_value=-(2**63)), None, str(-(2**63))),
        (Value(uint64_value=2**64 - 1), None, str(2**64 - 1)),
        (Value(enum_value={"index": 1, "label": "RUN"}), None, "RUN (1)"),
        (Value(enum_value={"index": 1}), meta(enum_labels=["A", "B"]), "B (1)"),
        (Value(enum_value={"index": 9}), meta(enum_labels=["A"]), "#9"),
        (Value(string_value=""), None, '""'),
        (Value(string_value="a\x1b[31m\n"), None, '"a\\x1b[31m\\n"'),
        (Value(raw_string_value=b"\xff\x00x"), None, '"\\xff\\x00x"'),
        (Value(bool_value=False), None, "false"),
        (Value(float64_array={}), None, "[]"),
        (Value(int32_array={"elements": [1, 2, 3, 4]}), None, "[1, 2, 3, 4]"),
        (Value(int32_array={"elements": range(1000)}), None, "[0, 1, 2, … (1000)]"),
        (Value(uint8_array=b"\x01\x02"), None, "[1, 2]"),
        (Value(string_array={"raw_elements": [b"\xff"]}), None, '["\\xff"]'),
        (extract(FIRST, 900), meta(units="A"), "[0, 1, 2, … (900)] A"),
        (extract(value_pb2.ARRAY_DECIMATION_MIN_MAX, 9), None, "extract [0, 1, 2, … (9)]"),
        (Value(), None, "no value"),
        (None, None, "—"),
    ],
)
def test_values_read_well(value, metadata, text):
    assert format_value(value, metadata) == text


def test_full_values_are_not_cut():
    value = Value(int32_array={"elements": range(6)})
    assert format_value(value, full=True) == "[0, 1, 2, 3, 4, 5]"


def test_what_cannot_be_believed_is_marked():
    gone = Value(float64_value=1, state=value_pb2.CONNECTION_STATE_DISCONNECTED)
    assert value_cell(gone).style == "dim red"
    assert alarm_cell(gone).text == "disconnected"
    other = value_pb2.Value(state=value_pb2.CONNECTION_STATE_UNSUPPORTED)
    assert alarm_cell(other) == Cell("protocol not supported", "red")
    assert value_cell(other) == Cell("no value", "dim red")
    high = Value(
        severity=value_pb2.ALARM_SEVERITY_MAJOR,
        status=value_pb2.ALARM_STATUS_HIHI,
        state=value_pb2.CONNECTION_STATE_CONNECTED,
    )
    assert alarm_cell(high) == Cell("MAJOR HIHI", "red")
    stale = Value(float64_value=1, state=3, freshness=value_pb2.FRESHNESS_STALE, severity=1)
    assert alarm_cell(stale).text == "stale"


def test_unknown_enums_of_a_newer_server_are_shown_not_fatal():
    value = Value(severity=9, status=99, state=3, float64_value=1)
    with pytest.raises(ValueError, match="9"):
        value_pb2.AlarmSeverity.Name(9)
    assert alarm_cell(value).text


def test_escape_leaves_ordinary_text():
    assert escape_text("Größe ∞") == "Größe ∞"
    assert escape_text("\u202e") == "\\u202e"


def test_times():
    ns = 1_700_000_000_123_456_789
    assert format_time(ns, utc=True) == "2023-11-14T22:13:20.123456789Z"
    assert ".123" in format_time(ns, utc=False)
    assert format_time(0, utc=True) == "—"
    assert format_time(2**63 - 1, utc=True).startswith("2262-")
    assert format_time(-1, utc=True) == "1969-12-31T23:59:59.999999999Z"
    assert [format_span(n) for n in (0, 1500, 2_500_000, 12_000_000_000, 303_000_000_000)] == [
        "0 ns",
        "1.5 µs",
        "2.5 ms",
        "12.0 s",
        "5 min 3 s",
    ]


def test_deviation_bars_grow_with_the_deviation():
    lengths = [deviation_cell(d).text.count("█") for d in (0.5, 3.0, 31.6, 1000.0, math.inf)]
    assert lengths == sorted(lengths) and lengths[-1] == 10
    assert deviation_cell(None).text == ""
    assert deviation_cell(math.nan).text == "NaN"


def test_plain_tables_align_and_never_break_a_line():
    table = Table((Column("PV"), Column("n", right=True)))
    table.add_row("A", "1")
    table.add_row(Cell("LONG\nNAME", "red"), "200")
    assert plain_lines(table) == ["PV           N", "A            1", "LONG⏎NAME  200"]
    with pytest.raises(ValueError, match="1 cells"):
        table.add_row("x")
