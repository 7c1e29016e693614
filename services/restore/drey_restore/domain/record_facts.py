"""What the records of a plan's writes say of themselves, and what is not written for it.

Reasons that come after those of `planning`: NOT_WRITABLE, of a record that is disabled;
DUPLICATE_ADDRESS and OUT_OF_RANGE, by the name that a record has besides that of an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from drey_core.values import I8, U1, as_float64
from drey_restore.domain.addresses import (
    DISABLING,
    comes_first,
    field_name,
    limit_field,
    record_name,
)
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.problems import PlanProblem, PlanWarnings, blank_rows

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class RecordFacts:
    """What records say of themselves, one entry each for some rows of a plan, ascending.

    `disp`: the IOC takes no value; `disabled`: .DISA equals .DISV. `aliases`: what .NAME says, of
    rows whose address names the record otherwise.
    """

    rows: I8
    disp: Mask
    disabled: Mask
    aliases: Mapping[int, str] = field(default_factory=dict)


def refuse_records(
    items: PlanItems, facts: RecordFacts, refused: frozenset[PlanProblem]
) -> PlanItems:
    """The plan without the writes that their records would not take, or that come twice.

    As the records will be after the plan's own writes of .DISP and .DISA, which come first in a
    stage.
    """
    items = replace(items, records=facts.aliases)
    skip, warnings = items.skip.copy(), PlanWarnings(items.warnings)
    own = _own_switches(items, facts)
    doubtful = facts.disp | facts.disabled | bool(own)
    for index in np.flatnonzero(doubtful).tolist():
        row = int(facts.rows[index])
        address, stage = items.addresses[row], int(items.stage[row])
        if field_name(address) in DISABLING:
            continue
        disp, disabled = bool(facts.disp[index]), bool(facts.disabled[index])
        switched = own.get(_record_text(items, facts, row), {})
        for name, (when, on) in switched.items():
            if when <= stage:
                disp, disabled = (on, disabled) if name == "DISP" else (disp, on)
        if disp:
            why = "the record takes no value: .DISP is set"
        elif disabled and not comes_first(address):
            why = "the record is disabled: .DISA equals .DISV"
        else:
            continue
        warnings.add_warning(row, why + _by_itself(switched))
        if PlanProblem.DISABLED in refused:
            skip[row] = Skip.NOT_WRITABLE
    _refuse_aliases(items, facts, skip, warnings)
    _refuse_beyond_aliased_limits(items, facts, skip, warnings)
    target = blank_rows(items.target, skip != Skip.NONE)
    ramps = {row: steps for row, steps in items.ramps.items() if skip[row] == Skip.NONE}
    return replace(items, skip=skip, target=target, ramps=ramps, warnings=warnings.by_row)


def _record_text(items: PlanItems, facts: RecordFacts, row: int) -> str:
    return facts.aliases.get(row) or record_name(items.addresses[row])


def _by_itself(switched: Mapping[str, object]) -> str:
    if not switched:
        return ""
    return f" (the plan writes {', '.join(f'.{name}' for name in sorted(switched))} of it as well)"


def _own_switches(items: PlanItems, facts: RecordFacts) -> dict[str, dict[str, tuple[int, bool]]]:
    """By record: the stage in which the plan writes .DISP or .DISA, and whether that disables."""
    by_record: dict[str, dict[str, tuple[int, bool]]] = {}
    for row in facts.rows.tolist():
        address = items.addresses[row]
        if not address.endswith((".DISP", ".DISA")):
            continue
        disables = bool(items.target.data[row] != 0)
        switches = by_record.setdefault(_record_text(items, facts, row), {})
        switches[field_name(address)] = (int(items.stage[row]), disables)
    return by_record


def _refuse_aliases(items: PlanItems, facts: RecordFacts, skip: U1, warnings: PlanWarnings) -> None:
    """Write a field once, of which two names are known by what .NAME says."""
    if not facts.aliases:
        return
    seen: dict[str, int] = {}
    for row in facts.rows.tolist():
        if skip[row] != Skip.NONE:
            continue
        first = seen.setdefault(items.field_written(row), row)
        if first != row:
            skip[row] = Skip.DUPLICATE_ADDRESS
            warnings.add_warning(row, f"the same field as {items.addresses[first]}, by an alias")


def _refuse_beyond_aliased_limits(
    items: PlanItems, facts: RecordFacts, skip: U1, warnings: PlanWarnings
) -> None:
    """Leave out what a limit would clip that the plan writes before, under another name."""
    if not facts.aliases:
        return
    rows = [row for row in facts.rows.tolist() if skip[row] == Skip.NONE]
    value_rows = {items.field_written(row): row for row in rows}
    numbers = as_float64(items.target.kind, items.target.data)
    for row in rows:
        limit = limit_field(items.field_written(row))
        value_row = None if limit is None else value_rows.get(limit[0])
        if limit is None or value_row is None or not {row, value_row} & facts.aliases.keys():
            continue
        beyond = (numbers[value_row] - numbers[row]) * (1 if limit[1] else -1)
        if items.stage[row] <= items.stage[value_row] and beyond > 0:
            skip[value_row] = Skip.OUT_OF_RANGE
            warnings.add_warning(value_row, f"beyond the limit {items.addresses[row]} of this plan")
