"""The CSV of PVs: what is read, what is refused, and that an export is an import."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey_core.errors import InvalidArgument, Reason
from drey_core.names import name_problem, one_form, text_problem
from drey_core.pv_columns import MAX_DESCRIPTION_BYTES, MAX_TAG_BYTES, MAX_TAGS, RESERVED
from drey_core.pv_csv import parse_pvs
from drey_core.pv_csv_writer import write_pvs
from drey_core.pv_table import (
    MAX_PROBLEMS,
    NO_POLICY,
    CompletionMode,
    FileTable,
    Policy,
    PvProtocol,
)

EXAMPLE = b"""\
Setpoint,Readback,Device,Description,Region,Area,Subsystem
QUAD:LI21:201:BDES,QUAD:LI21:201:BACT,QUAD,"Quad 201","Cu Linac","LI21","Magnet"
FBCK:LNG6:1:BC2ELTOL,,,,"Feedback-All","LIMITS","FBCK"
"""


def table_of(text: str | bytes) -> FileTable:
    parsed = parse_pvs(text.encode() if isinstance(text, str) else text)
    assert parsed.problems == []
    return parsed.table


def problems_of(text: str) -> list[tuple[int, str, str]]:
    parsed = parse_pvs(text.encode())
    assert parsed.problem_count == len(parsed.problems)
    return [(p.line, p.column, p.message) for p in parsed.problems]


def refusal(content: bytes) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        parse_pvs(content)
    assert caught.value.reason is Reason.MALFORMED_FILE
    return caught.value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Setpoint;Readback\nA;B\n", "separated by semicolons"),
        (b"Setpoint\tReadback\nA\tB\n", "separated by tabs"),
        ("Setpoint,Readback\nA,B\n".encode("utf-16"), "is UTF-16"),
        (b"\xfe\xff" + "Setpoint\nA\n".encode("utf-16-be"), "is UTF-16"),
    ],
)
def test_what_spreadsheets_save_is_named(content: bytes, words: str):
    """Where a comma is the decimal mark they separate by semicolons."""
    assert words in refusal(content).message


def test_the_layout_in_use():
    table = table_of(EXAMPLE)
    assert table.name == ["QUAD:LI21:201:BDES", "FBCK:LNG6:1:BC2ELTOL"]
    assert table.readback == ["QUAD:LI21:201:BACT", ""]
    assert table.device == ["QUAD", ""]
    assert table.description == ["Quad 201", ""]
    assert table.tags[0] == (("Area", "LI21"), ("Region", "Cu Linac"), ("Subsystem", "Magnet"))
    assert table.groups == ("Region", "Area", "Subsystem")
    assert table.columns == {"Setpoint", "Readback", "Device", "Description"}
    assert table.line == [2, 3]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_marks_and_quotes(ends, mark):
    rows = ["setpoint,DEVICE,description", 'A,"Q ""x"", y","first', 'second"', "", "B,,", ""]
    table = table_of(mark + ends.join(rows))
    assert table.device[0] == 'Q "x", y'
    assert table.description[0] == f"first{ends}second"
    assert table.line == [2, 5]


def test_readback_only_rows_have_no_setpoint():
    table = table_of("Readback\nA\n")
    assert (table.name, table.setpoint, table.readback) == (["A"], [""], ["A"])


def test_header_cells_without_a_name_shift_nothing():
    table = table_of("Setpoint,,Area, \nA,,LI21,\n")
    assert table.tags == [(("Area", "LI21"),)]
    assert problems_of("Setpoint,,Area\nA,x,LI21\n") == [
        (2, "#2", "a value in a column without a name")
    ]


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        ("", ()),
        ("nan", ()),
        ("None", ()),
        ("NaN, none,", ()),
        ('"b, a,b , B"', ("a", "b")),
        ('"""a,b"", c"', ("a,b", "c")),
        ('"""none"""', ("none",)),
        ('"x, ""say """"hi"""""""', ('say "hi"', "x")),
        ('5""', ('5""',)),
    ],
)
def test_tags(cell, tags):
    if "," in cell and not cell.startswith('"'):
        cell = f'"{cell}"'
    assert table_of(f"Setpoint,G\nA,{cell}\n").tags == [tuple(("G", t) for t in tags)]


