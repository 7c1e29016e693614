"""One page for the logbook: a file that loads nothing, whatever a name or a comment holds."""

from __future__ import annotations

from html import escape

from drey_cli.render.table import Table, text_of

PAGE_END = "</body></html>\n"
_STYLE = """
:root { color-scheme: light dark }
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #8884;
  vertical-align: top }
th { border-bottom: 2px solid #8888; white-space: nowrap }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.pv { font-family: ui-monospace, monospace; white-space: nowrap }
td { overflow-wrap: anywhere }
.warnings { border-left: 5px solid #c60; padding: .1rem 1rem; background: #f902 }
.alarm { color: #c00; font-weight: 600 }
@media (prefers-color-scheme: dark) { .alarm { color: #f77 } }
@media print { body { margin: 0; max-width: none } tr { break-inside: avoid } }
"""


def page_head(title: str, heading: str) -> str:
    """All up to the first section."""
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
            " style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(heading)}</h1>",
        )
    )


def html_table(table: Table) -> str:
    """A table, without a head where its columns have no titles."""
    headed = any(column.title for column in table.columns)
    lines = ["<table>"]
    if headed:
        head = "".join(f"<th>{escape(column.title)}</th>" for column in table.columns)
        lines.append(f"<tr>{head}</tr>")
    for row in table.rows:
        tds = (
            f"<td{f' class={column.css}' if column.css else ''}>{escape(text_of(cell))}</td>"
            for column, cell in zip(table.columns, row, strict=True)
        )
        lines.append(f"<tr>{''.join(tds)}</tr>")
    return "\n".join([*lines, "</table>"])
