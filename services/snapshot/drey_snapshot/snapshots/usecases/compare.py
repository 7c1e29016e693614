"""Comparing states of the machine: snapshots, and the live machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import reduce
from typing import cast

import numpy as np

from drey_core.compare import DifferenceClass
from drey_core.selector import Selector
from drey_core.stored_choice import Chooser, refuse_unknown
from drey_core.token import Position, decode_page_token, encode_page_token, query_hash
from drey_core.values import I8
from drey_core.wire import chunk_rows
from drey_runtime.waiting import choose_off_loop, run_together
from drey_snapshot.catalog.live_catalog import LiveCatalog
from drey_snapshot.catalog.view import CatalogView
from drey_snapshot.snapshots.domain.comparisons import (
    POSITION_PARTS,
    Comparisons,
    Key,
    Order,
)
from drey_snapshot.snapshots.domain.difference_rows import encode_comparisons
from drey_snapshot.snapshots.domain.differences import (
    SAME,
    Differences,
    Tolerances,
    by_directory,
    constant_tolerances,
    find_differences,
)
from drey_snapshot.snapshots.domain.order import DEFAULT_MAX_AGE_NS
from drey_snapshot.snapshots.domain.views import ValuesView
from drey_snapshot.snapshots.usecases.read import SnapshotReader, needs_today, today_of
from drey_snapshot.snapshots.usecases.take import Taker

_ROWS_AT_ONCE = 2048
_LIST = "comparison"
_DEFAULT_CLASSES = frozenset(DifferenceClass) - {*SAME, DifferenceClass.UNSPECIFIED}


class ToleranceSource(IntEnum):
    """What the tolerances are; the numbers of `drey.compare.v1.ToleranceSource`."""

    UNSPECIFIED = 0
    REFERENCE = 1
    CATALOG = 2
    GIVEN = 3
    EXACT = 4


class ComparisonScope(IntEnum):
    """Which PVs are compared; the numbers of `drey.compare.v1.ComparisonScope`."""

    UNSPECIFIED = 0
    REFERENCE = 1
    COMMON = 2
    ANY = 3


@dataclass(frozen=True, slots=True)
class ComparedState:
    """A state to compare, and the field that names it. `snapshot_id` empty: the live machine.

    `golden` is the label of the snapshot that it is to be, until that is looked up; else None.
    """

    snapshot_id: str
    field: str
    golden: str | None = None


@dataclass(frozen=True, slots=True)
class CompareOrder:
    """A request to compare, checked. `page_size` 0: all rows."""

    reference: ComparedState
    others: tuple[ComparedState, ...]
    selector: Selector | None = None
    tolerance_source: ToleranceSource = ToleranceSource.REFERENCE
    setpoint_tolerance: tuple[float, float] = (0.0, 0.0)
    readback_tolerance: tuple[float, float] = (0.0, 0.0)
    classes: frozenset[int] = frozenset()
    order: Order = Order.NAME
    scope: ComparisonScope = ComparisonScope.REFERENCE
    with_values: bool = False
    summary_only: bool = False
    page_size: int = 0
    page_token: str = ""

    @property
    def compared_states(self) -> tuple[ComparedState, ...]:
        """The reference, and then the others."""
        return (self.reference, *self.others)

    @property
    def query_bytes(self) -> bytes:
        """What a page token is bound to: all that decides on the rows and their order."""
        asked = (
            *([state.snapshot_id for state in self.compared_states], self.selector, self.scope),
            *(self.tolerance_source, self.setpoint_tolerance, self.readback_tolerance),
            *(sorted(self.classes), self.order),
        )
        return query_hash(*asked)


@dataclass(frozen=True, slots=True)
class Compared:
    """The outcome of a comparison.

    `outside`: for each other, the PVs of it or of the reference that the scope leaves out. `rows`
    are those of this page, in order; `total` those of all pages; `next_page_token` empty: the last.
    """

    order: CompareOrder
    found: Comparisons
    outside: Sequence[int]
    rows: I8
    total: int
    next_page_token: str

    def row_chunks(self) -> Iterator[bytes]:
        """`RowChunk` messages of about 1 MiB, in the order asked for."""
        at_once = max(_ROWS_AT_ONCE // len(self.found.each), 1)
        for first in range(0, len(self.rows), at_once):
            part = self.rows[first : first + at_once]
            yield from chunk_rows(
                encode_comparisons(self.found, part, with_values=self.order.with_values)
            )


class Comparer:
    def __init__(self, reader: SnapshotReader, taker: Taker, catalog: LiveCatalog) -> None:
        self._reader, self._taker, self._catalog = reader, taker, catalog

    async def compare(self, order: CompareOrder) -> Compared:
        """Compare. Raises `NotFound`, `InvalidArgument`, or `Unavailable` where a part is away."""
        order = await self._resolve_order(order)
        position = decode_page_token(
            _LIST, order.query_bytes, order.page_token, POSITION_PARTS[order.order]
        )
        reference, *others = await self._read_views(order.compared_states)
        today = None
        if order.tolerance_source == ToleranceSource.CATALOG or (
            order.selector is not None and needs_today(order.selector)
        ):
            today = await self._catalog.current_view()
        numbers, outside = await choose_off_loop(
            lambda: _chosen_numbers(order.selector, order.scope, reference, others, today),
            takes_long=order.selector is not None and order.selector.takes_long,
        )
        comparisons: list[Differences] = []
        for other in others:
            if comparisons:
                await asyncio.sleep(0)  # each takes some milliseconds of the event loop
            comparisons.append(
                find_differences(
                    reference,
                    other,
                    _order_tolerances(order, reference, other, today),
                    numbers=numbers,
                    exhaustive=not order.summary_only and bool(order.classes & {*SAME}),
                )
            )
        return _compared_page(order, Comparisons(tuple(comparisons)), outside, position)

    async def _resolve_order(self, order: CompareOrder) -> CompareOrder:
        """The order with the ids of golden snapshots: pages of one are not pages of the next."""
        if all(state.golden is None for state in order.compared_states):
            return order
        reference, *others = [await self._resolve_state(state) for state in order.compared_states]
        return replace(order, reference=reference, others=tuple(others))

    async def _resolve_state(self, state: ComparedState) -> ComparedState:
        if state.golden is None:
            return state
        record = await self._reader.golden(state.golden, state.field)
        return ComparedState(record.facts.id, state.field)

    async def _read_views(self, states: Sequence[ComparedState]) -> list[ValuesView]:
        """A view of each; the same one where two name the same state."""
        wanted = {state.snapshot_id: state for state in reversed(states)}
        views = await run_together(*(self._read_view(state) for state in wanted.values()))
        by_id = dict(zip(wanted, views, strict=True))
        return [by_id[state.snapshot_id] for state in states]

    async def _read_view(self, state: ComparedState) -> ValuesView:
        if not state.snapshot_id:
            return await self._taker.live_view(DEFAULT_MAX_AGE_NS)
        record = await self._reader.living_snapshot(state.snapshot_id, state.field)
        return await self._reader.view(record)


def _compared_page(
    order: CompareOrder,
    comparisons: Comparisons,
    outside: Sequence[int],
    position: Sequence[Position] | None,
) -> Compared:
    """The comparison, with the rows of one page."""
    rows = comparisons.of_classes(order.classes or _DEFAULT_CLASSES)
    total = len(rows)
    if order.summary_only:
        return Compared(order, comparisons, outside, rows[:0], total, "")
    rows = comparisons.order_rows(rows, order.order)
    if position is not None:
        rows = comparisons.rows_after(rows, order.order, cast("Key", tuple(position)))
    token = ""
    if 0 < order.page_size < len(rows):
        rows = rows[: order.page_size]
        last = comparisons.position_of(int(rows[-1]), order.order)
        token = encode_page_token(_LIST, order.query_bytes, last)
    return Compared(order, comparisons, outside, rows, total, token)


def _chosen_numbers(
    selector: Selector | None,
    scope: ComparisonScope,
    reference: ValuesView,
    others: Sequence[ValuesView],
    today: CatalogView | None,
) -> tuple[I8 | None, list[int]]:
    """(numbers of the PVs to compare, None: all; how many the scope leaves out, for each other).

    A name that nothing within the scope has is refused, never silently left out.
    """
    if selector is None and all(_whole_and_alike(reference, other) for other in others):
        return None, [0] * len(others)
    here, unknown = _of_side(selector, reference, today)
    there = [_of_side(selector, other, today) for other in others]
    if scope == ComparisonScope.REFERENCE:
        refuse_unknown(
            unknown,
            "the reference",
            "; the scope of any compares what the others have",
            field="spec.selector",
        )
        numbers = here
    else:
        for _, also in there:
            lacking = set(also)
            unknown = [name for name in unknown if name in lacking]
        refuse_unknown(unknown, "any of the states", field="spec.selector")
        join = np.union1d if scope == ComparisonScope.ANY else np.intersect1d
        numbers = reduce(join, (chosen for chosen, _ in there), here)
    pairs = [np.union1d(here, chosen) for chosen, _ in there]
    return numbers, [int(np.isin(pair, numbers, invert=True).sum()) for pair in pairs]


def _whole_and_alike(a: ValuesView, b: ValuesView) -> bool:
    """Whether both have every PV of directories that name the same ones: the ordinary case."""
    return (
        len(a.rows) == len(a.where.directory)
        and len(b.rows) == len(b.where.directory)
        and np.array_equal(a.where.directory.pv_number, b.where.directory.pv_number)
    )


def _of_side(
    selector: Selector | None, view: ValuesView, today: CatalogView | None
) -> tuple[I8, list[str]]:
    """(numbers of its PVs that a selector chooses, ascending; what it has not)."""
    if selector is None:
        return view.pv_numbers, []
    chooser = Chooser(view.selector_index, today_of(today))
    mask = chooser.choose_rows(selector, "spec.selector")
    return view.pv_numbers[mask], chooser.not_found


def _order_tolerances(
    order: CompareOrder, a: ValuesView, b: ValuesView, today: CatalogView | None
) -> Tolerances:
    match order.tolerance_source:
        case ToleranceSource.CATALOG:
            assert today is not None, "fetched for this"
            return by_directory(today.directory)
        case ToleranceSource.GIVEN:
            return constant_tolerances(order.setpoint_tolerance, order.readback_tolerance)
        case ToleranceSource.EXACT:
            return constant_tolerances((0.0, 0.0), (0.0, 0.0))
        case _:
            return by_directory(a.where.directory, b.where.directory)