def test_addresses_with_their_protocol():
    table = table_of("Setpoint,Readback\nca://A,CA://A:RB\npva://B,\nC,pva://D\nE,F\n")
    assert table.setpoint == ["A", "B", "C", "E"]
    assert table.readback == ["A:RB", "", "D", "F"]
    assert table.name == ["A", "B", "C", "E"]
    none = PvProtocol.UNSPECIFIED
    assert table.protocol == [PvProtocol.CA, PvProtocol.PVA, PvProtocol.PVA, none]
    assert "Protocol" in table.columns  # the file speaks of it
    assert "Protocol" not in table_of("Setpoint\nE\n").columns
    assert table_of("Setpoint\nhttp://A\n").setpoint == ["http://A"]


def test_reserved_columns():
    table = table_of(
        "Setpoint,Readback,name,abs tolerance,Rel Tolerance,Readback Abs Tolerance,"
        "Readback Rel Tolerance,READ ONLY,Protocol,Restore Completion,Restore Timeout,"
        "Restore Stage,Restore Done Channel,Restore Allowed Low,Restore Allowed High\n"
        "A,B,N,0.5,1e-3,2,0,yes,PVA,done-channel,2.5,-3,M.DMOV,-1,1\n"
        "C,,,,,,,,,,,,,,\n"
        "D,,,,,,,,,,,,,2,\n"
    )
    assert table.name == ["N", "C", "D"]
    assert table.setpoint_absolute.tolist() == [0.5, 0, 0]
    assert table.setpoint_relative.tolist() == [1e-3, 0, 0]
    assert table.readback_absolute.tolist() == [2, 0, 0]
    assert table.read_only == [True, False, False]
    assert table.protocol == [PvProtocol.PVA, PvProtocol.UNSPECIFIED, PvProtocol.UNSPECIFIED]
    assert table.policy[0] == Policy(
        CompletionMode.DONE_CHANNEL,
        timeout_s=2.5,
        stage=-3,
        done_channel="M.DMOV",
        allowed_low=-1,
        allowed_high=1,
    )
    assert table.policy[1] == NO_POLICY
    assert table.policy[2] == Policy(allowed_low=2)


@pytest.mark.parametrize(
    ("header", "row", "column", "words"),
    [
        ("Setpoint,Abs Tolerance", "A,nan", "Abs Tolerance", "finite"),
        ("Setpoint,Abs Tolerance", "A,inf", "Abs Tolerance", "finite"),
        ("Setpoint,Rel Tolerance", "A,-1", "Rel Tolerance", "negative"),
        ("Setpoint,Readback Abs Tolerance", "A,x", "Readback Abs Tolerance", "not a number"),
        ("Setpoint,Read Only", "A,perhaps", "Read Only", "true nor false"),
        ("Setpoint,Protocol", "A,modbus", "Protocol", "ca and pva"),
        ("Setpoint,Protocol", "ca://A,pva", "Setpoint", "one protocol"),
        ("Setpoint,Readback", "ca://A,pva://B", "Readback", "one protocol"),
        ("Setpoint", "ca://", "Setpoint", "names no channel"),
        ("Setpoint,Restore Completion", "A,soon", "Restore Completion", "put-callback"),
        ("Setpoint,Restore Stage", "A,1.5", "Restore Stage", "whole"),
        ("Setpoint,Restore Stage", "A,9999999999", "Restore Stage", "32 bits"),
        ("Setpoint,Restore Timeout", "A,0", "Restore Timeout", "above zero"),
        ("Setpoint,Restore Done Channel", "A,x y", "Restore Done Channel", "blank"),
        ("Setpoint,Readback", "A B,", "Setpoint", "blank"),
        ("Setpoint,Readback", "A,\x01", "Readback", "control"),
        ("Setpoint,Readback,Area", ",,x", "Setpoint", "both empty"),
        ("Setpoint,Device", f"A,{'d' * 501}", "Device", "longer than 500"),
        ("Setpoint,Device", 'A,"x\ny"', "Device", "control"),
        ("Setpoint,Description", f"A,{'d' * 10001}", "Description", "longer"),
        ("Setpoint,Area", f"A,{'t' * 201}", "Area", "longer than 200"),
        ("Setpoint,Area", 'A,"""x"', "Area", "does not end"),
        ("Setpoint,Area", "A", "", "1 cells, the header 2"),
        ("Setpoint,Area", "A,b,c", "", "3 cells, the header 2"),
    ],
)
def test_problems_are_named_by_line_and_column(header, row, column, words):
    filler = "Z" + "," * header.count(",")
    ((line, at, message),) = problems_of(f"{header}\n{filler}\n{row}\n")
    assert (line, at) == (3, column)
    assert words in message


