"""Comparing a snapshot with another, or with the live machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from drey_core.compare import DifferenceClass
from drey_core.selector import Selector
from drey_core.values import I8
from drey_core.wire import chunk
from drey_runtime.choosing import choose_off_loop
from drey_runtime.together import together
from drey_snapshot.snapshots.domain.choosing import Chooser, refuse_unknown
from drey_snapshot.snapshots.domain.difference_rows import encode_differences
from drey_snapshot.snapshots.domain.differences import (
    SAME,
    Differences,
    Order,
    Tolerances,
    by_directory,
    constant,
    differences,
)
from drey_snapshot.snapshots.domain.order import DEFAULT_MAX_AGE_NS
from drey_snapshot.snapshots.domain.views import ValuesView
from drey_snapshot.snapshots.ports import Catalogue, CatalogueView
from drey_snapshot.snapshots.usecases.read import Reader, needs_today, today_of
from drey_snapshot.snapshots.usecases.take import Taker

_ROWS_AT_ONCE = 2048
_DEFAULT_CLASSES = frozenset(DifferenceClass) - {*SAME, DifferenceClass.UNSPECIFIED}


class ToleranceSource(IntEnum):
    """What the tolerances are; the numbers of `drey.snapshot.v1.ToleranceSource`."""

    UNSPECIFIED = 0
    SNAPSHOT = 1
    CATALOGUE = 2
    GIVEN = 3
    EXACT = 4


class ComparisonScope(IntEnum):
    """Which PVs are compared; the numbers of `drey.snapshot.v1.ComparisonScope`."""

    UNSPECIFIED = 0
    REFERENCE = 1
    BOTH = 2
    EITHER = 3


@dataclass(frozen=True, slots=True)
class CompareOrder:
    """A request to compare, checked. `other_id` None: with the live machine."""

    reference_id: str
    other_id: str | None
    selector: Selector | None = None
    tolerance_source: ToleranceSource = ToleranceSource.SNAPSHOT
    setpoint_tolerance: tuple[float, float] = (0.0, 0.0)
    readback_tolerance: tuple[float, float] = (0.0, 0.0)
    summary_only: bool = False
    classes: frozenset[int] = frozenset()
    order: Order = Order.NAME
    limit: int = 0
    scope: ComparisonScope = ComparisonScope.REFERENCE


@dataclass(frozen=True, slots=True)
class Compared:
    """The outcome of a comparison. `outside`: PVs of one side that the scope leaves out."""

    order: CompareOrder
    found: Differences
    outside: int

    def difference_chunks(self) -> Iterator[bytes]:
        """`DifferenceChunk` messages of about 1 MiB: the classes asked for, in the order asked."""
        if self.order.summary_only:
            return
        rows = self.found.of_classes(self.order.classes or _DEFAULT_CLASSES)
        rows = self.found.ordered(rows, self.order.order, self.order.limit)
        live = self.order.other_id is None
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[first : first + _ROWS_AT_ONCE]
            yield from chunk(encode_differences(self.found, part, live=live))


class Comparer:
    """Compares."""

    def __init__(self, reader: Reader, taker: Taker, catalogue: Catalogue) -> None:
        self._reader, self._taker, self._catalogue = reader, taker, catalogue

    async def compare(self, order: CompareOrder) -> Compared:
        """Compare. Raises `NotFound`, `InvalidArgument`, or `Unavailable` where a part is away."""
        if order.selector is not None:
            order.selector.validate()
        reference, other = await together(
            self._view(order.reference_id, "reference_id"), self._other(order)
        )
        today = None
        if order.tolerance_source == ToleranceSource.CATALOGUE or (
            order.selector is not None and needs_today(order.selector)
        ):
            today = await self._catalogue.current()
        numbers, outside = await choose_off_loop(
            lambda: _chosen(order.selector, order.scope, reference, other, today),
            takes_long=order.selector is not None and order.selector.takes_long,
        )
        found = differences(
            reference,
            other,
            _tolerances(order, reference, other, today),
            numbers=numbers,
            exhaustive=not order.summary_only and bool(order.classes & {*SAME}),
        )
        return Compared(order, found, outside)

    async def _view(self, snapshot_id: str, field: str) -> ValuesView:
        return await self._reader.view(await self._reader.living(snapshot_id, field))

    async def _other(self, order: CompareOrder) -> ValuesView:
        if order.other_id is None:
            return await self._taker.live_view(DEFAULT_MAX_AGE_NS)
        return await self._view(order.other_id, "other_id")


def _chosen(
    selector: Selector | None,
    scope: ComparisonScope,
    reference: ValuesView,
    other: ValuesView,
    today: CatalogueView | None,
) -> tuple[I8 | None, int]:
    """(numbers of the PVs to compare, None: all of both; how many the scope leaves out).

    A name that nothing within the scope has is refused, never silently left out.
    """
    if selector is None and _whole_and_alike(reference, other):
        return None, 0
    here, unknown = _of_side(selector, reference, today)
    there, also = _of_side(selector, other, today)
    every = np.union1d(here, there)
    if scope == ComparisonScope.REFERENCE:
        refuse_unknown(
            unknown, "the reference", "; the scope of either compares what the other has"
        )
        numbers = here
    else:
        lacking = set(also)
        refuse_unknown([name for name in unknown if name in lacking], "the two")
        numbers = every if scope == ComparisonScope.EITHER else np.intersect1d(here, there)
    return numbers, len(every) - len(numbers)


def _whole_and_alike(a: ValuesView, b: ValuesView) -> bool:
    """Whether both have every PV of directories that name the same ones: the ordinary case."""
    return (
        len(a.rows) == len(a.where.directory)
        and len(b.rows) == len(b.where.directory)
        and np.array_equal(a.where.directory.pv_number, b.where.directory.pv_number)
    )


def _of_side(
    selector: Selector | None, view: ValuesView, today: CatalogueView | None
) -> tuple[I8, list[str]]:
    """(numbers of its PVs that a selector chooses, ascending; what it has not)."""
    if selector is None:
        return view.numbers, []
    chooser = Chooser(view.index, today_of(today))
    mask = chooser.choose(selector)
    return view.numbers[mask], chooser.not_found


def _tolerances(
    order: CompareOrder, a: ValuesView, b: ValuesView, today: CatalogueView | None
) -> Tolerances:
    match order.tolerance_source:
        case ToleranceSource.CATALOGUE:
            assert today is not None, "fetched for this"
            return by_directory(today.directory)
        case ToleranceSource.GIVEN:
            return constant(order.setpoint_tolerance, order.readback_tolerance)
        case ToleranceSource.EXACT:
            return constant((0.0, 0.0), (0.0, 0.0))
        case _:
            return by_directory(a.where.directory, b.where.directory)
