"""Import of a file of PVs: what each row means for the catalog, decided row by row in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from drey_core.errors import DreyError, Reason
from drey_core.pv_columns import (
    DESCRIPTION,
    DEVICE,
    POLICY,
    PROTOCOL,
    READ_ONLY,
    READBACK,
    SETPOINT,
    TOLERANCES,
)
from drey_core.pv_csv import ParsedPvs
from drey_core.pv_table import NO_POLICY, FileTable, Policy
from drey_snapshot.catalog.domain.draft import CONTENT, PROTOCOL_CA, Draft, check_draft, copy_of
from drey_snapshot.catalog.domain.edit import Edit
from drey_snapshot.catalog.domain.table import I8, Bools, PvTable

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


class Row(NamedTuple):
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


def refuse_file(parsed: ParsedPvs) -> Plan:
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


def decide_import(edit: Edit, table: FileTable, keep_existing: bool) -> Plan:
    """Put the rows of a file without problems into the edit, and say what that means.

    An edit that nothing was done in yet, for rows are compared with its state.
    """
    plan = Plan(rows=len(table))
    before = {group.name.casefold() for group in edit.tags.groups}
    tags = _Tags(edit, table)
    lookup = edit.state.row_by_name.get
    state_rows = np.fromiter((lookup(name, -1) for name in table.name), np.int64, len(table))
    _add_new(edit, plan, table, np.flatnonzero(state_rows < 0).tolist(), tags)
    there = np.flatnonzero(state_rows >= 0)
    if not keep_existing and len(there):
        _change_existing(edit, plan, _FileRows(table), there, state_rows[there], tags)
    plan.unchanged = plan.rows - plan.added - plan.changed - plan.refused
    for group in table.groups:
        edit.ensure_group(group)
    plan.groups_added = [
        group.name for group in edit.tags.groups if group.name.casefold() not in before
    ]
    return plan


def _add_new(edit: Edit, plan: Plan, table: FileTable, rows: list[int], tags: _Tags) -> None:
    """All of them at once; a file was checked cell by cell, so only policies may still refuse."""
    content = _content_columns(table, rows, [tags.of_new(index) for index in rows])
    refused = _find_refusals(content)
    for i, error in refused.items():
        _note_refusal(plan, table, rows[i], error)
    plan.added += len(rows) - len(refused)
    if refused:
        # nothing will be written, so there is nothing to put into the edit either
        rows = [index for i, index in enumerate(rows) if i not in refused]
    elif rows:
        edit.create_many(content)
    lines, names = table.line, table.name
    plan.listed += [Row(lines[index], names[index], Action.ADDED) for index in rows]


def _find_refusals(content: dict[str, Any]) -> dict[int, DreyError]:
    """What speaks against new PVs, by position."""
    columns = [content[name] for name in CONTENT]
    refused: dict[int, DreyError] = {}
    for i, policy in enumerate(content["policy"]):
        if policy is not NO_POLICY:
            own_fields = {name: column[i] for name, column in zip(CONTENT, columns, strict=True)}
            try:
                check_draft(Draft(**own_fields), "")
            except DreyError as error:
                refused[i] = error
    return refused


def _content_columns(
    table: FileTable, rows: list[int], tags: list[tuple[int, ...]]
) -> dict[str, Any]:
    """Columns of `CONTENT` of some rows of a file."""
    index = np.array(rows, np.int64)
    taken: dict[str, Any] = {
        "name": table.name,
        "device": table.device,
        "description": table.description,
        "read_only": table.read_only,
        "setpoint_address": table.setpoint,
        "readback_address": table.readback,
        "policy": table.policy,
    }
    content = {
        name: column if len(rows) == len(table) else [column[row] for row in rows]
        for name, column in taken.items()
    }
    for name in ("name", "device", "description", "setpoint_address", "readback_address"):
        content[name] = _copy_texts(content[name])
    protocol = np.array(table.protocol, np.uint8)[index]
    content["protocol"] = np.where(protocol == 0, PROTOCOL_CA, protocol).astype(np.uint8)
    for name in _TOLERANCE_FIELDS:
        content[name] = getattr(table, name)[index]
    content["tags"] = tags
    return content


def _copy_texts(texts: list[str]) -> list[str]:
    """The same texts as objects that lie side by side, equal neighbours as one.

    Those of the file lie among its other cells: each would keep a whole block of memory that is
    otherwise free when the file is gone.
    """
    copies: list[str] = []
    last = copy = ""
    for text in texts:
        if text != last:
            last, copy = text, str(text.encode(), "utf-8")
        copies.append(copy)
    return copies


def _change_existing(
    edit: Edit, plan: Plan, rows: _FileRows, there: I8, at_state: I8, tags: _Tags
) -> None:
    """Rows of the file at `there`, whose PVs are the rows `at_state` of the edit's state."""
    equal = rows.equal_rows(edit.state.table, there, at_state)
    carried = [edit.state.table.tags[row] for row in at_state.tolist()]
    wanted = [tags.tags_over(c, index) for c, index in zip(carried, there.tolist(), strict=True)]
    equal &= np.array([w == c for w, c in zip(wanted, carried, strict=True)], bool)
    differing = np.flatnonzero(~equal)
    drafts = edit.at_rows(at_state[differing].tolist())
    for i, before in zip(differing.tolist(), drafts, strict=True):
        index = int(there[i])
        after = rows.draft_over(before, index)
        after.tags = wanted[i]
        try:
            changed = edit.update_pv(before, after, path="")
        except DreyError as error:
            _note_refusal(plan, rows.table, index, error)
            continue
        if changed:
            plan.changed += 1
            columns = ",".join(_COLUMN_OF[name] for name in changed)
            line, name = rows.table.line[index], after.name
            plan.listed.append(Row(line, name, Action.CHANGED, columns))