def test_all_problems_are_found_in_order():
    text = "Setpoint,Abs Tolerance\nA,-1\nx y,nan\nB\nA,\n"
    assert [(p[0], p[1]) for p in problems_of(text)] == [
        (2, "Abs Tolerance"),
        (3, "Setpoint"),
        (3, "Abs Tolerance"),
        (4, ""),
        (5, "Setpoint"),
    ]
    many = parse_pvs(("Setpoint\n" + "x y\n" * 2000).encode())
    assert len(many.problems) == MAX_PROBLEMS
    assert many.problem_count >= 2000


def test_duplicates_name_both_lines_and_case_counts():
    assert problems_of("Setpoint\nA\na\nA\n") == [(4, "Setpoint", "A is in line 2 already")]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b"\n\n", 1),
        (b"Device,Area\nx,y\n", 1),
        (b"Setpoint,Area,area\n", 1),
        (b"Setpoint,setpoint\n", 1),
        (b'Setpoint\nA\n"B\nC\nD', 3),
        (b'Setpoint\nA\n"B"x\n', 3),
        (b"Setpoint\nA\n\xff\n", 3),
        (b"\xef\xbb\xbfSetpoint\n\xc3\n", 2),
        (b'Setpoint\n"' + b"x" * 1_000_000 + b'"\n', 2),
        (b"Setpoint," + b"g" * 201 + b"\n", 1),
    ],
)
def test_what_is_refused_whole(content, line):
    assert refusal(content).metadata["line"] == str(line)


def test_a_file_cut_off_anywhere_never_reads_as_the_whole():
    content = b'Setpoint,Description\r\nA,"one, ""two"""\r\nB,"three\r\nfour"\r\n'
    whole = table_of(content)
    for end in range(len(content) - 2):
        try:
            parsed = parse_pvs(content[:end])
        except InvalidArgument:
            continue
        assert parsed.problems or parsed.table.description != whole.description


SHOWN = st.characters(codec="utf-8").filter(lambda char: text_problem(char) is None)
TEXT = st.text(SHOWN, max_size=12).map(one_form)
ADDRESS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(
    lambda text: name_problem(text) is None
)
GROUP = TEXT.map(str.strip).filter(
    lambda text: text and text.casefold() not in {name.casefold() for name in RESERVED}
)
TAG = TEXT.filter(bool)
NOT_NEGATIVE = st.floats(0, allow_infinity=False)
POLICIES = st.builds(
    Policy,
    st.sampled_from(CompletionMode),
    st.none() | st.floats(1e-9, 1e9),
    st.none() | NOT_NEGATIVE,
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.just("") | ADDRESS,
    st.none() | st.floats(allow_nan=False),
)


