"""A table as data: what the commands make and `Output` draws."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from drey_cli.render.words import format_time

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")


class Cell(NamedTuple):
    """Text and the rich style it is drawn in, empty for none. Never markup.

    `short`: what is enough of it where a terminal is narrow; empty for all of it.
    """

    text: str
    style: str = ""
    short: str = ""


class Column(NamedTuple):
    """Heading; `right` for numbers; `fold` for text that may be cut to fit a terminal.

    `css`: class of its cells on a page for the logbook. `whole`: of names and ids. `spare`: left
    out where a terminal is so narrow that words of others would be cut in two.
    """

    title: str
    right: bool = False
    fold: bool = False
    css: str = ""
    whole: bool = False
    spare: bool = False


_ID_HEAD = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-(?=[0-9a-f]{12}\b)")
_FOLDED = 10
"""Width down to which a column is folded before the others are."""
_SQUEEZED = 24
"""As narrow as this a spare text that may be folded is left out instead."""
Row = Sequence["Cell | str"]
Pair = tuple[str, "Cell | str"]
"""What, and what it is."""


@dataclass(slots=True)
class Table:
    """Columns and rows, a title above (or none) and a note below (or none)."""

    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)
    title: str = ""
    note: str = ""

    def add_row(self, *cells: Cell | str) -> None:
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(cells)


class Field(NamedTuple, Generic[T]):
    """A column, and what a row shows in it."""

    column: Column
    cell: Callable[[T], Cell | str]


def text_field(
    title: str,
    cell: Callable[[T], Cell | str],
    *,
    fold: bool = False,
    css: str = "",
) -> Field[T]:
    """A column of text; `fold` where it may be cut to fit a terminal."""
    return Field(Column(title, fold=fold, css=css), cell)


def spare_field(field: Field[T]) -> Field[T]:
    """One that a narrow terminal does without."""
    return field._replace(column=field.column._replace(spare=True))


def name_field(title: str, cell: Callable[[T], Cell | str]) -> Field[T]:
    """A column of names of PVs."""
    return Field(Column(title, css="pv", whole=True), cell)


def number_field(title: str, cell: Callable[[T], Cell | str]) -> Field[T]:
    return Field(Column(title, right=True, css="number"), cell)


def id_cell(text: str, style: str = "") -> Cell:
    """Text with an id in it. Short of an id is its last part: 12 digits name it to the commands."""
    return Cell(text, style, _ID_HEAD.sub("", text))


def time_cell(ns: int, *, utc: bool) -> Cell:
    """A time; short of it the seconds."""
    text = format_time(ns, utc=utc)
    return Cell(text, short=text[:19].replace("T", " "))


def id_field(title: str, identity: Callable[[T], str]) -> Field[T]:
    return Field(Column(title, whole=True), lambda item: id_cell(identity(item)))


def time_field(title: str, stamp: Callable[[T], Timestamp], *, utc: bool) -> Field[T]:
    return Field(Column(title), lambda item: time_cell(stamp(item).ToNanoseconds(), utc=utc))


def table_of(items: Iterable[T], *fields: Field[T], title: str = "", limit: int = 0) -> Table:
    """A row an item, at most `limit` (0: all); the note says so where there are more."""
    every = list(items)
    rows: list[Row] = [[field.cell(item) for field in fields] for item in every[: limit or None]]
    table = Table([field.column for field in fields], rows, title)
    if len(rows) < len(every):
        table.note = f"the first {len(rows)} of {len(every)}; --limit 0 shows all"
    return table


def escape_text(text: str, *, keep: str = "") -> str:
    """The text with what a terminal would act on, or not show, written out (`\\x1b`).

    Names, units, labels, titles and messages were written by IOCs and by other people.
    `keep`: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in keep
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def text_of(cell: Cell | str) -> str:
    """Text of a cell on one line, fit for a terminal."""
    text = cell if isinstance(cell, str) else cell.text
    return escape_text(text.replace("\n", "⏎"))


