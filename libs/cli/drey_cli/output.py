"""The one place that writes to the terminal: tables, text, progress, JSON, errors.

What was asked for goes to standard output; notes, progress and errors go to standard error, so
that a pipe carries nothing but the result. With JSON a failure is a result too.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from drey_cli.errors import CliError, usage_error
from drey_cli.render.table import (
    Cell,
    Table,
    escape_text,
    fitted_table,
    folded_columns,
    plain_lines,
    text_of,
    word_widths,
)
from drey_cli.render.words import as_document

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress import Progress
    from rich.table import Table as RichTable

Drawn = Table | Cell | str | Sequence[Table | Cell | str]
"""What a command shows to a person."""
_LONG_TABLE = 2000
_PIPE_WIDTH = 400
_LINES = "\n\t"
"""What a text of several lines may hold besides what is shown."""


class Output:
    """Standard output and error of one command.

    `json`: documents instead of tables. `utc`: times in UTC to the nanosecond. `color`: None lets
    the terminal (and NO_COLOR) decide.
    """

    def __init__(self, *, json: bool = False, utc: bool = False, color: bool | None = None) -> None:
        self.json = json
        self.utc = utc
        self._color = color

    # ---- what the terminal is

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at standard output, and no JSON was asked for."""
        return sys.stdout.isatty() and not self.json

    @property
    def can_ask(self) -> bool:
        """Whether a question would be answered by a person."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.json

    @cached_property
    def rich_console(self) -> Console:
        return self._make_console(stderr=False)

    @cached_property
    def _error_console(self) -> Console:
        return self._make_console(stderr=True)

    def _make_console(self, *, stderr: bool) -> Console:
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPE_WIDTH
        return Console(
            stderr=stderr,
            width=width,
            highlight=False,
            markup=False,
            emoji=False,
            no_color=True if self._color is False else None,
            force_terminal=True if self._color else None,
        )

    # ---- results

    def write_document(self, document: Mapping[str, Any] | Message) -> None:
        """Write one JSON document, indented."""
        self._write_text(_dump_json(document, indent=2))

    def write_line(self, document: Mapping[str, Any] | Message) -> None:
        self._write_text(_dump_json(document, indent=None))

    def print_text(self, text: str, style: str = "") -> None:
        text = escape_text(text, keep=_LINES)
        if style and sys.stdout.isatty():
            self.rich_console.print(text, style=style, soft_wrap=True)
        else:
            self._write_text(text)

    def write_entry(self, document: Mapping[str, Any] | Message, text: str) -> None:
        """Write one entry of a stream: with JSON the document, else the text, as a line."""
        if self.json:
            self.write_line(document)
        else:
            self.print_text(text)

    def draw_parts(self, drawn: Drawn) -> None:
        """Show tables and lines, one below the other."""
        if isinstance(drawn, Table):
            self.print_table(drawn)
        elif isinstance(drawn, Cell):
            self.print_text(drawn.text, drawn.style)
        elif isinstance(drawn, str):
            self.print_text(drawn)
        else:
            for each in drawn:
                self.draw_parts(each)

    def print_table(self, table: Table) -> None:
        """Draw a table; plain aligned lines into a pipe and where it is very long."""
        if table.title:
            self.print_text(table.title, "bold")
        if sys.stdout.isatty() and len(table.rows) <= _LONG_TABLE:
            width = self.rich_console.width
            table = fitted_table(table, width)
            self.rich_console.print(rich_table(table, width))
        elif table.rows or any(column.title for column in table.columns):
            lines = plain_lines(table)
            headed = any(column.title for column in table.columns)
            self._write_text("\n".join(lines if headed else lines[1:]))
        if table.note:
            self.print_text(table.note, "dim")

    def write_raw(self, data: bytes) -> None:
        """Write bytes as they are into a file or a pipe; escaped onto a terminal."""
        if sys.stdout.isatty():
            text = data.decode("utf-8", "backslashreplace")
            sys.stdout.write(escape_text(text, keep="\r\n\t"))
        else:
            sys.stdout.buffer.write(data)
        sys.stdout.flush()

    @staticmethod
    def _write_text(text: str) -> None:
        # A name or label can hold lone surrogates; a result must not die of its own text.
        try:
            sys.stdout.write(text + "\n")
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding or "utf-8"
            safe = text.encode(encoding, "backslashreplace").decode(encoding)
            sys.stdout.write(safe + "\n")
        # somebody may wait for it at the other end of a pipe, or read the file meanwhile
        sys.stdout.flush()

    # ---- beside the result

    def print_note(self, text: str, style: str = "dim") -> None:
        """Say something that is not part of the result; silent with JSON."""
        if not self.json:
            self._error_console.print(escape_text(text, keep=_LINES), style=style, soft_wrap=True)

    def print_error(self, error: CliError) -> None:
        """Show the error: message, field, reason and remedy; with JSON a document, as a result is.

        A script reads one place and finds there either what it asked for or `error`.
        """
        if self.json:
            self.write_line({**error.partial, **error.as_dict()})
            return

        def show_text(text: str, style: str = "") -> None:
            self._error_console.print(escape_text(text, keep=_LINES), style=style, soft_wrap=True)

        show_text(f"error: {error.message}", "bold red")
        if error.field:
            show_text(f"  field:  {error.field}")
        if error.reason not in {"REFUSED", "USAGE"}:
            extra = "".join(
                f" {name}={value}" for name, value in error.metadata.items() if name != "field"
            )
            show_text(f"  reason: {error.reason}{extra}", "dim")
        if error.remedy:
            show_text(f"  remedy: {error.remedy}", "cyan")

    def confirm_action(self, question: str, *, yes: bool) -> bool:
        """Ask on the terminal. `yes` answers beforehand; nobody to ask is a usage error."""
        if yes:
            return True
        if not self.can_ask:
            raise usage_error(
                "this needs a confirmation, and there is no terminal to ask on",
                field="--yes",
                remedy="say --yes",
            )
        return self.ask_question(f"{question} [y/N] ").lower() in {"y", "yes"}

    def ask_question(self, question: str) -> str:
        """Ask on standard error and return the trimmed answer; empty at the end of input."""
        sys.stderr.write(escape_text(question, keep=_LINES))
        sys.stderr.flush()
        _wait_for_input()
        return sys.stdin.readline().strip()

    @contextmanager
    def progress_bars(self, *, of_bytes: bool = False) -> Iterator[Progress]:
        """Progress bars on standard error, shown only to a person; gone at the end."""
        from rich import progress as bars

        columns: list[bars.ProgressColumn] = [
            bars.SpinnerColumn(),
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.DownloadColumn() if of_bytes else bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
        ]
        shown = sys.stderr.isatty() and not self.json
        with bars.Progress(
            *columns, console=self._error_console, transient=True, disable=not shown
        ) as progress:
            yield progress

    def live_display(self, renderable: RenderableType) -> Live:
        """A live display on standard output; refreshed by its user only."""
        from rich.live import Live

        return Live(renderable, console=self.rich_console, auto_refresh=False, screen=False)


def rich_table(table: Table, width: int) -> RichTable:
    """The table for rich, at most `width` wide. Cells are text, never markup.

    Where it is too wide the columns that may be folded become narrower, then ids and times are
    shortened to what is enough, then spare columns left out, then other columns folded: numbers,
    names and ids last of all. Nothing is cut off.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    headed = any(column.title for column in table.columns)
    table = fitted_table(table, width)
    widths = word_widths(table, width)
    folded = folded_columns(table, width)
    if folded is None:
        folded = range(len(table.columns))
    drawn = RichTable(
        box=box.SIMPLE_HEAD if headed else None,
        show_header=headed,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(table.columns):
        drawn.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            no_wrap=widths is None and index not in folded,
            width=None if widths is None else widths[index],
            overflow="fold",
        )
    for row in table.rows:
        drawn.add_row(
            *(Text(text_of(cell), "" if isinstance(cell, str) else cell.style) for cell in row)
        )
    return drawn


def _dump_json(document: Mapping[str, Any] | Message, *, indent: int | None) -> str:
    text = json.dumps(_plain_document(document), indent=indent, ensure_ascii=False, allow_nan=False)
    if text.isprintable():
        return text
    # Only the strings of a document hold such characters, besides the line ends of its layout.
    return "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def _plain_document(document: Any) -> Any:
    """Messages in a document, and in its lists, as dictionaries."""
    if isinstance(document, Mapping):
        return {name: _plain_document(value) for name, value in document.items()}
    if isinstance(document, str | int | float | None):
        return document
    if hasattr(document, "DESCRIPTOR"):
        return as_document(document)
    return [_plain_document(each) for each in document]


def _wait_for_input() -> None:
    """Wait until there is a line to read.

    A signal that comes just before a blocking read does not end that read: Ctrl-C would be heard
    after the answer only. Here a signal is something to read too.
    """
    heard, told = socket.socketpair()
    with heard, told:
        told.setblocking(False)
        before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        try:
            while sys.stdin not in select.select([sys.stdin, heard], [], [])[0]:
                heard.recv(64)
        finally:
            signal.set_wakeup_fd(before)
