"""What may stand against writing a PV, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from drey_core.values import Columns, Kind


class PlanProblem(Enum):
    """What a site may have refused, or only told."""

    DISABLED = "disabled"
    INVALID = "invalid"
    UNDEFINED = "undefined"
    TRUNCATED = "truncated"


def parse_problems(text: str) -> frozenset[PlanProblem]:
    """Those that a list by comma names."""
    return frozenset(PlanProblem(name.strip()) for name in text.split(",") if name.strip())


class PlanWarnings:
    """Texts by row, in the order in which they were found."""

    def __init__(self, known: Mapping[int, tuple[str, ...]]) -> None:
        self.by_row = dict(known)

    def add_warning(self, row: int, *texts: str) -> None:
        self.by_row[row] = (*self.by_row.get(row, ()), *texts)


def blank_rows(columns: Columns, rows: NDArray[np.bool_]) -> Columns:
    """The columns with no value in `rows`."""
    kind, data = columns.kind.copy(), columns.data.copy()
    kind[rows], data[rows] = Kind.NONE, 0
    return replace(columns, kind=kind, data=data)
