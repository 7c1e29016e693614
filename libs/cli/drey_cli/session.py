"""What a command gets: options as said, the output, and the client when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import typer

from drey_cli.exits import ExitCode
from drey_cli.output import Output
from drey_cli.render.table import Cell, Table
from drey_cli.render.times import format_time
from drey_cli.settings import CommonOptions, resolve

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from drey_cli.client import Client


class Session:
    """One run of one command. Use as a context manager: it closes the channel."""

    def __init__(self, options: CommonOptions) -> None:
        self.options = options
        self.out = Output(json=bool(options.json), utc=bool(options.utc), color=options.color)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if "client" in self.__dict__:
            self.client.close()

    @cached_property
    def client(self) -> Client:
        """The connection; gRPC is imported when a command first needs it, not for `--help`."""
        from drey_cli.client import Client

        return Client(resolve(self.options))

    def show(
        self, document: Mapping[str, Any] | Message, draw: Callable[[], Table | Cell | str]
    ) -> None:
        """Show a result: with `--json` the document, else what `draw` makes of it."""
        if self.out.json:
            self.out.document(document)
            return
        drawn = draw()
        if isinstance(drawn, Table):
            self.out.table(drawn)
        else:
            self.out.cell(drawn if isinstance(drawn, Cell) else Cell(drawn))

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is changed; the command ends here where the answer is no."""
        if not self.out.confirm(question, yes=yes):
            self.out.note("nothing was changed")
            raise typer.Exit(ExitCode.REFUSED)

    def time(self, ns: int) -> str:
        """A time as this session writes times."""
        return format_time(ns, utc=self.out.utc)


def new_request_id() -> str:
    """A fresh id for a call that acts."""
    return str(uuid4())
