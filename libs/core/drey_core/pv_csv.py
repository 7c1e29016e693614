"""The CSV of PVs: Setpoint, Readback, Device, Description, our reserved columns, tag groups.

RFC 4180: quotes, doubled quotes, line ends within quotes, CR LF or LF, a byte order mark or none.
What cannot be read as CSV refuses the whole file by its line. What reads but says nothing sensible
is a list of problems by line and column, all of them, so that a file is mended in one go.

Every column that is not reserved is a tag group; its cells hold tags separated by commas, and
`nan` and `none` mean no tag. A tag with a comma or a quote in its name, or that is called `none`,
is quoted again inside the cell.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np

from drey_core.errors import InvalidArgument
from drey_core.names import MAX_NAME_BYTES, name_problem, text_problem
from drey_core.pv_table import (
    F8,
    NO_POLICY,
    CompletionMode,
    Policy,
    Problem,
    Problems,
    PvProtocol,
    PvTable,
    Tag,
    malformed,
    split_scheme,
)

SETPOINT, READBACK, DEVICE, DESCRIPTION = "Setpoint", "Readback", "Device", "Description"
NAME, READ_ONLY, PROTOCOL = "Name", "Read Only", "Protocol"
TOLERANCES = (
    "Abs Tolerance",
    "Rel Tolerance",
    "Readback Abs Tolerance",
    "Readback Rel Tolerance",
)
POLICY = {
    "Restore Completion": "completion",
    "Restore Timeout": "timeout_s",
    "Restore Settle": "settle_s",
    "Restore Stage": "stage",
    "Restore Done Channel": "done_channel",
    "Restore Done Value": "done_value",
    "Restore Ramp Rate": "ramp_rate",
    "Restore Ramp Step": "ramp_step",
    "Restore Allowed Low": "allowed_low",
    "Restore Allowed High": "allowed_high",
}
"""Columns of the restore policy → fields of `Policy`. Times in seconds."""

RESERVED = (
    *(SETPOINT, READBACK, DEVICE, DESCRIPTION, NAME),
    *(*TOLERANCES, READ_ONLY, PROTOCOL),
    *POLICY,
)
"""Column names with a meaning of their own, case ignored; all others are tag groups."""

MAX_DEVICE_BYTES, MAX_DESCRIPTION_BYTES, MAX_TAG_BYTES = 500, 10_000, 200
MAX_TAGS = 1000

_CANONICAL = {name.casefold(): name for name in RESERVED}
_NO_TAG = ("nan", "none")
_TRUE, _FALSE = ("true", "yes", "y", "1"), ("", "false", "no", "n", "0")
_PROTOCOLS = {"": PvProtocol.UNSPECIFIED, "ca": PvProtocol.CA, "pva": PvProtocol.PVA}
_COMPLETIONS = {"": CompletionMode.UNSPECIFIED} | {
    mode.name.lower().replace("_", "-"): mode for mode in CompletionMode if mode
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedPvs:
    """What a file of PVs holds. `table` is to be used only where there are no problems."""

    table: PvTable
    problems: list[Problem]
    problem_count: int
    """All problems; `problems` has the first thousand, by line."""


def parse_pvs(content: bytes) -> ParsedPvs:
    """Read a CSV of PVs. Raises `InvalidArgument` (MALFORMED_FILE, `line`) if it is not one."""
    lines, rows = _read(_decode(content))
    if not rows:
        raise malformed(1, "the file is empty; it needs at least a header")
    problems = Problems()
    header = _Header(rows[0], lines[0])
    del lines[0], rows[0]
    header.check_widths(lines, rows, problems)
    width = len(header.cells)
    if any(size != width for size in map(len, rows)):
        good = [i for i, row in enumerate(rows) if len(row) == width]
        lines, rows = [lines[i] for i in good], [rows[i] for i in good]
    table = _Reader(header, lines, rows, problems).table()
    _check_duplicates(table, problems)
    found = sorted(problems.found, key=lambda problem: problem.line)
    return ParsedPvs(table, _named(found, table), problems.total)


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Counted over what was decoded, so that a byte order mark does not shift it.
        line = content.count(b"\n", 0, content.find(error.object[error.start :])) + 1
        raise malformed(line, f"byte 0x{error.object[error.start]:02x} is not UTF-8") from error


def _read(text: str) -> tuple[list[int], list[list[str]]]:
    """(line at which each record begins, records), blank lines left out."""
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
            reason = f"a cell is larger than {csv.field_size_limit()} characters"
        raise malformed(begin, reason) from error
    return lines, rows


class _Header:
    """Where the columns are. Cells without a name keep their place."""

    def __init__(self, cells: list[str], line: int) -> None:
        self.cells = cells
        self.at: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        seen: dict[str, int] = {}
        for at, cell in enumerate(cells):
            name = cell.strip()
            folded = name.casefold()
            if not name:
                continue
            if folded in seen:
                raise malformed(line, f"the column {name!r} occurs twice", name)
            seen[folded] = at
            if folded in _CANONICAL:
                self.at[_CANONICAL[folded]] = at
            else:
                _check_group(name, line)
                self.groups[name] = at
        if SETPOINT not in self.at and READBACK not in self.at:
            raise malformed(line, "the header has neither a Setpoint nor a Readback column")

    def check_widths(self, lines: list[int], rows: list[list[str]], problems: Problems) -> None:
        """Rows of another width than the header, and cells under a header without a name."""
        width = len(self.cells)
        nameless = [at for at, cell in enumerate(self.cells) if not cell.strip()]
        if not nameless and all(size == width for size in map(len, rows)):
            return
        for line, row in zip(lines, rows, strict=True):
            if len(row) != width:
                problems.add(line, "", f"the row has {len(row)} cells, the header {width}")
            elif nameless:
                for at in nameless:
                    if row[at]:
                        problems.add(line, f"#{at + 1}", "a value in a column without a name")


def _check_group(name: str, line: int) -> None:
    if len(name.encode()) > MAX_TAG_BYTES:
        raise malformed(line, f"a column's name is longer than {MAX_TAG_BYTES} bytes", name)
    if problem := text_problem(name):
        raise malformed(line, f"the name of the column {name!r} {problem}", name)


class _Reader:
    """Turns records of the right width into a table, column by column."""

    def __init__(
        self, header: _Header, lines: list[int], rows: list[list[str]], problems: Problems
    ) -> None:
        self._header = header
        self._lines = lines
        # not zip(*rows), which makes an iterator for each row
        width = len(header.cells) if rows else 0
        self._columns: list[list[str]] = [list(map(itemgetter(at), rows)) for at in range(width)]
        self._problems = problems

    def table(self) -> PvTable:
        protocol = self._parsed(PROTOCOL, _protocol, PvProtocol.UNSPECIFIED)
        setpoint = self._addresses(SETPOINT)
        readback = self._addresses(READBACK)
        columns = frozenset(self._header.at)
        if self._take_schemes(SETPOINT, setpoint, protocol) | self._take_schemes(
            READBACK, readback, protocol
        ):
            columns |= {PROTOCOL}
        for line, s, r in zip(self._lines, setpoint, readback, strict=True):
            if not s and not r:
                self._problems.add(line, SETPOINT, "Setpoint and Readback are both empty")
        given = self._addresses(NAME)
        name = [g or s or r for g, s, r in zip(given, setpoint, readback, strict=True)]
        tolerances = [self._tolerances(column) for column in TOLERANCES]
        return PvTable(
            line=self._lines,
            name=name,
            setpoint=setpoint,
            readback=readback,
            device=self._texts(DEVICE, MAX_DEVICE_BYTES),
            description=self._texts(DESCRIPTION, MAX_DESCRIPTION_BYTES, multiline=True),
            protocol=protocol,
            read_only=self._parsed(READ_ONLY, _flag, False),
            setpoint_absolute=tolerances[0],
            setpoint_relative=tolerances[1],
            readback_absolute=tolerances[2],
            readback_relative=tolerances[3],
            policy=self._policies(),
            tags=self._tags(),
            groups=tuple(self._header.groups),
            columns=columns,
        )

    def _cells(self, column: str) -> Sequence[str]:
        at = self._header.at.get(column)
        if at is None or not self._columns:
            return [""] * len(self._lines)
        return self._columns[at]

    def _addresses(self, column: str) -> list[str]:
        if column not in self._header.at:
            return [""] * len(self._lines)
        given = self._cells(column)
        if _plain_names(given):
            return list(given)
        cells = [cell.strip() for cell in given]
        for at, problem in enumerate(map(name_problem, cells)):
            if problem is not None and cells[at]:
                self._problems.add(self._lines[at], column, f"{_short(cells[at])} {problem}")
        return cells

    def _take_schemes(self, column: str, addresses: list[str], protocols: list[PvProtocol]) -> bool:
        """Move the protocol of `pva://NAME` from addresses to protocols; whether there was one."""
        if "://" not in "\n".join(addresses):
            return False
        found = False
        for at, address in enumerate(addresses):
            protocol, rest = split_scheme(address)
            if protocol == PvProtocol.UNSPECIFIED:
                continue
            found = True
            addresses[at] = rest or address
            if not rest:
                self._problems.add(self._lines[at], column, f"{_short(address)} names no channel")
            elif protocols[at] not in (PvProtocol.UNSPECIFIED, protocol):
                self._problems.add(
                    self._lines[at],
                    column,
                    f"{_short(address)} says {protocol.name.lower()}, the row says"
                    f" {protocols[at].name.lower()}; both channels of a PV have one protocol",
                )
            else:
                protocols[at] = protocol
        return found

    def _texts(self, column: str, limit: int, *, multiline: bool = False) -> list[str]:
        # equal texts become one object: devices are shared by many PVs
        shared: dict[str, str] = {}
        cells = [shared.setdefault(cell, cell) for cell in self._cells(column)]
        if max(map(len, shared), default=0) * 4 <= limit and "".join(shared).isprintable():
            return cells
        for line, cell in zip(self._lines, cells, strict=True):
            if cell and len(cell) * 4 > limit and len(cell.encode()) > limit:
                self._problems.add(line, column, f"the text is longer than {limit} bytes")
            elif problem := text_problem(cell, multiline=multiline):
                self._problems.add(line, column, f"the text {problem}")
        return cells

    def _parsed(self, column: str, parse: Callable[[str], T], default: T) -> list[T]:
        """Cells through `parse`, equal cells once; `ValueError` becomes a problem."""
        if column not in self._header.at:
            return [default] * len(self._lines)
        cells = self._cells(column)
        known: dict[str, T] = {}
        wrong: dict[str, str] = {}
        for cell in set(cells):
            try:
                known[cell] = parse(cell.strip())
            except ValueError as error:
                known[cell], wrong[cell] = default, str(error)
        self._note(column, cells, wrong)
        return list(map(known.__getitem__, cells))

    def _note(self, column: str, cells: Sequence[str], wrong: dict[str, str]) -> None:
        """One problem for each cell that is among the wrong ones."""
        if wrong:
            for line, cell in zip(self._lines, cells, strict=True):
                if cell in wrong:
                    self._problems.add(line, column, wrong[cell])

    def _tolerances(self, column: str) -> F8:
        return np.array(self._parsed(column, _tolerance, 0.0), np.float64)

    def _policies(self) -> list[Policy]:
        present = [column for column in POLICY if column in self._header.at]
        if not present:
            return [NO_POLICY] * len(self._lines)
        values = [self._parsed(column, _POLICY_PARSERS[POLICY[column]], None) for column in present]
        names = [POLICY[column] for column in present]
        out = []
        for line, *row in zip(self._lines, *values, strict=True):
            given = {k: v for k, v in zip(names, row, strict=True) if v is not None}
            policy = Policy(**given) if given else NO_POLICY
            low, high = policy.allowed_low, policy.allowed_high
            if (low is None) != (high is None):
                self._problems.add(line, "Restore Allowed Low", "the range lacks one of its ends")
            elif low is not None and high is not None and low > high:
                self._problems.add(line, "Restore Allowed Low", "the range is upside down")
            out.append(NO_POLICY if policy == NO_POLICY else policy)
        return out

    def _tags(self) -> list[tuple[Tag, ...]]:
        """The tags of each row; rows with the same cells share one tuple."""
        groups = sorted(self._header.groups.items())
        if not self._columns or not groups:
            return [()] * len(self._lines)
        parsed: list[dict[str, tuple[Tag, ...]]] = []
        for group, at in groups:
            found = {cell: _tags_of(group, cell) for cell in set(self._columns[at])}
            wrong = {c: str(tags) for c, tags in found.items() if isinstance(tags, ValueError)}
            self._note(group, self._columns[at], wrong)
            parsed.append({c: t for c, t in found.items() if not isinstance(t, ValueError)})
        combined = list(zip(*(self._columns[at] for _, at in groups), strict=True))
        known = {
            cells: tuple(
                tag for of, cell in zip(parsed, cells, strict=True) for tag in of.get(cell, ())
            )
            for cells in set(combined)
        }
        tags = list(map(known.__getitem__, combined))
        if any(len(found_tags) > MAX_TAGS for found_tags in known.values()):
            for line, found_tags in zip(self._lines, tags, strict=True):
                if len(found_tags) > MAX_TAGS:
                    self._problems.add(line, "", f"a PV can carry {MAX_TAGS} tags at most")
        return tags


def _plain_names(cells: Sequence[str]) -> bool:
    """Whether all cells are empty or names of printable ASCII, in one look over all of them."""
    joined = "".join(cells)
    if not joined.isascii() or max(map(len, cells), default=0) > MAX_NAME_BYTES:
        return False
    codes = np.frombuffer(joined.encode(), np.uint8)
    return bool(((codes > 32) & (codes < 127)).all())


def _check_duplicates(table: PvTable, problems: Problems) -> None:
    """Names must be unique; those that differ only by case are different EPICS names."""
    if len(set(table.name)) == len(table.name):
        return
    first: dict[str, int] = {}
    for line, name in zip(table.line, table.name, strict=True):
        if name and first.setdefault(name, line) != line:
            message = f"{name} is in line {first[name]} already"
            problems.add(line, NAME if NAME in table.columns else SETPOINT, message)


def _named(problems: list[Problem], table: PvTable) -> list[Problem]:
    if not problems:
        return problems
    names = dict(zip(table.line, table.name, strict=True))
    return [Problem(p.line, p.column, p.message, names.get(p.line, ""), p.reason) for p in problems]


# --- cells --------------------------------------------------------------------------------------


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 60 else cell[:60] + "…")


def _number(cell: str) -> float | None:
    """A number, or None for an empty cell."""
    if not cell:
        return None
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{_short(cell)} is not a number") from None


def _finite(cell: str) -> float | None:
    value = _number(cell)
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{cell} is not finite")
    return value


def _not_negative(cell: str) -> float | None:
    value = _finite(cell)
    if value is not None and value < 0:
        raise ValueError(f"{cell} is negative")
    return value


def _positive(cell: str) -> float | None:
    value = _finite(cell)
    if value is not None and value <= 0:
        raise ValueError(f"{cell} is not above zero")
    return value


def _tolerance(cell: str) -> float:
    return _not_negative(cell) or 0.0


def _whole(cell: str) -> int | None:
    if not cell:
        return None
    try:
        value = int(cell)
    except ValueError:
        raise ValueError(f"{_short(cell)} is not a whole number") from None
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{cell} does not fit 32 bits")
    return value


def _flag(cell: str) -> bool:
    folded = cell.casefold()
    if folded in _TRUE:
        return True
    if folded in _FALSE:
        return False
    raise ValueError(f"{_short(cell)} is neither true nor false")


def _protocol(cell: str) -> PvProtocol:
    if cell.casefold() not in _PROTOCOLS:
        raise ValueError(f"{_short(cell)} is not a protocol; there are ca and pva")
    return _PROTOCOLS[cell.casefold()]


def _completion(cell: str) -> CompletionMode | None:
    mode = _COMPLETIONS.get(cell.casefold())
    if mode is None:
        choices = ", ".join(name for name in _COMPLETIONS if name)
        raise ValueError(f"{_short(cell)} is not one of {choices}")
    return mode or None


def _channel(cell: str) -> str | None:
    problem = name_problem(cell) if cell else None
    if problem is not None:
        raise ValueError(f"{_short(cell)} {problem}")
    return cell or None


_POLICY_PARSERS: dict[str, Callable[[str], Any]] = {
    "completion": _completion,
    "timeout_s": _positive,
    "settle_s": _not_negative,
    "stage": _whole,
    "done_channel": _channel,
    "done_value": _number,
    "ramp_rate": _positive,
    "ramp_step": _positive,
    "allowed_low": _finite,
    "allowed_high": _finite,
}


def _tags_of(group: str, cell: str) -> tuple[Tag, ...] | ValueError:
    """The tags of one cell, ordered, each once (the first spelling of several by case)."""
    found: dict[str, str] = {}
    try:
        parts = _split_quoted(cell) if '"' in cell else [(p, False) for p in cell.split(",")]
    except ValueError as error:
        return error
    for raw, quoted in parts:
        tag = raw if quoted else raw.strip()
        if not tag or (not quoted and tag.casefold() in _NO_TAG):
            continue
        if len(tag.encode()) > MAX_TAG_BYTES:
            return ValueError(f"the tag {_short(tag)} is longer than {MAX_TAG_BYTES} bytes")
        if problem := text_problem(tag):
            return ValueError(f"the tag {_short(tag)} {problem}")
        found.setdefault(tag.casefold(), tag)
    return tuple((group, tag) for tag in sorted(found.values()))


def _split_quoted(cell: str) -> list[tuple[str, bool]]:
    """(part, whether it was quoted) of a cell whose parts may be quoted once more."""
    parts: list[tuple[str, bool]] = []
    at = 0
    while at <= len(cell):
        begin = at
        while begin < len(cell) and cell[begin] == " ":
            begin += 1
        if begin < len(cell) and cell[begin] == '"':
            text, end = _quoted(cell, begin + 1)
            rest = cell.find(",", end)
            rest = len(cell) if rest < 0 else rest
            if cell[end:rest].strip():
                raise ValueError(f"text after the quoted tag {_short(text)}")
            parts.append((text, True))
        else:
            rest = cell.find(",", at)
            rest = len(cell) if rest < 0 else rest
            parts.append((cell[at:rest], False))
        at = rest + 1
    return parts


def _quoted(cell: str, at: int) -> tuple[str, int]:
    """(text, index after the closing quote) of a quoted part whose text begins at `at`."""
    out = []
    while True:
        end = cell.find('"', at)
        if end < 0:
            raise ValueError("a quoted tag does not end")
        out.append(cell[at:end])
        if cell[end + 1 : end + 2] != '"':
            return "".join(out), end + 1
        out.append('"')
        at = end + 2


# --- writing ------------------------------------------------------------------------------------


def write_pvs(table: PvTable) -> bytes:
    """The table as CSV, in UTF-8 with CR LF line ends, which `parse_pvs` reads back to the same.

    The four columns of the import come first; reserved columns follow where a PV uses them or the
    table's `columns` names them, and then the tag groups. Raises `InvalidArgument` for a group
    that has the name of a reserved column.
    """
    columns: list[tuple[str, Sequence[str]]] = [
        (SETPOINT, table.setpoint),
        (READBACK, table.readback),
        (DEVICE, table.device),
        (DESCRIPTION, table.description),
    ]
    for name, cells in _reserved_cells(table):
        if name in table.columns or any(cells):
            columns.append((name, cells))
    columns += _group_cells(table)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([name for name, _ in columns])
    writer.writerows(zip(*(cells for _, cells in columns), strict=True))
    return out.getvalue().encode()


def _reserved_cells(table: PvTable) -> list[tuple[str, list[str]]]:
    default = (s or r for s, r in zip(table.setpoint, table.readback, strict=True))
    tolerances = (
        table.setpoint_absolute,
        table.setpoint_relative,
        table.readback_absolute,
        table.readback_relative,
    )
    out = [(NAME, ["" if n == d else n for n, d in zip(table.name, default, strict=True)])]
    for name, values in zip(TOLERANCES, tolerances, strict=True):
        out.append((name, ["" if v == 0 else repr(v) for v in values.tolist()]))
    out.append((READ_ONLY, ["true" if flag else "" for flag in table.read_only]))
    protocols = {protocol: text for text, protocol in _PROTOCOLS.items()}
    out.append((PROTOCOL, [protocols[protocol] for protocol in table.protocol]))
    used = any(policy != NO_POLICY for policy in table.policy)
    for column, field in POLICY.items():
        if used or column in table.columns:
            cells = [_policy_cell(getattr(policy, field)) for policy in table.policy]
            out.append((column, cells))
    return out


def _policy_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, CompletionMode):
        return value.name.lower().replace("_", "-") if value else ""
    return value if isinstance(value, str) else repr(value)


def _group_cells(table: PvTable) -> list[tuple[str, list[str]]]:
    cells: dict[str, list[str]] = {group: [""] * len(table) for group in table.groups}
    for row, tags in enumerate(table.tags):
        by_group: dict[str, list[str]] = {}
        for group, tag in tags:
            by_group.setdefault(group, []).append(_quote_tag(tag))
        for group, quoted in by_group.items():
            if group not in cells:
                cells[group] = [""] * len(table)
            cells[group][row] = ",".join(quoted)
    for group in cells:
        if group.casefold() in _CANONICAL or group != group.strip() or not group:
            raise InvalidArgument(
                f"the tag group {group!r} cannot be a column: the name is reserved, or blank",
                field="groups",
            )
    return list(cells.items())


def _quote_tag(tag: str) -> str:
    plain = tag == tag.strip() and tag.casefold() not in _NO_TAG
    if plain and "," not in tag and '"' not in tag:
        return tag
    return '"' + tag.replace('"', '""') + '"'
