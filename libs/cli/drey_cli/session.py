"""What a command gets, and how a function becomes a command: common options, output, client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drey_cli.errors import CliError, ExitCode, usage_error
from drey_cli.options import (
    CONNECTION,
    Decorator,
    HelpfulCommand,
    member_option,
    packed_options,
)
from drey_cli.output import Drawn, Output
from drey_client.settings import Connection, ConnectionOptions, ConnectionUnclear, find_connection

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from drey_cli.client import CliClient


@dataclass(frozen=True, slots=True)
class CommonOptions(ConnectionOptions):
    """Options of every command, said at the root or at the command. None: not said."""

    json: bool | None = None
    utc: bool | None = None
    color: bool | None = None

    def merged_over(self, other: CommonOptions | None) -> CommonOptions:
        """These options, and those of `other` where these say nothing."""
        own_options = {field.name: getattr(self, field.name) for field in fields(self)}
        named = {name: value for name, value in own_options.items() if value is not None}
        return replace(other or CommonOptions(), **named)


def resolve_connection(
    options: CommonOptions, *, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> Connection:
    """As `find_connection`; what is not clear is an error of usage."""
    try:
        return find_connection(options, environ=environ, folder=folder)
    except ConnectionUnclear as error:
        raise usage_error(error.message, field=error.field, remedy=error.remedy) from error


class CliSession:
    """One run of one command. Use as a context manager: it closes the channel."""

    def __init__(self, options: CommonOptions) -> None:
        self.options = options
        self.out = Output(json=bool(options.json), utc=bool(options.utc), color=options.color)

    def __enter__(self) -> CliSession:
        return self

    def __exit__(self, *_: object) -> None:
        if "client" in self.__dict__:
            self.client.close_channel()

    @cached_property
    def client(self) -> CliClient:
        """The connection; gRPC is imported when a command first needs it, not for `--help`."""
        from drey_cli.client import CliClient

        return CliClient(resolve_connection(self.options))

    def find_server_again(self) -> CliClient:
        """The connection, to where the server is written down now.

        A stack that was started again may have another port; an old client would ask the old one
        for ever. While nothing is written down the connection stays as it is.
        """
        with suppress(CliError):
            connection = resolve_connection(self.options)
            if connection != self.client.connection:
                self.client.move_to(connection)
        return self.client

    def show_document(
        self, document: Mapping[str, Any] | Message, draw: Callable[[], Drawn]
    ) -> None:
        """Show a result: with `--json` the document, else what `draw` makes of it."""
        if self.out.json:
            self.out.write_document(document)
        else:
            self.out.draw_parts(draw())

    def confirm_action(self, question: str, *, yes: bool) -> None:
        """Ask before something is changed; the command ends here where the answer is no."""
        if not self.out.confirm_action(question, yes=yes):
            self.out.print_note("nothing was changed")
            end_with(ExitCode.REFUSED)


def end_with(code: ExitCode) -> None:
    """End the command by its exit code, where its result was shown."""
    if code:
        raise click.exceptions.Exit(code)


def common_options(*, shows_all: bool) -> Decorator[Any]:
    """The options of every command; `drey --help` shows all, the help of a command the usual."""
    usual = member_option("common", CONNECTION)
    rare = member_option("common", CONNECTION, hidden=not shows_all)
    flag = {"is_flag": True, "default": None}
    streams = "One JSON document; streams give one JSON document a line."
    deadline = "Deadline of each call, such as 5s; default 30s. (env DREY_TIMEOUT)"
    profile = "Profile of ~/.config/drey/config.toml. (env DREY_PROFILE)"
    state = "State folder of a `drey up`; ./.drey is found by itself. (env DREY_STATE)"
    trusted = "Certificates to trust, PEM; means --tls. (env DREY_CA)"
    plaintext = "Send the key without TLS to another host. (env DREY_PLAINTEXT)"
    key_file = "File that holds the API key. (env DREY_KEY_FILE)"
    return packed_options(
        "common",
        CommonOptions,
        usual("--json", "json", streams, **flag),
        usual("--utc", "utc", "Times in UTC, to the nanosecond.", **flag),
        usual("--server", "server", "The server. (env DREY_SERVER)", metavar="HOST:PORT"),
        usual("--timeout", "timeout", deadline, metavar="TIME"),
        rare("--key", "key", "API key. (env DREY_KEY)", metavar="SECRET"),
        rare("--key-file", "key_file", key_file, metavar="FILE"),
        rare("--profile", "profile", profile, metavar="NAME"),
        rare("--state", "state", state, metavar="DIR"),
        rare("--tls/--no-tls", "tls", "Connect by TLS. (env DREY_TLS)", default=None),
        rare("--ca", "ca", trusted, metavar="FILE"),
        rare("--plaintext", "plaintext", plaintext, **flag),
        rare("--color/--no-color", "color", "Force color, or none.", default=None),
    )


_COMMAND_OPTIONS = common_options(shows_all=False)


def group(summary: str) -> click.Group:
    """A word that stands before commands."""
    return click.Group(help=summary, no_args_is_help=True)


def command(
    name: str, parent: click.Group | None = None, *, gives: str, examples: Sequence[str] = ()
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function of a `CliSession`, with the common options, under `parent`.

    `examples` are shown by `--help`, and what it `gives` as JSON: the names of the fields of one
    object, `{total, pvs}`, or the name of a public message; `a line`, where there may be many.
    """

    def decorate_function(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(*, common: CommonOptions, **values: Any) -> None:
            with CliSession(common.merged_over(click.get_current_context().obj)) as session:
                function(session, **values)

        summary = (function.__doc__ or "").partition("\n")[0]
        built = click.command(
            name, cls=HelpfulCommand, short_help=summary, gives=gives, examples=examples
        )(_COMMAND_OPTIONS(run))
        if parent is not None:
            parent.add_command(built)
        return built

    return decorate_function
