"""`drey pv import|export`: files of PVs, and what an import did as a table."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from drey_cli.commands.pv import pv_command
from drey_cli.contracts import catalog_pb2, catalog_service_pb2, selector_pb2
from drey_cli.errors import CliError, ExitCode, usage_error
from drey_cli.options import argument, option
from drey_cli.render.table import Cell, Table, name_field, number_field, table_of, text_field
from drey_cli.render.words import format_count, plural, short_name
from drey_cli.selection import Choice, choosing
from drey_cli.session import CliSession, command, end_with
from drey_client.errors import ClientError

_SHOWN_ROWS = 50


@command(
    "import",
    pv_command,
    gives="{rows, summary}",
    examples=(
        "drey pv import machine.csv --dry-run",
        "drey pv import machine.csv",
        "zcat machine.csv.gz | drey pv import -",
    ),
)
@argument("file", help="The file; - is standard input.")
@option("--dry-run", "-n", is_flag=True, help="Only say what would be done.")
@option("--keep-existing", is_flag=True, help="Leave PVs that are there as they are.")
@option("--changes", is_flag=True, help="Show changed rows as well, not only refused ones.")
def import_pvs(
    session: CliSession, file: str, dry_run: bool, keep_existing: bool, changes: bool
) -> None:
    """Import a CSV file of PVs: all of it, or, when any row is refused, nothing."""
    from drey_client.pv_files import import_requests, read_import

    client = session.client
    name = "" if file == "-" else Path(file).name
    with _open_source(file) as source, session.out.progress_bars(of_bytes=True) as progress:
        size = None if file == "-" else Path(file).stat().st_size
        task = progress.add_task("sending", total=size)

        def show_sent(count: int) -> None:
            progress.advance(task, count)

        requests = import_requests(
            source, name, dry_run=dry_run, keep_existing=keep_existing, on_sent=show_sent
        )
        with client.exchange_messages(client.catalog.ImportPvs, requests) as answers:
            try:
                done = read_import(answers)
            except ClientError as error:
                raise CliError(
                    error.message, reason=error.reason, remedy="see drey job list"
                ) from error
    rows, summary = done.rows, done.summary
    shown = [row for row in rows if changes or row.HasField("error")]
    most = _SHOWN_ROWS if session.out.is_terminal else len(shown)
    session.show_document(
        {"rows": rows, "summary": summary}, lambda: draw_import(shown, summary, most)
    )
    if summary.refused:
        end_with(ExitCode.REFUSED)


def _open_source(file: str) -> BinaryIO:
    if file == "-":
        # Wrapped anew so that leaving the `with` does not close the process's own input.
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise usage_error(
            f"cannot read {file}: {error.strerror}",
            field="FILE",
            remedy="name a file that you may read, or - for standard input",
        ) from error


@command(
    "export",
    pv_command,
    gives="{file, bytes}",
    examples=("drey pv export -o machine.csv", "drey pv export --tag Area=LI21 > li21.csv"),
)
@choosing
@option("--output", "-o", default="-", metavar="FILE", help="Default: standard output.")
def export_catalog(session: CliSession, choice: Choice, output: str) -> None:
    """Export PVs as a CSV file that `drey pv import` takes back. Without a choice: every PV.

    With --json: what was written where; the file itself needs --output then.
    """
    if session.out.json and output == "-":
        raise usage_error(
            "the file cannot be on standard output beside JSON",
            field="--output",
            remedy="say --output FILE, or leave --json out",
        )
    client = session.client
    request = catalog_service_pb2.ExportPvsRequest(
        selector=choice.optional_selector() or selector_pb2.Selector(all=True),
        format=catalog_pb2.FILE_FORMAT_CSV,
    )
    with client.stream_method(client.catalog.ExportPvs, request) as stream:
        chunks = (message.data for message in stream)
        if output == "-":
            for chunk in chunks:
                session.out.write_raw(chunk)
            return
        count = write_whole(Path(output), chunks)
    session.show_document({"file": output, "bytes": count}, lambda: f"{output}: {count} bytes")


def write_whole(path: Path, chunks: Iterator[bytes]) -> int:
    """Write a file that is there whole or not at all; returns its size in bytes."""
    partial = path.with_name(f".{path.name}.part")
    count = 0
    try:
        with partial.open("wb") as file:
            for chunk in chunks:
                count += file.write(chunk)
        partial.replace(path)
    except OSError as error:
        raise CliError(
            f"cannot write {path}: {error.strerror}",
            field="--output",
            remedy="name a file in a folder that you may write",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return count


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
        name_field("PV", lambda row: row.name),
        text_field("what", action_cell),
        text_field("why", lambda row: row.error.message, fold=True),
    )


def draw_import(
    shown: list[catalog_pb2.ImportRow], summary: catalog_pb2.ImportSummary, most: int
) -> list[Table | Cell | str]:
    """Rows of an import, at most so many, and what became of it."""
    drawn: list[Table | Cell | str] = []
    if shown:
        table = import_table(shown[:most])
        if len(shown) > most:
            table.note = f"… {plural(len(shown) - most, 'more row')}; --json has all"
        drawn.append(table)
    drawn.append(summary_cell(summary))
    if summary.tag_groups_added:
        drawn.append(f"new tag groups: {', '.join(summary.tag_groups_added)}")
    return drawn


def summary_cell(summary: catalog_pb2.ImportSummary) -> Cell:
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
