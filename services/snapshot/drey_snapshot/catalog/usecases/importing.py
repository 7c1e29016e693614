"""Import of a file of PVs: what each row means for the catalogue, decided row by row in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np

from drey_core.errors import DreyError, Reason
from drey_core.pv_csv import (
    DESCRIPTION,
    DEVICE,
    POLICY,
    PROTOCOL,
    READ_ONLY,
    READBACK,
    SETPOINT,
    TOLERANCES,
    ParsedPvs,
)
from drey_core.pv_table import Policy
from drey_core.pv_table import PvTable as FileTable
from drey_snapshot.catalog.domain.draft import PROTOCOL_CA, Draft
from drey_snapshot.catalog.domain.edit import Edit

_TOLERANCE_FIELDS = (
    "setpoint_absolute",
    "setpoint_relative",
    "readback_absolute",
    "readback_relative",
)
_COLUMN_OF = {
    "name": "Name",
    "setpoint_address": SETPOINT,
    "readback_address": READBACK,
    "device": DEVICE,
    "description": DESCRIPTION,
    "protocol": PROTOCOL,
    "read_only": READ_ONLY,
    "policy": "Restore policy",
    "tags": "Tags",
    **dict(zip(_TOLERANCE_FIELDS, TOLERANCES, strict=True)),
}


class Action(IntEnum):
    """Numbers of `drey.catalog.v1.ImportAction`."""

    ADDED = 1
    CHANGED = 2
    UNCHANGED = 3
    REFUSED = 4


@dataclass(frozen=True, slots=True)
class Row:
    """A row that was added, changed or refused; `columns` at fault or changed, by comma."""

    line: int
    name: str
    action: Action
    columns: str = ""
    reason: Reason = Reason.UNSPECIFIED
    message: str = ""


@dataclass(slots=True)
class Plan:
    """What an import does, row by row and in numbers."""

    rows: int
    listed: list[Row] = field(default_factory=list)
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0
    groups_added: list[str] = field(default_factory=list)


def refuse(parsed: ParsedPvs) -> Plan:
    """The plan of a file with problems: nothing is done, every problem is listed."""
    plan = Plan(rows=len(parsed.table))
    plan.listed = [
        Row(p.line, p.name, Action.REFUSED, p.column, p.reason, p.message) for p in parsed.problems
    ]
    plan.refused = len({p.line for p in parsed.problems})
    if parsed.problem_count > len(parsed.problems):
        # beyond those listed a row may have several problems, so this may count too many
        plan.refused += parsed.problem_count - len(parsed.problems)
    plan.rows = max(plan.rows, plan.refused)
    return plan


def decide(edit: Edit, table: FileTable, keep_existing: bool) -> Plan:
    """Put the rows of a file without problems into the edit, and say what that means."""
    plan = Plan(rows=len(table))
    before = {group.name.casefold() for group in edit.tags.groups}
    state_rows = edit.state.row_by_name
    tags = _Tags(edit, table)
    rows = _FileRows(table)
    for at, name in enumerate(table.name):
        row = state_rows.get(name, -1)
        try:
            if row < 0:
                edit.create(_new(table, at, tags.of_new(at)), path="")
                plan.added += 1
                plan.listed.append(Row(table.line[at], name, Action.ADDED))
            elif keep_existing:
                plan.unchanged += 1
            else:
                _change(edit, plan, rows, at, row, tags)
        except DreyError as error:
            plan.refused += 1
            plan.listed.append(
                Row(
                    table.line[at],
                    name,
                    Action.REFUSED,
                    error.field.lstrip("."),
                    error.reason,
                    error.message.lstrip("."),
                )
            )
    for group in table.groups:
        edit.ensure_group(group)
    plan.groups_added = [
        group.name for group in edit.tags.groups if group.name.casefold() not in before
    ]
    return plan


def _new(table: FileTable, at: int, tags: tuple[int, ...]) -> Draft:
    return Draft(
        name=table.name[at],
        device=table.device[at],
        description=table.description[at],
        protocol=int(table.protocol[at]) or PROTOCOL_CA,
        read_only=table.read_only[at],
        setpoint_address=table.setpoint[at],
        readback_address=table.readback[at],
        setpoint_absolute=float(table.setpoint_absolute[at]),
        setpoint_relative=float(table.setpoint_relative[at]),
        readback_absolute=float(table.readback_absolute[at]),
        readback_relative=float(table.readback_relative[at]),
        policy=table.policy[at],
        tags=tags,
    )


class _FileRows:
    """What a row of the file says of a PV that is there: only what it has columns for."""

    def __init__(self, table: FileTable) -> None:
        self._table = table
        self._policy = [name for column, name in POLICY.items() if column in table.columns]
        columns = {
            SETPOINT: "setpoint_address",
            READBACK: "readback_address",
            DEVICE: "device",
            DESCRIPTION: "description",
            READ_ONLY: "read_only",
        }
        source = {"setpoint_address": "setpoint", "readback_address": "readback"}
        self._plain = [
            (name, getattr(table, source.get(name, name)))
            for column, name in columns.items()
            if column in table.columns
        ]
        self._plain += [
            (name, np.asarray(getattr(table, name), float).tolist())
            for column, name in zip(TOLERANCES, _TOLERANCE_FIELDS, strict=True)
            if column in table.columns
        ]
        self._protocol = PROTOCOL in table.columns

    def line(self, at: int) -> int:
        return self._table.line[at]

    def over(self, before: Draft, at: int) -> Draft:
        """The PV with what the row says."""
        after = replace(before)
        for name, column in self._plain:
            setattr(after, name, column[at])
        if self._protocol:
            after.protocol = int(self._table.protocol[at]) or PROTOCOL_CA
        if self._policy:
            said: Policy = self._table.policy[at]
            values = {name: getattr(said, name) for name in self._policy}
            after.policy = replace(before.policy, **values)
        return after


def _change(edit: Edit, plan: Plan, rows: _FileRows, at: int, row: int, tags: _Tags) -> None:
    before = edit.at_row(row)
    after = rows.over(before, at)
    after.tags = tags.over(before.tags, at)
    changed = edit.update(before, after, path="")
    if not changed:
        plan.unchanged += 1
        return
    plan.changed += 1
    columns = ",".join(_COLUMN_OF[name] for name in changed)
    plan.listed.append(Row(rows.line(at), after.name, Action.CHANGED, columns))


class _Tags:
    """Tags of the rows as numbers; equal tags are looked up once."""

    def __init__(self, edit: Edit, table: FileTable) -> None:
        self._edit, self._table = edit, table
        self._known: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = {}
        groups = {group.casefold() for group in table.groups}
        self._spoken_of = {
            number for (group, _), number in edit.state.tags.by_name.items() if group in groups
        }

    def of_new(self, at: int) -> tuple[int, ...]:
        named = self._table.tags[at]
        found = self._known.get(named)
        if found is None:
            found = self._known[named] = self._numbers(named)
        return found

    def over(self, carried: tuple[int, ...], at: int) -> tuple[int, ...]:
        """Tags of groups that the file does not speak of stay."""
        kept = [number for number in carried if number not in self._spoken_of]
        return tuple(sorted({*kept, *self.of_new(at)}))

    def _numbers(self, named: Iterable[tuple[str, str]]) -> tuple[int, ...]:
        return tuple(sorted({self._edit.tag_number(group, tag) for group, tag in named}))
