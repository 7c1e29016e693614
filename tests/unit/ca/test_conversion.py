"""Encoding and decoding without a server."""

from __future__ import annotations

import re

import numpy as np
import pytest
from epicscorelibs.path import include_path
from hypothesis import given
from hypothesis import strategies as st

from drey_ca import _dbr as ca
from drey_ca._encode import convert_array, encode_value
from drey_ca.eca import ECA, name
from drey_core.values import Columns

SEVERITY = {"WARNING": 0, "SUCCESS": 1, "ERROR": 2, "INFO": 3, "SEVERE": 4, "FATAL": 6}


def test_codes_are_those_of_epics():
    from pathlib import Path

    header = (Path(include_path) / "caerr.h").read_text()
    found = re.findall(r"#define ECA_(\w+)\s+DEFMSG\(CA_K_(\w+),\s*(\d+)\)", header)
    codes = {what: int(number) << 3 | SEVERITY[severity] for what, severity, number in found}
    ours = {code.name.removeprefix("_"): int(code) for code in ECA}
    assert ours == {what: codes[what] for what in ours}
    assert (name(160), name(999)) == ("ECA_PUTFAIL", "ECA_999")


def one(value, kind=None):
    return Columns.from_values(np.zeros(1, np.int64), [value], [kind])


def code_of(value, native, capacity=1, kind=None, long_string=False):
    wire = encode_value(
        one(value, kind), np.array([native]), np.array([capacity]), np.array([long_string])
    )
    return int(wire.code[0])


@pytest.mark.parametrize(
    ("value", "native", "capacity", "code"),
    [
        (2**53, ca.DBR_DOUBLE, 1, ECA.NORMAL),
        (2**53 + 1, ca.DBR_DOUBLE, 1, ECA.NOCONVERT),
        (2**63 - 1, ca.DBR_DOUBLE, 1, ECA.NOCONVERT),
        (-(2**63), ca.DBR_DOUBLE, 1, ECA.NORMAL),
        (0.1, ca.DBR_FLOAT, 1, ECA.NOCONVERT),
        (float("nan"), ca.DBR_LONG, 1, ECA.NOCONVERT),
        (float("inf"), ca.DBR_FLOAT, 1, ECA.NORMAL),
        (-1, ca.DBR_CHAR, 1, ECA.NOCONVERT),
        (-1, ca.DBR_ENUM, 1, ECA.NOCONVERT),
        (65535, ca.DBR_ENUM, 1, ECA.NORMAL),
        (1, ca.DBR_STRING, 1, ECA.BADTYPE),
        (b"x" * 39, ca.DBR_STRING, 1, ECA.NORMAL),
        (b"a\0b", ca.DBR_STRING, 1, ECA.BADSTR),
        ([1.0, 2.0], ca.DBR_DOUBLE, 1, ECA.BADCOUNT),
        ([b"a", b"b"], ca.DBR_STRING, 1, ECA.BADCOUNT),
        ([1.0, 2.5], ca.DBR_LONG, 2, ECA.NOCONVERT),
        (1.0, -1, 1, ECA.DISCONN),
    ],
)
def test_what_fits(value, native, capacity, code):
    assert code_of(value, native, capacity) == code


@given(st.integers(0, 2**64 - 1))
def test_narrowing_a_double_keeps_its_bits_or_is_refused(cell):
    source = np.array([cell], np.uint64).view(np.float64)
    out, fits = convert_array(source, np.dtype("<f4"))
    with np.errstate(all="ignore"):
        back = out.astype(np.float64).view(np.uint64)
    assert not fits[0] or int(back[0]) == cell


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_becomes_an_equal_double_or_is_refused(number):
    out, fits = convert_array(np.array([number], np.int64), np.dtype("<f8"))
    assert bool(fits[0]) == (int(float(number)) == number)
    assert not fits[0] or int(out[0]) == number
