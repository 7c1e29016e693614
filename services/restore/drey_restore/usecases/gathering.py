"""Gathering what a plan is made of: its source, today's catalog, and the live machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from drey.common.v1 import selector_pb2
from drey_core.directory import Directory
from drey_core.errors import InvalidArgument
from drey_core.values import I8, Kind
from drey_restore.adapters.catalog import CatalogClient
from drey_restore.adapters.live import ChannelReading, LiveMachine, LivePages
from drey_restore.adapters.snapshots import SnapshotClient, StoredName, StoredValues, merge_numbers
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.edits import Given, Linear
from drey_restore.domain.items import F8, Labels, PlanItems
from drey_restore.domain.planning import Mask, PlanInput, make_plan
from drey_restore.domain.policy import PolicyRows
from drey_restore.domain.records import Rules
from drey_restore.usecases.plan_reads import PlanReads, take_at
from drey_restore.usecases.record_check import RecordCheck
from drey_restore.usecases.sources import PlanSource, given_source, undo_source
from drey_runtime.waiting import run_together

_UNKNOWN = StoredName("", ())


@dataclass(frozen=True)
class Undo:
    """The way back of a restore; `also_changed`: also where somebody has changed the PV since."""

    restore_id: str
    also_changed: bool = False


@dataclass(frozen=True)
class PlanRequest:
    """What is asked for.

    `golden` is the scope and the label of the snapshot that it is to be, until that is looked up.
    `spec` is all of it as it came; `raw` are the request's bytes, by which a repeat is known.
    `source`: where the values come from is known already.
    """

    snapshot_id: str
    golden: tuple[str, str] | None
    undo: Undo | None
    given: tuple[tuple[str, Given], ...] | None
    selector: selector_pb2.Selector | None
    edits: tuple[tuple[selector_pb2.Selector, Given | Linear], ...]
    exact: bool
    lifetime_ns: int
    comment: str
    rules: Rules
    spec: bytes
    request_id: str
    raw: bytes
    source: PlanSource | None = None


class PlanGathering:
    """Makes the items of plans; stores nothing."""

    def __init__(
        self,
        store: RestoreStore,
        snapshots: SnapshotClient,
        catalog: CatalogClient,
        live: LiveMachine,
        reads: PlanReads,
        records: RecordCheck,
    ) -> None:
        self._store, self._snapshots, self._catalog = store, snapshots, catalog
        self._live, self._reads, self._records = live, reads, records

    async def compute_items(self, request: PlanRequest) -> PlanItems:
        """The items of the plan, from its source, today's catalog and the live machine."""
        directory, policies, source, live, edits = await run_together(
            self._catalog.current_directory(),
            self._catalog.policies(),
            self._load_source(request),
            self._read_early(request),
            self._resolve_edits(request),
        )
        stored = source.stored
        edited = _rows_of_edits(stored.number, edits)
        given = {
            row: source.given[number]
            for row, number in enumerate(stored.number.tolist() if source.given else ())
            if number in source.given
        }
        rows = directory.rows_of(stored.number)
        channels = take_at(directory.setpoint_channel, rows)
        if live is None or not live.covers_channels(channels):
            live = await self._live.read_channels(channels)
        gathered = _Gathered(directory, rows, channels, stored, policies.rows(stored.number))
        asked = gathered.numbers_to_name()
        names = await source.names(asked) if len(asked) else {}
        seen, done = await run_together(
            self._reads.read_live(
                directory, rows, _wanted_rows(stored, edited, given), live.reading_of(channels)
            ),
            self._reads.look_at_done(
                gathered.policies, _texts_at(directory.setpoint_address, rows)
            ),
        )

        def make() -> PlanItems:
            inputs = gathered.plan_input(seen, names, done)
            inputs = replace(inputs, back=source.back, given=given, edits=edited)
            inputs = replace(inputs, refused=self._records.refused)
            return make_plan(inputs, exact=request.exact)

        # in a thread, so that a restore that runs meanwhile gets its turns
        items = await asyncio.to_thread(make)
        return await self._records.refuse_writes(items) if len(items.writes) else items

    async def find_golden(self, request: PlanRequest) -> PlanRequest:
        """With the snapshot that is golden now, where the request asks for that. NotFound."""
        if request.golden is None:
            return request
        return replace(request, snapshot_id=await self._snapshots.golden_id(*request.golden))

    async def _load_source(self, request: PlanRequest) -> PlanSource:
        if request.source is not None:
            return request.source
        if request.given is not None:
            return await self._from_values(request, request.given)
        if request.undo is not None:
            return await self._from_restore(request, request.undo)
        return await self._from_snapshot(request)

    async def _from_snapshot(self, request: PlanRequest) -> PlanSource:
        stored, chosen = await run_together(
            self._snapshots.values(request.snapshot_id, request.selector),
            self._resolve_selector(request.selector),
        )
        if len(chosen):
            stored = stored.values_of_numbers(merge_numbers(stored.number, chosen))
        return PlanSource(
            stored, lambda numbers: self._snapshots.names(request.snapshot_id, numbers)
        )

    async def _from_values(
        self, request: PlanRequest, given: tuple[tuple[str, Given], ...]
    ) -> PlanSource:
        directory, chosen = await run_together(
            self._catalog.current_directory(), self._resolve_selector(request.selector)
        )
        return given_source(directory, given, None if request.selector is None else chosen)

    async def _from_restore(self, request: PlanRequest, undo: Undo) -> PlanSource:
        chosen = (
            None if request.selector is None else await self._resolve_selector(request.selector)
        )
        return await undo_source(
            self._store, undo.restore_id, chosen, also_changed=undo.also_changed
        )

    async def _read_early(self, request: PlanRequest) -> LivePages | None:
        """Of a whole snapshot: all setpoints, read while the snapshot is on its way."""
        channels = self._catalog.known_directory.setpoint_channel
        whole = request.selector is None and request.undo is None and request.given is None
        if not whole or len(channels) == 0:
            return None
        return await self._live.read_channels(channels)

    async def _resolve_edits(self, request: PlanRequest) -> list[tuple[I8, Given | Linear]]:
        """Numbers of the PVs of each edit; a name that is not in the catalog is an error."""
        if not request.edits:
            return []
        numbers = await run_together(
            *(
                self._catalog.resolve_selector(selector, unknown=False)
                for selector, _ in request.edits
            )
        )
        return [(chosen, edit) for chosen, (_, edit) in zip(numbers, request.edits, strict=True)]

    async def _resolve_selector(self, selector: selector_pb2.Selector | None) -> I8:
        return (
            np.zeros(0, np.int64)
            if selector is None
            else await self._catalog.resolve_selector(selector)
        )


