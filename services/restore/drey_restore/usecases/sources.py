"""Where the values of a plan come from: a snapshot, the caller, or before a restore wrote."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from drey_core.directory import Directory
from drey_core.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from drey_core.values import I8, Columns, Kind
from drey_restore.adapters.snapshots import StoredName, StoredValues, merge_numbers
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.edits import Given
from drey_restore.domain.items import Outcome, PlanItems, scatter_rows
from drey_restore.domain.planning import WayBack
from drey_runtime.waiting import run_together


@dataclass(frozen=True)
class PlanSource:
    """Values by PV, and what tells the names, labels and addresses as of them.

    `given`: values of the caller by the number of the PV; then nothing is stored.
    """

    stored: StoredValues
    names: Callable[[I8], Awaitable[dict[int, StoredName]]]
    back: WayBack | None = None
    given: Mapping[int, Given] = field(default_factory=dict)


def given_source(
    directory: Directory, values: Sequence[tuple[str, Given]], chosen: I8 | None
) -> PlanSource:
    """Values of the caller, of those that are `chosen` (None: all of them).

    A name that is not in the catalog is NotFound, and one that is given twice InvalidArgument.
    """
    rows = dict(zip(directory.names, range(len(directory.names)), strict=True))
    given: dict[int, Given] = {}
    for index, (name, value) in enumerate(values):
        path = f"spec.values.values[{index}].name"
        row = rows.get(name)
        if row is None:
            raise NotFound(
                f"{path}: no PV is called {name}",
                field=path,
                metadata={"resource": "pv", "name": name},
            )
        number = int(directory.pv_number[row])
        if number in given:
            raise InvalidArgument(f"{path}: {name} is given twice", field=path)
        given[number] = value
    numbers = np.array(sorted(given), np.int64)
    if chosen is not None:
        numbers = merge_numbers(numbers[np.isin(numbers, chosen)], chosen)
    none, channels = Columns.empty_columns(len(numbers)).with_key(numbers), np.zeros_like(numbers)

    async def unknown(asked: I8) -> dict[int, StoredName]:
        return {}

    return PlanSource(StoredValues(numbers, none, none, channels, channels), unknown, given=given)


async def undo_source(
    store: RestoreStore, restore_id: str, chosen: I8 | None, *, also_changed: bool
) -> PlanSource:
    """The way back of a restore that has ended: what was there before, of what it sent.

    `chosen`: numbers of the PVs that are wanted; None: all. NotFound, WRONG_STATE, PLAN_EMPTY.
    """
    restore = await store.restore(restore_id)
    if not restore.state.ended:
        raise FailedPrecondition(
            f"restore {restore.id} is {restore.state.name.lower()}: abort it, or wait for its end,"
            " before its way back is planned",
            reason=Reason.WRONG_STATE,
            field="spec.undo.restore_id",
            metadata={"state": restore.state.name},
        )
    items, outcome, before = await run_together(
        store.plan_items(restore.plan_id, restore.plan_digest),
        store.read_outcome(restore.id),
        store.pre_image(restore.id),
    )
    rows = np.zeros(0, np.int64) if outcome is None else np.flatnonzero(outcome.sent_time != 0)
    if outcome is None or len(rows) == 0:
        raise FailedPrecondition(
            f"restore {restore.id} has sent nothing: there is no way back to plan",
            reason=Reason.PLAN_EMPTY,
            field="spec.undo.restore_id",
        )
    if chosen is not None:
        rows = rows[np.isin(items.number[rows], chosen)]
    readback = Columns.empty_columns(len(items)) if before is None else before[1]
    return way_back(items, outcome, readback, rows, also_changed=also_changed)


def way_back(
    items: PlanItems, outcome: Outcome, readback: Columns, rows: I8, *, also_changed: bool = False
) -> PlanSource:
    """What was there before the first write of rows; `readback` are the readbacks then."""
    numbers = items.number[rows]

    async def told(asked: I8) -> dict[int, StoredName]:
        return {
            int(items.number[row]): StoredName(
                items.names[row],
                items.labels(row),
                items.addresses[row],
                items.readback_addresses[row],
            )
            for row in rows[np.isin(numbers, asked)].tolist()
        }

    return PlanSource(
        StoredValues(
            numbers,
            outcome.before.take_rows(rows).with_key(numbers),
            readback.take_rows(rows).with_key(numbers),
            items.current.key[rows],
            items.stored_readback.key[rows],
        ),
        told,
        WayBack(
            left=_rows_left(items, outcome).take_rows(rows),
            channel=items.current.key[rows],
            # the lowest number of all has no opposite: it comes last all the same
            stage=-np.maximum(items.stage[rows], -np.iinfo(np.int32).max),
            also_changed=also_changed,
        ),
    )


def _rows_left(items: PlanItems, outcome: Outcome) -> Columns:
    """What a restore left at each setpoint: as it was seen, else what was sent."""
    unseen = outcome.seen.kind == Kind.NONE
    # where somebody else has interfered, what was seen may be theirs
    rows = np.flatnonzero(unseen | (outcome.interferences != 0))
    return scatter_rows(outcome.seen, rows, items.target.take_rows(rows))