def plain_lines(table: Table) -> list[str]:
    """The table as aligned lines without colour or frame: for pipes and for very long tables."""
    heading = [column.title.upper() for column in table.columns]
    body = [[text_of(cell) for cell in row] for row in table.rows]
    widths = [len(title) for title in heading]
    for row in body:
        widths = [max(width, len(text)) for width, text in zip(widths, row, strict=True)]
    lines = [_table_line(heading, widths, table.columns)]
    lines.extend(_table_line(row, widths, table.columns) for row in body)
    return lines


def folded_columns(table: Table, width: int) -> Collection[int] | None:
    """Indexes of the columns that have to be folded to fit; None where it fits in no way.

    First those that may be, then others, then names and ids, never numbers: half a number is read
    as another one.
    """
    widths = [
        max(len(column.title), *(len(text_of(row[index])) for row in table.rows), 0)
        for index, column in enumerate(table.columns)
    ]
    columns = list(enumerate(table.columns))
    may = {index for index, column in columns if column.fold}
    others = {index for index, column in columns if not (column.right or column.whole)}
    names = {index for index, column in columns if column.whole}
    for folded in (may, may | others, may | others | names):
        least = (min(each, _FOLDED) if i in folded else each for i, each in enumerate(widths))
        if sum(least) + 2 * (len(widths) - 1) <= width:
            return folded
    return None


def with_short_cells(table: Table) -> Table:
    """The table with what is enough of each cell."""

    def shorten_cell(cell: Cell | str) -> Cell | str:
        return cell if isinstance(cell, str) else Cell(cell.short or cell.text, cell.style)

    return replace(table, rows=[[shorten_cell(cell) for cell in row] for row in table.rows])


def fitted_table(table: Table, width: int) -> Table:
    """The table as a terminal takes it: where it must be with short ids and times, and without
    spare columns, the last ones first, which its note then names."""
    if _keeps_lines(table, width):
        return table
    table, left_out = with_short_cells(table), list[str]()
    while word_widths(table, width) is None:
        spare = [index for index, column in enumerate(table.columns) if column.spare]
        if not spare:
            break
        last = spare[-1]
        left_out.insert(0, table.columns[last].title)
        table = replace(
            table,
            columns=[*table.columns[:last], *table.columns[last + 1 :]],
            rows=[[*row[:last], *row[last + 1 :]] for row in table.rows],
        )
    if left_out:
        named = ", ".join(f"“{title}”" for title in left_out)
        said = f"too narrow for {named}"
        table.note = f"{table.note}; {said}" if table.note else said
    return table


def _keeps_lines(table: Table, width: int) -> bool:
    """Whether it fits with nothing folded but what may be."""
    folded = folded_columns(table, width)
    return folded is not None and all(table.columns[index].fold for index in folded)


def word_widths(table: Table, width: int) -> list[int] | None:
    """Widths of the columns with which it fits and no word is cut in two, but of texts that may be
    folded; None where there are none."""
    texts = [
        [column.title, *(text_of(row[index]) for row in table.rows)]
        for index, column in enumerate(table.columns)
    ]
    full = [max(map(len, column)) for column in texts]
    least = [
        min(each, _SQUEEZED if column.spare else _FOLDED)
        if column.fold
        else each
        if column.right
        else max(len(word) for text in words for word in text.split() or [""])
        for column, each, words in zip(table.columns, full, texts, strict=True)
    ]
    room = width - 2 * (len(full) - 1) - sum(least)
    if room < 0:
        return None
    wanting = sorted(range(len(full)), key=lambda i: (table.columns[i].fold, full[i] - least[i]))
    for left, index in zip(range(len(wanting), 0, -1), wanting, strict=True):
        more = min(full[index] - least[index], room // (1 if table.columns[index].fold else left))
        least[index], room = least[index] + more, room - more
    return least


def _table_line(texts: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    parts = (
        text.rjust(width) if column.right else text.ljust(width)
        for text, width, column in zip(texts, widths, columns, strict=True)
    )
    return "  ".join(parts).rstrip()


def facts_table(pairs: Iterable[Pair], *, title: str = "") -> Table:
    """A table of two columns: what, and what it is."""
    table = Table((Column(""), Column("", fold=True)), title=title)
    for name, value in pairs:
        table.add_row(Cell(name, "bold"), value)
    return table
