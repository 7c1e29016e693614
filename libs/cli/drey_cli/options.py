"""Options and arguments as the commands declare them, and the help that is made of them.

Click does the rest. Typer, which wraps it, loads Pydantic for each run: half of the start time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from drey_cli.errors import usage_error
from drey_client.settings import parse_span

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

CHOOSING = "Choosing PVs"
GATES = "What must hold"
POLICY = "How a restore treats it"
CONNECTION = "Output and connection"
PANELS = ("Options", GATES, POLICY, CHOOSING, CONNECTION)
"""Headings of `--help`, in its order."""


class PanelOption(click.Option):
    """An option that stands under one of the `PANELS`."""

    def __init__(self, *declaration: Any, panel: str = "Options", **more: Any) -> None:
        super().__init__(*declaration, **more)
        self.panel = panel


class HelpfulCommand(click.Command):
    """A command whose help has its options by panel, what it gives as JSON, and examples."""

    def __init__(
        self, *definition: Any, gives: str = "", examples: Sequence[str] = (), **more: Any
    ) -> None:
        super().__init__(*definition, **more)
        self.gives = gives
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what it gives as JSON, and the examples as they are typed."""
        if self.gives:
            with formatter.section("With --json"):
                formatter.write_text(self.gives)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"  $ {example}\n")


def write_options(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    """Write a section for each panel of the options of a command."""
    sections: dict[str, list[tuple[str, str]]] = {panel: [] for panel in PANELS}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and isinstance(parameter, click.Option):
            sections[getattr(parameter, "panel", "Options")].append(record)
    for heading, records in sections.items():
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)


option = partial(click.option, cls=PanelOption)
argument = click.argument
gate_option = partial(option, panel=GATES)


def member_option(name: str, panel: str = "Options", *, hidden: bool = False) -> Any:
    """As `option`, for a field of what `packed_options` packs as `name`: flag, field, help."""

    def make_option(flag: str, field: str, text: str, **more: Any) -> Decorator[Any]:
        return option(flag, f"{name}_{field}", panel=panel, hidden=hidden, help=text, **more)

    return make_option


def packed_options(name: str, kind: type[Any], *options: Decorator[Any]) -> Decorator[Any]:
    """Add options that are named `NAME_FIELD`; the function gets them as one `kind`, as `name`."""
    fields = [field.name for field in dataclasses.fields(kind)]

    def decorate_function(function: F) -> F:
        @wraps(function)
        def run(*arguments: Any, **values: Any) -> Any:
            values[name] = kind(**{field: values.pop(f"{name}_{field}") for field in fields})
            return function(*arguments, **values)

        decorated: Any = run
        for each in reversed(options):
            decorated = each(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate_function


def parse_seconds(text: str, *, option: str) -> float:
    """Seconds of a duration; refuses what is negative, not finite, or not a duration."""
    try:
        return parse_span(text)
    except ValueError as error:
        message, remedy = error.args
        raise usage_error(f"{option}: {message}", field=option, remedy=remedy) from error


def to_duration(seconds: float) -> Duration:
    """The protobuf message of a number of seconds, to the nanosecond."""
    from google.protobuf.duration_pb2 import Duration

    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


class SpanType(click.ParamType["Duration"]):
    """A duration as people write it, `500ms`, `2s`, `5m`, `1h`, `30d`, as the protobuf message."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Duration:
        return to_duration(parse_seconds(value, option=option_name(param)))


class MomentType(click.ParamType["Timestamp"]):
    """An ISO time, local where it names no zone, as the protobuf message."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Timestamp:
        from google.protobuf.timestamp_pb2 import Timestamp

        name, stamp = option_name(param), Timestamp()
        try:
            stamp.FromDatetime(datetime.fromisoformat(value).astimezone())
        except (ValueError, OverflowError, OSError) as error:
            raise usage_error(
                f"{name}: {value!r} is not a time",
                field=name,
                remedy="as 2026-11-21 or 2026-11-21T08:00",
            ) from error
        return stamp


def option_name(param: click.Parameter | None) -> str:
    """`--since` of a parameter, or the name of an argument."""
    return param.opts[0] if param is not None else ""


SPAN, MOMENT = SpanType(), MomentType()
COUNT = click.IntRange(min=0)

yes_option = option("--yes", "-y", is_flag=True, help="Do not ask.")
dry_run_option = option("--dry-run", "-n", is_flag=True, help="Only say how many it would be.")
comment_option = option("--comment", default="", help="Comment.")
interval_option = option(
    "--interval", type=SPAN, metavar="TIME", help="Least time between two updates."
)
duration_option = option(
    "--for", "duration", type=SPAN, metavar="TIME", help="Stop after this long. Default: never."
)
reason_option = option("--reason", "-r", default="", help="Why; it is audited.")


def limit_option(most: int | None, what: str) -> Decorator[Any]:
    """`--limit` of a list or a table."""
    return option("--limit", type=COUNT, default=most, metavar="NUMBER", help=f"{what}; 0 is all.")


def choice_of(*names: str) -> click.Choice[str]:
    return click.Choice(names)