@dataclass(frozen=True)
class _Gathered:
    """What is known of the PVs of a plan before any is read; row by row, shapes (n,).

    `rows` are theirs in the directory, -1 where it has none any more; `channels` their setpoints.
    """

    directory: Directory
    rows: I8
    channels: I8
    stored: StoredValues
    policies: PolicyRows

    @cached_property
    def readdressed(self) -> Mask:
        """PVs of which a channel has another number, and so another address, than when taken."""
        changed = np.zeros(len(self.rows), bool)
        for then, now in (
            (self.stored.setpoint_channel, self.channels),
            (self.stored.readback_channel, take_at(self.directory.readback_channel, self.rows)),
        ):
            changed |= (then != 0) & (then != now) & (self.rows >= 0)
        return changed

    def numbers_to_name(self) -> I8:
        """Numbers of the PVs of which the stored name, addresses or labels are needed."""
        stored = self.stored
        needed = (self.rows < 0) | (stored.setpoint.kind == Kind.ENUM) | self.readdressed
        numbers: I8 = stored.number[needed]
        return numbers

    def plan_input(
        self, live: ChannelReading, names: dict[int, StoredName], done: frozenset[int]
    ) -> PlanInput:
        """With what was read; `names` by PV number, `done` as `PlanReads.look_at_done`."""
        directory, rows, stored = self.directory, self.rows, self.stored
        metadata_rows = live.metadata.rows(self.channels)
        low, high = live.metadata.control_limits(metadata_rows)
        row_of = {number: row for row, number in enumerate(stored.number.tolist() if names else ())}
        return PlanInput(
            number=stored.number,
            names=self._shown_names(names),
            addresses=_texts_at(directory.setpoint_address, rows),
            readback_addresses=_texts_at(directory.readback_address, rows),
            setpoint_channel=self.channels,
            readback_channel=take_at(directory.readback_channel, rows),
            protocol=take_at(directory.protocol.astype(np.int64), rows).astype(np.uint8),
            read_only=take_at(directory.read_only.astype(np.int64), rows).astype(bool),
            deleted=rows < 0,
            absolute=_float_at(directory.setpoint_tolerance[0], rows),
            relative=_float_at(directory.setpoint_tolerance[1], rows),
            readback_absolute=_float_at(directory.readback_tolerance[0], rows),
            readback_relative=_float_at(directory.readback_tolerance[1], rows),
            stored=stored.setpoint,
            stored_readback=stored.readback,
            stored_labels={row_of[number]: name.setpoint_labels for number, name in names.items()},
            live=live.values,
            live_count=live.metadata.count(metadata_rows),
            live_labels=_labels_by_row(live, self.channels.tolist()),
            stale=live.stale,
            writable=live.writable,
            control_low=low,
            control_high=high,
            policies=self.policies,
            done=done,
            warnings=self._warnings(names, live.not_asked),
        )

    def _shown_names(self, names: dict[int, StoredName]) -> list[str]:
        """As the catalog has them; of those that it has no more, as the snapshot has."""
        shown = _texts_at(self.directory.names, self.rows)
        gone = np.flatnonzero(self.rows < 0).tolist()
        if gone:
            shown = list(shown)
            for row in gone:
                shown[row] = names.get(int(self.stored.number[row]), _UNKNOWN).name
        return shown

    def _warnings(
        self, names: dict[int, StoredName], not_asked: Mapping[int, str]
    ) -> dict[int, tuple[str, ...]]:
        addresses = _texts_at(self.directory.setpoint_address, self.rows)
        readback_addresses = _texts_at(self.directory.readback_address, self.rows)
        warnings = {
            row: _address_warnings(
                names.get(int(self.stored.number[row]), _UNKNOWN),
                addresses[row],
                readback_addresses[row],
            )
            for row in np.flatnonzero(self.readdressed).tolist()
        }
        for row, why in not_asked.items():
            warnings[row] = (*warnings.get(row, ()), why)
        return warnings


