"""The CSV of PVs: Setpoint, Readback, Device, Description, our reserved columns, tag groups.

RFC 4180: quotes, doubled quotes, line ends within quotes, CR LF or LF, a byte order mark or none.
What cannot be read as CSV refuses the whole file by its line. What reads but says nothing sensible
is a list of problems by line and column, all of them, so that a file is mended in one go.

Every column that is not reserved is a tag group; its cells hold tags separated by commas, and
`nan` and `none` mean no tag. A tag with a comma or a quote in its name, or that is called `none`,
is quoted again inside the cell.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter
from typing import TypeVar

import numpy as np

from drey_core.names import MAX_NAME_BYTES, name_problem, one_form, text_problem
from drey_core.pv_columns import (
    CANONICAL_NAMES,
    DESCRIPTION,
    DEVICE,
    MAX_CELL_CHARACTERS,
    MAX_DESCRIPTION_BYTES,
    MAX_DEVICE_BYTES,
    MAX_TAG_BYTES,
    MAX_TAGS,
    NAME,
    POLICY,
    POLICY_PARSERS,
    PROTOCOL,
    READ_ONLY,
    READBACK,
    SETPOINT,
    TOLERANCES,
    parse_flag,
    parse_protocol,
    parse_tags,
    parse_tolerance,
    short_cell,
)
from drey_core.pv_table import (
    F8,
    NO_POLICY,
    CellProblem,
    FileTable,
    Policy,
    Problems,
    PvProtocol,
    Tag,
    malformed_line,
    split_scheme,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedPvs:
    """What a file of PVs holds. `table` is to be used only where there are no problems."""

    table: FileTable
    problems: list[CellProblem]
    problem_count: int
    """All problems; `problems` has the first thousand, by line."""


def parse_pvs(content: bytes) -> ParsedPvs:
    """Read a CSV of PVs. Raises `InvalidArgument` (MALFORMED_FILE, `line`) if it is not one."""
    lines, rows = _read_records(_decode_content(content))
    if not rows:
        raise malformed_line(1, "the file is empty; it needs at least a header")
    problems = Problems()
    header = _Header(rows[0], lines[0])
    del lines[0], rows[0]
    header.check_widths(lines, rows, problems)
    width = len(header.cells)
    if any(size != width for size in map(len, rows)):
        good = [i for i, row in enumerate(rows) if len(row) == width]
        lines, rows = [lines[i] for i in good], [rows[i] for i in good]
    table = _Reader(header, lines, rows, problems).read_table()
    _check_duplicates(table, problems)
    sorted_problems = sorted(problems.found, key=lambda problem: problem.line)
    return ParsedPvs(table, _name_problems(sorted_problems, table), problems.total)


def _decode_content(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise malformed_line(1, "the file is UTF-16: save it as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Counted over what was decoded, so that a byte order mark does not shift it.
        line = content.count(b"\n", 0, content.find(error.object[error.start :])) + 1
        raise malformed_line(
            line, f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        ) from error


def _read_records(text: str) -> tuple[list[int], list[list[str]]]:
    """(line at which each record begins, records), blank lines left out."""
    csv.field_size_limit(MAX_CELL_CHARACTERS)  # of the process; 131,072 are too few for tags
    if '"' not in text:
        # nothing spans lines; whatever is wrong with the file is found again below, with its line
        with suppress(csv.Error):
            plain = list(csv.reader(io.StringIO(text, newline=""), strict=True))
            numbers = list(range(1, len(plain) + 1))
            if all(plain):
                return numbers, plain
            return list(compress(numbers, plain)), list(filter(None, plain))
    lines: list[int] = []
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begin = 1
    try:
        for row in reader:
            if row:
                lines.append(begin)
                rows.append(row)
            begin = reader.line_num + 1
    except csv.Error as error:
        reason = str(error)
        if "unexpected end" in reason:
            reason = "the file ends within the quoted cell that begins in this row; is it cut off?"
        elif "field larger" in reason:
            reason = f"a cell is larger than {MAX_CELL_CHARACTERS} characters"
        raise malformed_line(begin, reason) from error
    return lines, rows


class _Header:
    """Where the columns are. Cells without a name keep their place."""

    def __init__(self, cells: list[str], line: int) -> None:
        self.cells = cells
        self.at: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        seen: dict[str, int] = {}
        for mark, what in ((";", "semicolons"), ("\t", "tabs")):
            if len(cells) == 1 and mark in cells[0]:
                raise malformed_line(
                    line, f"the columns are separated by {what}: save the file with commas"
                )
        for index, cell in enumerate(cells):
            name = one_form(cell.strip())
            folded = name.casefold()
            if not name:
                continue
            if folded in seen:
                raise malformed_line(line, f"the column {name!r} occurs twice", name)
            seen[folded] = index
            if folded in CANONICAL_NAMES:
                self.at[CANONICAL_NAMES[folded]] = index
            else:
                _check_group(name, line)
                self.groups[name] = index
        if SETPOINT not in self.at and READBACK not in self.at:
            raise malformed_line(line, "the header has neither a Setpoint nor a Readback column")

    def check_widths(self, lines: list[int], rows: list[list[str]], problems: Problems) -> None:
        """Rows of another width than the header, and cells under a header without a name."""
        width = len(self.cells)
        nameless = [index for index, cell in enumerate(self.cells) if not cell.strip()]
        if not nameless and all(size == width for size in map(len, rows)):
            return
        for line, row in zip(lines, rows, strict=True):
            if len(row) != width:
                problems.add_problem(line, "", f"the row has {len(row)} cells, the header {width}")
            elif nameless:
                for index in nameless:
                    if row[index]:
                        problems.add_problem(
                            line, f"#{index + 1}", "a value in a column without a name"
                        )


def _check_group(name: str, line: int) -> None:
    if len(name.encode()) > MAX_TAG_BYTES:
        raise malformed_line(line, f"a column's name is longer than {MAX_TAG_BYTES} bytes", name)
    if problem := text_problem(name):
        raise malformed_line(line, f"the name of the column {name!r} {problem}", name)


class _Reader:
    """Turns records of the right width into a table, column by column."""

    def __init__(
        self, header: _Header, lines: list[int], rows: list[list[str]], problems: Problems
    ) -> None:
        self._header = header
        self._lines = lines
        # not zip(*rows), which makes an iterator for each row
        width = len(header.cells) if rows else 0
        self._columns: list[list[str]] = [
            list(map(itemgetter(index), rows)) for index in range(width)
        ]
        self._problems = problems

    def read_table(self) -> FileTable:
        protocol = self._parsed_column(PROTOCOL, parse_protocol, PvProtocol.UNSPECIFIED)
        setpoint = self._address_column(SETPOINT)
        readback = self._address_column(READBACK)
        columns = frozenset(self._header.at)
        if self._take_schemes(SETPOINT, setpoint, protocol) | self._take_schemes(
            READBACK, readback, protocol
        ):
            columns |= {PROTOCOL}
        for line, s, r in zip(self._lines, setpoint, readback, strict=True):
            if not s and not r:
                self._problems.add_problem(line, SETPOINT, "Setpoint and Readback are both empty")
        given = self._address_column(NAME)
        name = [g or s or r for g, s, r in zip(given, setpoint, readback, strict=True)]
        tolerances = [self._tolerance_column(column) for column in TOLERANCES]
        return FileTable(
            line=self._lines,
            name=name,
            setpoint=setpoint,
            readback=readback,
            device=self._text_column(DEVICE, MAX_DEVICE_BYTES),
            description=self._text_column(DESCRIPTION, MAX_DESCRIPTION_BYTES, multiline=True),
            protocol=protocol,
            read_only=self._parsed_column(READ_ONLY, parse_flag, False),
            setpoint_absolute=tolerances[0],
            setpoint_relative=tolerances[1],
            readback_absolute=tolerances[2],
            readback_relative=tolerances[3],
            policy=self._policy_column(),
            tags=self._tag_column(),
            groups=tuple(self._header.groups),
            columns=columns,
        )

    def _column_cells(self, column: str) -> Sequence[str]:
        index = self._header.at.get(column)
        if index is None or not self._columns:
            return [""] * len(self._lines)
        return self._columns[index]

    def _address_column(self, column: str) -> list[str]:
        if column not in self._header.at:
            return [""] * len(self._lines)
        given = self._column_cells(column)
        if _plain_names(given):
            return list(given)
        cells = [cell.strip() for cell in given]
        for index, problem in enumerate(map(name_problem, cells)):
            if problem is not None and cells[index]:
                self._problems.add_problem(
                    self._lines[index], column, f"{short_cell(cells[index])} {problem}"
                )
        return cells

    def _take_schemes(self, column: str, addresses: list[str], protocols: list[PvProtocol]) -> bool:
        """Move the protocol of `pva://NAME` from addresses to protocols; whether there was one."""
        if "://" not in "\n".join(addresses):
            return False
        scheme_seen = False
        for index, address in enumerate(addresses):
            protocol, rest = split_scheme(address)
            if protocol == PvProtocol.UNSPECIFIED:
                continue
            scheme_seen = True
            addresses[index] = rest or address
            if not rest:
                self._problems.add_problem(
                    self._lines[index], column, f"{short_cell(address)} names no channel"
                )
            elif protocols[index] not in (PvProtocol.UNSPECIFIED, protocol):
                self._problems.add_problem(
                    self._lines[index],
                    column,
                    f"{short_cell(address)} says {protocol.name.lower()}, the row says"
                    f" {protocols[index].name.lower()}; both channels of a PV have one protocol",
                )
            else:
                protocols[index] = protocol
        return scheme_seen

    def _text_column(self, column: str, limit: int, *, multiline: bool = False) -> list[str]:
        # equal texts become one object: devices are shared by many PVs
        shared: dict[str, str] = {}
        given = self._column_cells(column)
        if column == DEVICE and not "".join(set(given)).isascii():
            given = [one_form(cell) for cell in given]
        cells = [shared.setdefault(cell, cell) for cell in given]
        if max(map(len, shared), default=0) * 4 <= limit and "".join(shared).isprintable():
            return cells
        for line, cell in zip(self._lines, cells, strict=True):
            if cell and len(cell) * 4 > limit and len(cell.encode()) > limit:
                self._problems.add_problem(line, column, f"the text is longer than {limit} bytes")
            elif problem := text_problem(cell, multiline=multiline):
                self._problems.add_problem(line, column, f"the text {problem}")
        return cells

    def _parsed_column(self, column: str, parse: Callable[[str], T], default: T) -> list[T]:
        """Cells through `parse`, equal cells once; `ValueError` becomes a problem."""
        if column not in self._header.at:
            return [default] * len(self._lines)
        cells = self._column_cells(column)
        parsed_cells: dict[str, T] = {}
        wrong: dict[str, str] = {}
        for cell in set(cells):
            try:
                parsed_cells[cell] = parse(cell.strip())
            except ValueError as error:
                parsed_cells[cell], wrong[cell] = default, str(error)
        self._note_problems(column, cells, wrong)
        return list(map(parsed_cells.__getitem__, cells))

    def _note_problems(self, column: str, cells: Sequence[str], wrong: dict[str, str]) -> None:
        """One problem for each cell that is among the wrong ones."""
        if wrong:
            for line, cell in zip(self._lines, cells, strict=True):
                if cell in wrong:
                    self._problems.add_problem(line, column, wrong[cell])

    def _tolerance_column(self, column: str) -> F8:
        return np.array(self._parsed_column(column, parse_tolerance, 0.0), np.float64)

    def _policy_column(self) -> list[Policy]:
        present = [column for column in POLICY if column in self._header.at]
        if not present:
            return [NO_POLICY] * len(self._lines)
        values = [
            self._parsed_column(column, POLICY_PARSERS[POLICY[column]], None) for column in present
        ]
        names = [POLICY[column] for column in present]
        out = []
        for line, *row in zip(self._lines, *values, strict=True):
            given = {k: v for k, v in zip(names, row, strict=True) if v is not None}
            policy = Policy(**given) if given else NO_POLICY
            low, high = policy.allowed_low, policy.allowed_high
            if low is not None and high is not None and low > high:
                self._problems.add_problem(line, "Restore Allowed Low", "the range is upside down")
            out.append(NO_POLICY if policy == NO_POLICY else policy)
        return out

    def _tag_column(self) -> list[tuple[Tag, ...]]:
        """The tags of each row; rows with the same cells share one tuple."""
        groups = sorted(self._header.groups.items())
        if not self._columns or not groups:
            return [()] * len(self._lines)
        parsed: list[dict[str, tuple[Tag, ...]]] = []
        for group, index in groups:
            parsed_cells = {cell: parse_tags(group, cell) for cell in set(self._columns[index])}
            wrong = {
                c: str(tags) for c, tags in parsed_cells.items() if isinstance(tags, ValueError)
            }
            self._note_problems(group, self._columns[index], wrong)
            parsed.append({c: t for c, t in parsed_cells.items() if not isinstance(t, ValueError)})
        combined = list(zip(*(self._columns[index] for _, index in groups), strict=True))
        known_tags = {
            cells: tuple(
                tag for of, cell in zip(parsed, cells, strict=True) for tag in of.get(cell, ())
            )
            for cells in set(combined)
        }
        tags = list(map(known_tags.__getitem__, combined))
        if any(len(found_tags) > MAX_TAGS for found_tags in known_tags.values()):
            for line, found_tags in zip(self._lines, tags, strict=True):
                if len(found_tags) > MAX_TAGS:
                    self._problems.add_problem(line, "", f"a PV can carry {MAX_TAGS} tags at most")
        return tags


def _plain_names(cells: Sequence[str]) -> bool:
    """Whether all cells are empty or names of printable ASCII, in one look over all of them."""
    joined = "".join(cells)
    if not joined.isascii() or max(map(len, cells), default=0) > MAX_NAME_BYTES:
        return False
    codes = np.frombuffer(joined.encode(), np.uint8)
    return bool(((codes > 32) & (codes < 127)).all())


def _check_duplicates(table: FileTable, problems: Problems) -> None:
    """Names must be unique; those that differ only by case are different EPICS names."""
    if len(set(table.name)) == len(table.name):
        return
    first: dict[str, int] = {}
    for line, name in zip(table.line, table.name, strict=True):
        if name and first.setdefault(name, line) != line:
            message = f"{name} is in line {first[name]} already"
            problems.add_problem(line, NAME if NAME in table.columns else SETPOINT, message)


def _name_problems(problems: list[CellProblem], table: FileTable) -> list[CellProblem]:
    if not problems:
        return problems
    names = dict(zip(table.line, table.name, strict=True))
    return [
        CellProblem(p.line, p.column, p.message, names.get(p.line, ""), p.reason) for p in problems
    ]