@st.composite
def tables(draw) -> FileTable:
    names = draw(st.lists(ADDRESS, unique=True, max_size=6))
    groups = draw(st.lists(GROUP, unique_by=str.casefold, max_size=3))
    n = len(names)

    def many(strategy):
        return draw(st.lists(strategy, min_size=n, max_size=n))

    readback = many(st.just("") | ADDRESS)
    given_setpoint = many(st.just("") | ADDRESS)
    tags = []
    for _ in names:
        row = []
        for group in sorted(groups):
            chosen = draw(st.lists(TAG, unique_by=str.casefold, max_size=3))
            row += [(group, tag) for tag in sorted(chosen)]
        tags.append(tuple(row))
    return FileTable(
        line=[0] * n,
        name=names,
        setpoint=[s or r or a for s, r, a in zip(given_setpoint, readback, names, strict=True)],
        readback=readback,
        device=many(TEXT),
        description=many(st.text(SHOWN | st.sampled_from("\t\n\r"))),
        protocol=many(st.sampled_from(sorted({*PvProtocol} - {PvProtocol.LIVE}))),  # not built yet
        read_only=many(st.booleans()),
        setpoint_absolute=np.array(many(NOT_NEGATIVE), float),
        setpoint_relative=np.array(many(NOT_NEGATIVE), float),
        readback_absolute=np.array(many(NOT_NEGATIVE), float),
        readback_relative=np.array(many(NOT_NEGATIVE), float),
        policy=many(st.just(NO_POLICY) | POLICIES),
        tags=tags,
        groups=tuple(groups),
    )


@given(tables())
@settings(max_examples=200, deadline=None)
def test_an_export_reads_back_to_the_same(table):
    back = table_of(write_pvs(table))
    for name in ("name", "setpoint", "readback", "device", "description", "protocol", "read_only"):
        assert getattr(back, name) == getattr(table, name), name
    for name in (
        "setpoint_absolute",
        "setpoint_relative",
        "readback_absolute",
        "readback_relative",
    ):
        assert (getattr(back, name) == getattr(table, name)).all(), name
    assert back.policy == table.policy
    assert back.tags == table.tags
    assert back.groups == table.groups


def test_names_that_look_the_same_are_the_same():
    """Not those of channels: an IOC knows its records by their bytes."""
    one, two = "Ger\u00e4t", "Gera\u0308t"
    table = table_of(f"Setpoint,Device,{two}\n{one},{one},{one}\n{two},{two},{two}\n")
    assert table.setpoint == [one, two]
    assert table.device == [one, one]
    assert table.groups == (one,)
    assert table.tags == [((one, one),)] * 2
    assert refusal(f"Setpoint,{one},{two}\n".encode()).message.endswith("occurs twice")


def test_the_longest_cells_of_an_export_are_read_back():
    """As many tags as a PV can carry, each as long as can be, of what is quoted twice."""
    tags = tuple(sorted(("G", f"{n:04d}" + '"' * (MAX_TAG_BYTES - 4)) for n in range(MAX_TAGS)))
    table = table_of("Setpoint,Description\nA,\n")
    table.tags, table.groups = [tags], ("G",)
    table.description = ['"' * MAX_DESCRIPTION_BYTES]
    back = table_of(write_pvs(table))
    assert (back.tags, back.description) == (table.tags, table.description)


def test_an_export_is_a_superset_of_the_import():
    table = table_of(EXAMPLE)
    out = write_pvs(table)
    assert out.splitlines()[0] == EXAMPLE.splitlines()[0]
    assert table_of(out).tags == table.tags


def test_a_group_with_a_reserved_name_cannot_be_exported():
    table = table_of(EXAMPLE)
    table.groups = ("device",)
    with pytest.raises(InvalidArgument, match="device"):
        write_pvs(table)


@pytest.mark.parametrize(
    ("column", "cell"),
    [("Abs Tolerance", "1_0"), ("Abs Tolerance", "\u0661"), ("Restore Stage", "1_0")],
)
def test_what_only_python_reads_as_a_number_is_none(column: str, cell: str) -> None:
    parsed = parse_pvs(f"Setpoint,{column}\nA,{cell}\n".encode())
    assert [problem.column for problem in parsed.problems] == [column]
