"""Rows for a spreadsheet, in which a text stays a text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_document(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """One line a row, as CSV.

    Names, labels and texts come from IOCs and other people. A spreadsheet would calculate what
    begins like a formula; it shows it as it is behind an apostrophe. Numbers stay numbers.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_plain_cell, row) for row in rows)
    return file.getvalue()


def _plain_cell(cell: object) -> object:
    if not isinstance(cell, str) or not cell.startswith(_FORMULA_STARTS):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
