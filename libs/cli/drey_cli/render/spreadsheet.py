"""Rows for a spreadsheet, in which a text stays a text."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_lines(columns: Mapping[str, Callable[[T], object]], items: Iterable[T]) -> Iterator[str]:
    """A line of titles, and one for each item, as CSV. `columns`: title, and an item's cell of it.

    Names, labels and texts come from IOCs and other people. A spreadsheet would calculate what
    begins like a formula; it shows it as it is behind an apostrophe. Numbers stay numbers.
    """
    yield _csv_line(columns)
    for item in items:
        yield _csv_line(_plain_cell(cell(item)) for cell in columns.values())


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