def _note_refusal(plan: Plan, table: FileTable, row: int, error: DreyError) -> None:
    plan.refused += 1
    field_, message = error.field.lstrip("."), error.message.lstrip(".")
    plan.listed.append(
        Row(table.line[row], table.name[row], Action.REFUSED, field_, error.reason, message)
    )


class _FileRows:
    """What the rows of a file say of PVs that are there: only what the file has columns for."""

    def __init__(self, table: FileTable) -> None:
        self.table = table
        self._policy = [name for column, name in POLICY.items() if column in table.columns]
        sources: dict[str, tuple[str, Sequence[Any]]] = {
            SETPOINT: ("setpoint_address", table.setpoint),
            READBACK: ("readback_address", table.readback),
            DEVICE: ("device", table.device),
            DESCRIPTION: ("description", table.description),
            READ_ONLY: ("read_only", table.read_only),
            PROTOCOL: ("protocol", [int(p) or PROTOCOL_CA for p in table.protocol]),
        }
        for column, name in zip(TOLERANCES, _TOLERANCE_FIELDS, strict=True):
            sources[column] = (name, getattr(table, name).tolist())
        self._plain = [source for column, source in sources.items() if column in table.columns]

    def equal_rows(self, state: PvTable, there: I8, at_state: I8) -> Bools:
        """Which rows of the file say what the state has already, tags apart."""
        mine, others = there.tolist(), at_state.tolist()
        same = np.ones(len(there), bool)
        for name, column in self._plain:
            state_column = getattr(state, name)
            state_column = state_column if isinstance(state_column, list) else state_column.tolist()
            pairs = zip(mine, others, strict=True)
            same &= np.array([column[i] == state_column[k] for i, k in pairs], bool)
        if self._policy:
            pairs = zip(mine, others, strict=True)
            equal_policies = (
                self._merge_policy(state.policy[k], i) == state.policy[k] for i, k in pairs
            )
            same &= np.fromiter(equal_policies, bool, len(there))
        return same

    def draft_over(self, before: Draft, row: int) -> Draft:
        """The PV with what the row says."""
        after = copy_of(before)
        for name, column in self._plain:
            setattr(after, name, column[row])
        if self._policy:
            after.policy = self._merge_policy(before.policy, row)
        return after

    def _merge_policy(self, before: Policy, row: int) -> Policy:
        own_policy = self.table.policy[row]
        return replace(before, **{name: getattr(own_policy, name) for name in self._policy})


class _Tags:
    """Tags of the rows as numbers; equal tags are looked up once."""

    def __init__(self, edit: Edit, table: FileTable) -> None:
        self._edit, self._table = edit, table
        self._known: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = {}
        self._merged: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, ...]] = {}
        groups = {group.casefold() for group in table.groups}
        self._spoken_of = {
            number for (group, _), number in edit.state.tags.by_name.items() if group in groups
        }

    def of_new(self, row: int) -> tuple[int, ...]:
        named = self._table.tags[row]
        tag_numbers = self._known.get(named)
        if tag_numbers is None:
            tag_numbers = self._known[named] = self._tag_numbers(named)
        return tag_numbers

    def tags_over(self, carried: tuple[int, ...], row: int) -> tuple[int, ...]:
        """Tags of groups that the file does not speak of stay."""
        own_tags = self.of_new(row)
        key = (carried, own_tags)
        merged_tags = self._merged.get(key)
        if merged_tags is None:
            kept = [number for number in carried if number not in self._spoken_of]
            merged_tags = self._merged[key] = tuple(sorted({*kept, *own_tags}))
        return merged_tags

    def _tag_numbers(self, named: Iterable[tuple[str, str]]) -> tuple[int, ...]:
        return tuple(sorted({self._edit.tag_number(group, tag) for group, tag in named}))
