"""PVs written as the CSV that `pv_csv` reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from drey_core.errors import InvalidArgument
from drey_core.pv_columns import (
    DESCRIPTION,
    DEVICE,
    NAME,
    NO_TAG,
    POLICY,
    PROTOCOL,
    PROTOCOLS,
    READ_ONLY,
    READBACK,
    SETPOINT,
    TOLERANCES,
    group_problem,
)
from drey_core.pv_table import (
    NO_POLICY,
    CompletionMode,
    FileTable,
)


def write_pvs(table: FileTable) -> bytes:
    """The table as CSV, in UTF-8 with CR LF line ends, which `parse_pvs` reads back to the same.

    The four columns of the import come first; reserved columns follow where a PV uses them or the
    table's `columns` names them, and then the tag groups. Raises `InvalidArgument` for a group
    that no column can be called, as the catalog lets none be.
    """
    columns: list[tuple[str, Sequence[str]]] = [
        (SETPOINT, table.setpoint),
        (READBACK, table.readback),
        (DEVICE, table.device),
        (DESCRIPTION, table.description),
    ]
    for name, cells in _reserved_cells(table):
        if name in table.columns or any(cells):
            columns.append((name, cells))
    columns += _group_cells(table)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([name for name, _ in columns])
    writer.writerows(zip(*(cells for _, cells in columns), strict=True))
    return out.getvalue().encode()


def _reserved_cells(table: FileTable) -> list[tuple[str, list[str]]]:
    default = (s or r for s, r in zip(table.setpoint, table.readback, strict=True))
    tolerances = (
        table.setpoint_absolute,
        table.setpoint_relative,
        table.readback_absolute,
        table.readback_relative,
    )
    out = [(NAME, ["" if n == d else n for n, d in zip(table.name, default, strict=True)])]
    for name, values in zip(TOLERANCES, tolerances, strict=True):
        out.append((name, ["" if v == 0 else repr(v) for v in values.tolist()]))
    out.append((READ_ONLY, ["true" if flag else "" for flag in table.read_only]))
    protocols = {protocol: text for text, protocol in PROTOCOLS.items()}
    out.append((PROTOCOL, [protocols[protocol] for protocol in table.protocol]))
    used = any(policy != NO_POLICY for policy in table.policy)
    for column, field in POLICY.items():
        if used or column in table.columns:
            cells = [_policy_cell(getattr(policy, field)) for policy in table.policy]
            out.append((column, cells))
    return out


def _policy_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, CompletionMode):
        return value.name.lower().replace("_", "-") if value else ""
    return value if isinstance(value, str) else repr(value)


def _group_cells(table: FileTable) -> list[tuple[str, list[str]]]:
    cells: dict[str, list[str]] = {group: [""] * len(table) for group in table.groups}
    for row, tags in enumerate(table.tags):
        by_group: dict[str, list[str]] = {}
        for group, tag in tags:
            by_group.setdefault(group, []).append(_quote_tag(tag))
        for group, quoted in by_group.items():
            if group not in cells:
                cells[group] = [""] * len(table)
            cells[group][row] = ",".join(quoted)
    for group in cells:
        if problem := group_problem(group):
            raise InvalidArgument(
                f"the tag group {group!r} {problem}: give it another name first", field="groups"
            )
    return list(cells.items())


def _quote_tag(tag: str) -> str:
    plain = tag == tag.strip() and tag.casefold() not in NO_TAG
    if plain and "," not in tag and '"' not in tag:
        return tag
    return '"' + tag.replace('"', '""') + '"'
