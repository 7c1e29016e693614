"""What an import did, as a table."""

from __future__ import annotations

from collections.abc import Iterable

from drey_cli.contracts import catalog_pb2
from drey_cli.render.enums import short_name
from drey_cli.render.table import Cell, Column, Table
from drey_cli.render.times import format_count, plural

_STYLES = {"added": "green", "changed": "yellow", "refused": "red"}


def import_table(rows: Iterable[catalog_pb2.ImportRow]) -> Table:
    """Rows by line, with the column at fault and why."""

    table = Table(
        (
            Column("line", right=True),
            Column("column"),
            Column("PV"),
            Column("what"),
            Column("why", fold=True),
        )
    )
    for row in rows:
        action = short_name(catalog_pb2.ImportAction, row.action)
        table.add(
            str(row.line),
            row.column or row.error.field,
            row.name,
            Cell(action, _STYLES.get(action, "")),
            row.error.message,
        )
    return table


def summary_cell(summary: catalog_pb2.ImportSummary) -> Cell:
    """The summary in one line."""
    counts = ", ".join(
        f"{format_count(count)} {word}"
        for count, word in (
            (summary.added, "added"),
            (summary.changed, "changed"),
            (summary.unchanged, "unchanged"),
            (summary.refused, "refused"),
        )
    )
    if summary.refused:
        return Cell(f"{plural(summary.rows, 'row')}: {counts}; nothing was changed", "bold red")
    if not summary.applied:
        return Cell(f"{plural(summary.rows, 'row')}: {counts}; nothing was changed (dry run)")
    return Cell(f"{plural(summary.rows, 'row')}: {counts}", "green")
