"""Laws and cases of comparing."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey_core.compare import DifferenceClass as D
from drey_core.compare import compare, summarise_classes
from drey_core.values import ARRAY, Columns, Kind, State, pack_strings
from drey_testing.corpus import Case, cases, columns, columns_of, hostile_columns

SAME = (D.EQUAL, D.WITHIN_TOLERANCE)


def tolerances(n: int, absolute: float = 0.0, relative: float = 0.0):
    return np.full(n, absolute), np.full(n, relative)


def column(kind: int, *values) -> Columns:
    out = Columns.from_values(np.arange(len(values)), values, [kind] * len(values))
    out.state[:] = State.CONNECTED
    return out


def one(a_kind, a, b_kind, b, absolute=0.0, relative=0.0, **labels):
    return compare(
        column(a_kind, a), column(b_kind, b), *tolerances(1, absolute, relative), **labels
    )


def connected(cols: Columns) -> np.ndarray:
    return (cols.state == State.CONNECTED) & (cols.kind != Kind.NONE)


def test_everything_of_the_corpus_equals_itself():
    cols = hostile_columns()
    result = compare(cols, cols, *tolerances(len(cols)))
    assert (result.cls[connected(cols)] == D.EQUAL).all()
    assert (result.elements_different == 0).all()


@given(columns(), st.floats(0, 1e300), st.floats(0, 1e300))
@settings(max_examples=150, deadline=None)
def test_comparing_is_reflexive(cols, absolute, relative):
    copy = replace(cols, heap=bytes(bytearray(cols.heap)), data=cols.data.copy())
    result = compare(cols, copy, *tolerances(len(cols), absolute, relative))
    assert (result.cls[connected(cols)] == D.EQUAL).all()


MIRROR = {
    D.ONLY_IN_REFERENCE: D.ONLY_IN_OTHER,
    D.ONLY_IN_OTHER: D.ONLY_IN_REFERENCE,
    D.DISCONNECTED_IN_REFERENCE: D.DISCONNECTED_IN_OTHER,
    D.DISCONNECTED_IN_OTHER: D.DISCONNECTED_IN_REFERENCE,
}


@given(st.lists(st.tuples(cases(), cases()), max_size=20), st.floats(0, 1e9))
@settings(max_examples=200, deadline=None)
def test_without_relative_tolerance_the_class_is_symmetric(pairs, absolute):
    a, b = columns_of([p[0] for p in pairs]), columns_of([p[1] for p in pairs])
    there = compare(a, b, *tolerances(len(pairs), absolute))
    back = compare(b, a, *tolerances(len(pairs), absolute))
    assert [MIRROR.get(D(c), c) for c in there.cls] == back.cls.tolist()
    assert (there.elements_different == back.elements_different).all()


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**53))
def test_integers_are_compared_exactly(signed, unsigned, tolerance):
    result = one(Kind.INT64, signed, Kind.UINT64, unsigned, float(tolerance))
    expected = D.EQUAL if signed == unsigned else D.DIFFERENT
    if signed != unsigned and abs(signed - unsigned) <= tolerance:
        expected = D.WITHIN_TOLERANCE
    assert result.cls[0] == expected
    assert result.delta[0] == pytest.approx(unsigned - signed)


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(0, 1e6),
    st.floats(0, 10),
)
def test_floats_follow_the_formula(a, b, absolute, relative):
    result = one(Kind.FLOAT64, a, Kind.FLOAT64, b, absolute, relative)
    if a == b:
        expected = D.EQUAL
    else:
        within = abs(a - b) <= absolute + relative * abs(a)
        expected = D.WITHIN_TOLERANCE if within else D.DIFFERENT
    assert result.cls[0] == expected
    assert result.delta[0] == b - a


@pytest.mark.parametrize(
    ("a", "b", "absolute", "relative", "expected"),
    [
        (0.0, -0.0, 0, 0, D.EQUAL),
        (math.nan, -math.nan, 0, 0, D.EQUAL),
        (math.nan, 0.0, math.inf, 0, D.DIFFERENT),
        (0.0, math.nan, 1e300, 0, D.DIFFERENT),
        (math.inf, math.inf, 0, 0, D.EQUAL),
        (math.inf, math.inf, 0, 1, D.EQUAL),
        (math.inf, -math.inf, 1, 1, D.DIFFERENT),
        (math.inf, 1.0, 0, 1, D.DIFFERENT),
        (1.0, math.inf, math.inf, 0, D.DIFFERENT),
        (1.7e308, -1.7e308, 0, 1, D.DIFFERENT),
        (1.7e308, -1.7e308, 0, 2.1, D.WITHIN_TOLERANCE),
        (0.0, 1.0, 1, math.inf, D.WITHIN_TOLERANCE),
        (100.0, 101.0, 0, 0.01, D.WITHIN_TOLERANCE),
        (101.0, 99.9, 0, 0.01, D.DIFFERENT),
    ],
)
def test_special_numbers(a, b, absolute, relative, expected):
    assert one(Kind.FLOAT64, a, Kind.FLOAT64, b, absolute, relative).cls[0] == expected


def test_figures_of_a_difference():
    a, b = column(Kind.FLOAT64, 2.0, 0.0, 1.0, 1.0), column(Kind.FLOAT64, 3.0, 1.0, 2.0, 1.0)
    result = compare(a, b, np.array([0.5, 0.0, 4.0, 0.0]), np.zeros(4))
    assert result.delta.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert result.relative[0] == 0.5
    assert math.isnan(result.relative[1])
    assert result.deviation.tolist() == [2.0, math.inf, 0.25, 0.0]


@pytest.mark.parametrize(
    ("a_kind", "a", "b_kind", "b", "expected"),
    [
        (Kind.INT32, 5, Kind.FLOAT64, 5.0, D.EQUAL),
        (Kind.FLOAT32, 0.1, Kind.FLOAT64, 0.1, D.DIFFERENT),
        (Kind.BOOL, True, Kind.UINT8, 1, D.EQUAL),
        (Kind.INT32, 5, Kind.STRING, b"5", D.TYPE_CHANGED),
        (Kind.ENUM, 1, Kind.INT32, 1, D.TYPE_CHANGED),
        (Kind.ENUM, 1, Kind.STRING, b"ON", D.TYPE_CHANGED),
        (Kind.STRING, b"\xff", Kind.STRING, b"\xff", D.EQUAL),
        (Kind.STRING, b"a", Kind.STRING, b"a ", D.DIFFERENT),
        (Kind.FLOAT64, 1.0, Kind.FLOAT64 | ARRAY, [1.0], D.EQUAL),
        (Kind.FLOAT64, 1.0, Kind.FLOAT64 | ARRAY, [1.0, 2.0], D.TYPE_CHANGED),
        (Kind.FLOAT64, 1.0, Kind.FLOAT64 | ARRAY, [], D.TYPE_CHANGED),
        (Kind.INT32 | ARRAY, [1, 2], Kind.FLOAT64 | ARRAY, [1.0, 2.0], D.EQUAL),
        (Kind.INT32 | ARRAY, [], Kind.INT32 | ARRAY, [], D.EQUAL),
        (Kind.INT32 | ARRAY, [], Kind.INT32 | ARRAY, [1], D.DIFFERENT),
        (Kind.STRING, b"a", Kind.STRING | ARRAY, [b"a"], D.EQUAL),
        (Kind.STRING | ARRAY, [b"a"], Kind.INT32 | ARRAY, [1], D.TYPE_CHANGED),
        (Kind.STRING | ARRAY, [b"a", b"b"], Kind.STRING | ARRAY, [b"a"], D.DIFFERENT),
    ],
)
def test_kinds_against_each_other(a_kind, a, b_kind, b, expected):
    assert one(a_kind, a, b_kind, b, 1e-9).cls[0] == expected


def test_arrays_are_compared_element_by_element():
    a = column(Kind.FLOAT64 | ARRAY, [1.0, 2.0, math.nan, 4.0], [1.0, 2.0], [1.0])
    b = column(Kind.FLOAT64 | ARRAY, [1.05, 3.0, math.nan, 7.0], [1.05, 2.0], [1.0, 5.0])
    result = compare(a, b, *tolerances(3, 0.1))
    assert result.cls.tolist() == [D.DIFFERENT, D.WITHIN_TOLERANCE, D.DIFFERENT]
    assert result.elements_different.tolist() == [2, 0, 1]
    assert result.largest_at[0] == 3
    assert result.delta[0] == 3.0
    assert result.deviation[0] == pytest.approx(30)


def test_large_integers_in_arrays_are_exact():
    a, b = column(Kind.INT64 | ARRAY, [2**62]), column(Kind.INT64 | ARRAY, [2**62 + 1])
    assert compare(a, b, *tolerances(1)).cls[0] == D.DIFFERENT
    assert compare(a, b, *tolerances(1, 1.0)).cls[0] == D.WITHIN_TOLERANCE


OLD, NEW = (b"OFF", b"ON"), (b"OFF", b"STANDBY", b"ON")


@pytest.mark.parametrize(
    ("a", "b", "here", "there", "expected", "moved"),
    [
        (1, 1, OLD, OLD, D.EQUAL, False),
        (1, 1, None, NEW, D.EQUAL, False),
        (1, 1, OLD, NEW, D.DIFFERENT, True),
        (1, 2, OLD, NEW, D.EQUAL, True),
        (0, 0, OLD, NEW, D.EQUAL, True),
        (5, 5, OLD, NEW, D.NOT_COMPARABLE, True),
    ],
)
def test_enums_are_compared_by_label_when_labels_moved(a, b, here, there, expected, moved):
    labels = {
        "reference_labels": {0: here} if here else None,
        "other_labels": lambda row: there,
    }
    result = one(Kind.ENUM, a, Kind.ENUM, b, **labels)
    assert (result.cls[0], bool(result.labels_moved[0])) == (expected, moved)
    arrays = one(Kind.ENUM | ARRAY, [a], Kind.ENUM | ARRAY, [b], **labels)
    assert (arrays.cls[0], bool(arrays.labels_moved[0])) == (expected, moved)


def test_missing_is_not_equal():
    absent = Case("absent", Kind.NONE, 0, State.ABSENT)
    never = Case("never", Kind.NONE, 0, State.NEVER_CONNECTED)
    gone = Case("gone", Kind.INT32, 5, State.DISCONNECTED)
    here = Case("here", Kind.INT32, 5)
    table = {
        (absent, absent): D.UNSPECIFIED,
        (absent, here): D.ONLY_IN_OTHER,
        (here, absent): D.ONLY_IN_REFERENCE,
        (absent, gone): D.ONLY_IN_OTHER,
        (never, here): D.DISCONNECTED_IN_REFERENCE,
        (gone, here): D.DISCONNECTED_IN_REFERENCE,
        (here, gone): D.DISCONNECTED_IN_OTHER,
        (gone, gone): D.DISCONNECTED_IN_BOTH,
        (never, gone): D.DISCONNECTED_IN_BOTH,
        (here, here): D.EQUAL,
    }
    a, b = columns_of([p[0] for p in table]), columns_of([p[1] for p in table])
    assert compare(a, b, *tolerances(len(table))).cls.tolist() == list(table.values())


def test_equal_heaps_do_not_hide_what_moved_in_them():
    raw = pack_strings([b"a"])
    a = columns_of([Case("x", Kind.STRING, b"ab"), Case("y", Kind.STRING | ARRAY, raw)])
    b = a.take_rows(np.array([1, 0]))
    assert compare(a, b, *tolerances(2)).cls.tolist() == [D.DIFFERENT, D.DIFFERENT]


@given(st.lists(st.tuples(st.integers(0, 10), st.booleans(), st.integers(0, 10), st.booleans())))
def test_the_summary_partitions_the_pvs(rows):
    sp, has_sp, rb, has_rb = (np.array([r[i] for r in rows]) for i in range(4))
    args = sp.astype("u1"), has_sp.astype(bool), rb.astype("u1"), has_rb.astype(bool)
    summary = summarise_classes(*args)
    kinds = []
    for s, hs, r, hr in rows:
        classes = {c for c, has in ((s, hs), (r, hr)) if has and c}
        if classes:
            kinds.append(
                "different" if D.DIFFERENT in classes else "same" if classes <= set(SAME) else "?"
            )
    assert summary.pvs == len(kinds)
    assert summary.pvs_different == kinds.count("different")
    assert summary.pvs_same == kinds.count("same")
    assert summary.pvs_unknown == kinds.count("?")
    assert sum(summary.setpoints) == sum(1 for s, has, _, _ in rows if has and s)
