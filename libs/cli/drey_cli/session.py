"""What a command gets: options as said, the output, and the client when it is first used."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from drey_cli.output import Output
from drey_cli.settings import CommonOptions, resolve

if TYPE_CHECKING:
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

    def time(self, ns: int) -> str:
        """A time as this session writes times."""
        from drey_cli.render.times import format_time

        return format_time(ns, utc=self.out.utc)


def new_request_id() -> str:
    """A fresh id for a call that acts."""
    from uuid import uuid4

    return str(uuid4())
