"""The options of every command, and the connection that they mean with what is written down."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from drey_cli.errors import usage_error
from drey_client.settings import Connection, ConnectionOptions, ConnectionUnclear, find_connection


@dataclass(frozen=True, slots=True)
class CommonOptions(ConnectionOptions):
    """Options of every command, said at the root or at the command. None: not said."""

    json: bool | None = None
    utc: bool | None = None
    color: bool | None = None

    def merged_over(self, other: "CommonOptions | None") -> "CommonOptions":
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
