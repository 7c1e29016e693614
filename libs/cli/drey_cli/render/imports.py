"""What an import did, as a table."""

from __future__ import annotations

from collections.abc import Iterable

from drey_cli.contracts import catalog_pb2
from drey_cli.render.enums import short_name
from drey_cli.render.table import Cell, Table, number_field, table_of, text_field
from drey_cli.render.times import format_count, plural

_STYLES = {"added": "green", "changed": "yellow", "refused": "red"}


def import_table(rows: Iterable[catalog_pb2.ImportRow]) -> Table:
    """Rows by line, with the column at fault and why."""

    def action_cell(row: catalog_pb2.ImportRow) -> Cell:
        action = short_name(catalog_pb2.ImportAction, row.action)
        return Cell(action, _STYLES.get(action, ""))

    return table_of(
        rows,
        number_field("line", lambda row: str(row.line)),
        text_field("column", lambda row: row.column or row.error.field),
        text_field("PV", lambda row: row.name),
        text_field("what", action_cell),
        text_field("why", lambda row: row.error.message, fold=True),
    )


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
