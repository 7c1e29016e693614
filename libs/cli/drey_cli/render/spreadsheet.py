"""Rows for a spreadsheet, in which a text stays a text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_document(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """All of `csv_lines`."""
    return "".join(csv_lines(columns, rows))


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """One line a row, as CSV.

    Names, labels and texts come from IOCs and other people. A spreadsheet would calculate what
    begins like a formula; it shows it as it is behind an apostrophe. Numbers stay numbers.
    """
    yield _csv_line(columns)
    for row in rows:
        yield _csv_line(map(_plain_cell, row))


def _csv_line(cells: Iterable[object]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(cells)
    return file.getvalue()


def _plain_cell(cell: object) -> object:
    if not isinstance(cell, str) or not cell.startswith(_FORMULA_STARTS):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