def _rows_of_edits(
    numbers: I8, edits: list[tuple[I8, Given | Linear]]
) -> list[tuple[I8, Given | Linear]]:
    """Edits by rows instead of by PV numbers; INVALID_ARGUMENT where one changes nothing."""
    edited = [(np.flatnonzero(np.isin(numbers, chosen)), edit) for chosen, edit in edits]
    for index, (rows, _) in enumerate(edited):
        if len(rows) == 0:
            path = f"spec.edits[{index}].selector"
            raise InvalidArgument(
                f"{path}: selects no PV of the plan: the edit would change nothing; correct it,"
                " or leave it out",
                field=path,
                metadata={"field": path},
            )
    return edited


def _wanted_rows(
    stored: StoredValues, edited: list[tuple[I8, Given | Linear]], given: dict[int, Given]
) -> Mask:
    """Rows of which there is a value to write."""
    wanted: Mask = stored.setpoint.kind != Kind.NONE
    for rows, edit in edited:
        wanted[rows] |= isinstance(edit, Given)
    wanted[list(given)] = True
    return wanted


def _float_at(column: F8, rows: I8) -> F8:
    return np.where(rows >= 0, column[rows], 0.0) if len(column) else np.zeros(len(rows))


def _texts_at(texts: list[str], rows: I8) -> list[str]:
    """`texts[row]` of each row, empty where the row is -1."""
    if len(rows) == len(texts) and bool((rows == np.arange(len(rows))).all()):
        return texts
    return [texts[row] if row >= 0 else "" for row in rows.tolist()]


def _address_warnings(
    stored: StoredName, setpoint_address: str, readback_address: str
) -> tuple[str, ...]:
    pairs = (
        ("setpoint", stored.setpoint_address, setpoint_address),
        ("readback", stored.readback_address, readback_address),
    )
    return tuple(
        f"{role} re-addressed since the snapshot: was {then}, is {now or 'none'}"
        for role, then, now in pairs
        if then and then != now
    )


def _labels_by_row(live: ChannelReading, channels: list[int]) -> Callable[[int], Labels]:
    def labels(row: int) -> Labels:
        return live.labels.get(row) or live.metadata.labels(channels[row])

    return labels
