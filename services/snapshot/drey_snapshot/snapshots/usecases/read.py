"""Reading the values of a snapshot, whole or in part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT
from drey_core.errors import NotFound
from drey_core.selector import Selector
from drey_core.stored_choice import Chooser, Today, refuse_unknown
from drey_core.values import I8, State
from drey_core.wire import chunk_rows
from drey_core.wire_columns import column_chunks
from drey_runtime.waiting import choose_off_loop
from drey_snapshot.catalog.live_catalog import LiveCatalog
from drey_snapshot.catalog.view import CatalogView
from drey_snapshot.snapshots.adapters.library import Library
from drey_snapshot.snapshots.adapters.store import SnapshotStore
from drey_snapshot.snapshots.domain.records import Record
from drey_snapshot.snapshots.domain.views import ValuesView

_ROWS_AT_ONCE = 8192
"""Rows encoded between two looks at the event loop: some 10 ms."""


@dataclass(frozen=True, slots=True)
class SnapshotRows:
    """A snapshot and the rows of its directory that were asked for, ascending."""

    record: Record
    view: ValuesView
    rows: I8

    def row_chunks(self) -> Iterator[bytes]:
        """`RowChunk` messages, each up to about 1 MiB, in order of PV number."""
        view, labels = self.view, self.view.where.metadata.labels
        encoder = view.where.names.row_encoder
        for first in range(0, len(self.rows), _ROWS_AT_ONCE):
            rows = self.rows[first : first + _ROWS_AT_ONCE]
            setpoint, readback = view.setpoint.take_rows(rows), view.readback.take_rows(rows)
            encoded = encoder.encode_rows(
                rows,
                setpoint,
                readback,
                sp_present=setpoint.state != State.ABSENT,
                rb_present=readback.state != State.ABSENT,
                labels=labels,
            )
            yield from chunk_rows(encoded)

    def column_chunks(self) -> Iterator[bytes]:
        """`ValueColumns` messages, each up to about 1 MiB; setpoint before readback of a PV."""
        directory = self.view.where.directory
        channels = np.stack(
            [directory.setpoint_channel[self.rows], directory.readback_channel[self.rows]], axis=1
        ).reshape(-1)
        numbers = np.repeat(directory.pv_number[self.rows], 2)
        roles = np.tile(np.array([ROLE_SETPOINT, ROLE_READBACK], np.uint8), len(self.rows))
        columns = self.view.pages.columns_of_channels(channels)
        here = columns.state != State.ABSENT
        if not here.all():
            columns, numbers, roles = columns.take_rows(here), numbers[here], roles[here]
        yield from column_chunks(numbers, roles, columns)


class SnapshotReader:
    """Finds snapshots and what was asked of them."""

    def __init__(self, store: SnapshotStore, library: Library, catalog: LiveCatalog) -> None:
        self._store, self._library, self._catalog = store, library, catalog

    async def living_snapshot(self, snapshot_id: str, field: str = "id") -> Record:
        """The record of a snapshot that was not deleted; else `NotFound`."""
        record = await self._store.by_id(snapshot_id)
        if record is None or record.labels.delete_time_ns:
            raise no_such_snapshot(snapshot_id, field)
        return record

    async def golden(self, label: str, field: str) -> Record:
        """The record of the snapshot that is golden under a label; else `NotFound`."""
        record = await self._store.golden("", label)
        if record is None:
            raise NotFound(
                f"{field}: no snapshot is golden under the label {label!r}"
                if label
                else f"{field}: no snapshot is golden without a label",
                field=field,
                metadata={"resource": "golden", "id": label},
            )
        return record

    async def view(self, record: Record) -> ValuesView:
        """The values of a snapshot."""
        return await self._library.view(record)

    async def read_rows(
        self, snapshot_id: str, selector: Selector | None, only_missing: bool
    ) -> SnapshotRows:
        """A snapshot, and its rows that a selector chooses (None: all).

        Raises `NotFound` where there is no such snapshot or the selector names what it has not,
        `InvalidArgument` for a wrong selector.
        """
        if selector is not None:
            selector.validate_selector()
        record = await self.living_snapshot(snapshot_id)
        view = await self._library.view(record)
        rows = view.rows
        if selector is not None:
            chooser = Chooser(view.selector_index, today_of(await self._current_view(selector)))
            mask = await choose_off_loop(
                lambda: chooser.choose_rows(selector), takes_long=selector.takes_long
            )
            refuse_unknown(chooser.not_found)
            rows = rows[mask]
        if only_missing:
            rows = rows[view.missing_mask[rows]]
        return SnapshotRows(record, view, rows)

    async def _current_view(self, selector: Selector) -> CatalogView | None:
        return await self._catalog.current_view() if needs_today(selector) else None


def no_such_snapshot(snapshot_id: str, field: str) -> NotFound:
    """What is said of an id that no living snapshot has."""
    return NotFound(
        f"there is no snapshot {snapshot_id}",
        field=field,
        metadata={"resource": "snapshot", "id": snapshot_id},
    )


def needs_today(selector: Selector) -> bool:
    """Whether a selector speaks of what only today's catalog knows."""
    if selector.ids or selector.tags or selector.scope:
        return True
    return selector.excluding is not None and needs_today(selector.excluding)


def today_of(view: CatalogView | None) -> Today:
    """Selectors evaluated by today's catalog, as PV numbers."""

    def choose_today(selector: Selector) -> tuple[I8, list[str]]:
        assert view is not None, "needs_today has said that it is not needed"
        rows, unknown = view.select_numbers(selector, True)
        return view.directory.pv_number[rows], unknown

    return choose_today
