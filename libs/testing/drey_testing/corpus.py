"""The hostile corpus: values that some system somewhere has lost, and strategies for more.

Every codec that values pass through is tested over all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from drey_core.values import ARRAY, ELEMENT_DTYPE, Columns, Kind, State, heap_ref, pack_strings

HOSTILE_CHARACTERS = "\0\a\b\x1b\x7f\x9b\u200b\u200e\u202e\u2028\u2066\ufeff\ud800"
"""Characters that act on a terminal or a page instead of being shown on it."""

_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

TIME_NS = 1_785_000_000_123_456_789
"""A time of 2026 with all its nanoseconds."""


@dataclass(frozen=True, slots=True)
class Case:
    """One value by its bits: a number for scalars, heap bytes for strings and arrays."""

    name: str
    kind: int
    data: int | bytes
    state: int = State.CONNECTED
    severity: int = 0
    status: int = 0
    source_time: int = TIME_NS
    receive_time: int = TIME_NS + 1_000_003


_U64 = 0xFFFF_FFFF_FFFF_FFFF
_FLOAT64_BITS = {
    "zero": 0,
    "minus zero": 1 << 63,
    "one": 0x3FF0_0000_0000_0000,
    "tenth": 0x3FB9_9999_9999_999A,
    "infinity": 0x7FF0_0000_0000_0000,
    "minus infinity": 0xFFF0_0000_0000_0000,
    "quiet NaN": 0x7FF8_0000_0000_0000,
    "NaN with payload": 0x7FF8_0000_DEAD_BEEF,
    "signalling NaN": 0x7FF0_0000_0000_0001,
    "negative NaN": 0xFFF8_0000_0000_0001,
    "smallest": 1,
    "largest": 0x7FEF_FFFF_FFFF_FFFF,
}
_FLOAT32_BITS = {
    "zero": 0,
    "minus zero": 1 << 31,
    "tenth": 0x3DCC_CCCD,
    "infinity": 0x7F80_0000,
    "quiet NaN": 0x7FC0_0000,
    "NaN with payload": 0x7FC0_BEEF,
    "signalling NaN": 0x7F80_0001,
    "smallest": 1,
}
_STRINGS = {
    "empty": b"",
    "plain": b"MAGNET",
    "quotes and commas": b"say \"hi\", then, 'bye'",
    "line ends": b"a\r\nb\nc\td",
    "UTF-8": "µm Größe 磁石 🧲".encode(),
    "Latin-1": b"gr\xfcn \xb5m",
    "cut off UTF-8": "磁".encode()[:2],
    "zero byte": b"a\0b",
    "forty characters": b"x" * 40,
    "long": b"long string " * 100,
    "looks like a number": b"0x1F",
    "looks like nothing": b"nan",
}


def _integer_cases() -> list[Case]:
    cases = []
    for kind, dtype in ELEMENT_DTYPE.items():
        if dtype.kind not in "iu" or kind == Kind.BOOL:
            continue
        info = np.iinfo(dtype)
        for number in sorted({int(info.min), int(info.min) + 1, 0, 1, int(info.max)}):
            cases.append(Case(f"{Kind(kind).name} {number}", int(kind), number & _U64))
    return cases


def _array_cases() -> list[Case]:
    cases = []
    for kind, dtype in ELEMENT_DTYPE.items():
        for count in (0, 1, 3, 300):
            raw = np.arange(count).astype(dtype).tobytes()
            if kind == Kind.BOOL:
                raw = (np.arange(count) % 2).astype(dtype).tobytes()
            cases.append(Case(f"{Kind(kind).name} array of {count}", int(kind) | ARRAY, raw))
    specials = np.array(list(_FLOAT64_BITS.values()), "<u8").tobytes()
    narrow = np.array(list(_FLOAT32_BITS.values()), "<u4").tobytes()
    cases.append(Case("float64 specials", Kind.FLOAT64 | ARRAY, specials))
    cases.append(Case("float32 specials", Kind.FLOAT32 | ARRAY, narrow))
    for name, strings in {
        "no strings": [],
        "one empty string": [b""],
        "strings": [b"a", b"", "µ".encode()],
        "strings not UTF-8": [b"a", b"\xff\xfe", b""],
    }.items():
        cases.append(Case(name, Kind.STRING | ARRAY, pack_strings(strings)))
    return cases


def _state_cases() -> list[Case]:
    return [
        Case("absent", Kind.NONE, 0, State.ABSENT, source_time=0, receive_time=0),
        Case("never connected", Kind.NONE, 0, State.NEVER_CONNECTED, source_time=0, receive_time=0),
        Case("connected without a value", Kind.NONE, 0, source_time=0, receive_time=0),
        Case("disconnected", Kind.FLOAT64, _FLOAT64_BITS["tenth"], State.DISCONNECTED, 3, 9),
        Case("disconnected string", Kind.STRING, b"last", State.DISCONNECTED, 3, 9),
        Case("never processed", Kind.FLOAT64, 0, source_time=631_152_000_000_000_000),
        Case("from the future", Kind.FLOAT64, 0, source_time=TIME_NS + 10**15),
        Case("before 1970", Kind.FLOAT64, 0, source_time=-1),
        Case("end of time", Kind.FLOAT64, 0, source_time=2**63 - 1, receive_time=2**63 - 1),
        Case("begin of time", Kind.FLOAT64, 0, source_time=-(2**63)),
        Case("in alarm", Kind.INT32, 5, severity=2, status=3),
        Case("unknown status", Kind.INT32, 5, severity=3, status=65535),
        Case("enum", Kind.ENUM, 1),
        Case("enum beyond its labels", Kind.ENUM, 65535),
    ]


HOSTILE: tuple[Case, ...] = (
    *(Case(f"float64 {name}", Kind.FLOAT64, bits) for name, bits in _FLOAT64_BITS.items()),
    *(Case(f"float32 {name}", Kind.FLOAT32, bits) for name, bits in _FLOAT32_BITS.items()),
    *(Case(f"string {name}", Kind.STRING, raw) for name, raw in _STRINGS.items()),
    Case("false", Kind.BOOL, 0),
    Case("true", Kind.BOOL, 1),
    *_integer_cases(),
    *_array_cases(),
    *_state_cases(),
)
"""Every case, in a fixed order."""


def columns_of(cases: tuple[Case, ...] | list[Case], *, first_key: int = 0) -> Columns:
    """The cases as columns keyed from `first_key` on, heap in row order without gaps."""
    out = Columns.empty_columns(len(cases))
    heap = bytearray()
    for row, case in enumerate(cases):
        out.kind[row], out.state[row] = case.kind, case.state
        out.severity[row], out.status[row] = case.severity, case.status
        out.source_time[row], out.receive_time[row] = case.source_time, case.receive_time
        out.origin[row] = 1 if case.kind else 0
        if isinstance(case.data, bytes):
            out.data[row] = heap_ref(len(heap), len(case.data))
            heap += case.data
        else:
            out.data[row] = case.data
    return replace(
        out, key=np.arange(first_key, first_key + len(cases), dtype=np.int64), heap=bytes(heap)
    )


def hostile_columns(*, first_key: int = 0) -> Columns:
    """The whole corpus as columns, keyed by channel numbers from `first_key` on."""
    return columns_of(HOSTILE, first_key=first_key)


_INTEGER_KINDS = [k for k, d in ELEMENT_DTYPE.items() if d.kind in "iu" and k != Kind.BOOL]


def _integer_case(kind: int) -> st.SearchStrategy[Case]:
    info = np.iinfo(ELEMENT_DTYPE[kind])
    numbers = st.integers(int(info.min), int(info.max))
    return numbers.map(lambda number: Case("integer", int(kind), number & _U64))


def _array_case(kind: int) -> st.SearchStrategy[Case]:
    dtype = ELEMENT_DTYPE[kind]
    if kind == Kind.BOOL:
        raw = st.lists(st.booleans(), max_size=20).map(bytes)
    else:
        width = dtype.itemsize
        raw = st.binary(max_size=20 * width).map(lambda b: b[: len(b) // width * width])
    return raw.map(lambda data: Case("array", int(kind) | ARRAY, data))


def cases() -> st.SearchStrategy[Case]:
    """Any value of any kind in any state, the corpus often among them."""
    scalars = st.one_of(
        st.integers(0, _U64).map(lambda bits: Case("float64", Kind.FLOAT64, bits)),
        st.integers(0, 0xFFFF_FFFF).map(lambda bits: Case("float32", Kind.FLOAT32, bits)),
        st.booleans().map(lambda flag: Case("bool", Kind.BOOL, int(flag))),
        st.sampled_from(_INTEGER_KINDS).flatmap(_integer_case),
    )
    strings = st.binary(max_size=60).map(lambda raw: Case("string", Kind.STRING, raw))
    lists = st.lists(st.binary(max_size=10), max_size=5).map(
        lambda items: Case("strings", Kind.STRING | ARRAY, pack_strings(items))
    )
    arrays = st.sampled_from(list(ELEMENT_DTYPE)).flatmap(_array_case)
    fresh = st.one_of(scalars, strings, lists, arrays)
    around = st.builds(
        lambda case, severity, status, source, receive: replace(
            case, severity=severity, status=status, source_time=source, receive_time=receive
        ),
        fresh,
        st.integers(0, 3),
        st.integers(0, 300),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 2**63 - 1),
    )
    return st.one_of(st.sampled_from(HOSTILE), around)


def columns(max_size: int = 20) -> st.SearchStrategy[Columns]:
    """Columns of some cases, keyed from 0."""
    return st.lists(cases(), max_size=max_size).map(columns_of)


def other_spellings(token: str) -> list[str]:
    """Texts that a decoder of base64 may take for the same bytes as `token` (URL-safe, no padding):
    padded, with letters of the other alphabet, with blanks, with bits at the end that say nothing.
    """
    others = [token + "=" * n for n in (1, 2, 3, 4)]
    others += [token.translate(str.maketrans("-_", "+/")), f" {token}", f"{token}\n"]
    if unused_bits := len(token) % 4 and (4 - len(token) % 4) * 2:
        last = _BASE64.index(token[-1])
        others += [token[:-1] + _BASE64[last ^ bits] for bits in range(1, 1 << unused_bits)]
    return [other for other in others if other != token]
