"""Entry point of `drey`: the tree of commands, and how each run of it ends."""

import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from drey_cli.commands import SUMMARIES
from drey_cli.errors import CliError, usage_error
from drey_cli.exits import EXIT_CODE_HELP, ExitCode
from drey_cli.output import Output
from drey_cli.registry import command_app, option_group, take_group, with_signature
from drey_cli.settings import CommonOptions

OPTIONAL = frozenset({"up", "demo"})
"""A distribution of the client alone may leave the stack's own commands out."""


class LazyGroup(TyperGroup):
    """Loads a command when the command line names it: loading all takes longer than most run.

    The way is that of Click's documents, "Lazily Loading Subcommands". For `--help` there is a
    line on each.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the modules of `commands`, in the order of `--help`."""
        return [
            name
            for name in SUMMARIES
            if name not in OPTIONAL or find_spec(f"drey_cli.commands.{name}") is not None
        ]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command as `--help` shows it; None where there is none."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return TyperCommand(cmd_name, help=SUMMARIES[cmd_name])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named, loaded, and the words after it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, None if command is None or name is None else load_command(name), rest


def load_command(name: str) -> Any:
    """The command of a module."""
    command = get_command(import_module(f"drey_cli.commands.{name}").app)
    command.name = name
    return command


def build() -> typer.Typer:
    """The application; its commands are loaded as they are named."""
    app = command_app(
        name="drey", cls=LazyGroup, epilog=EXIT_CODE_HELP, context_settings=_HELP_OPTIONS
    )
    app.callback()(with_signature(_root_command, _root_command, _root_parameters()))
    return app


_HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


def every_command() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command that does something, by its words; for tests and documents."""

    def walk_commands(
        words: tuple[str, ...], command: Any
    ) -> Iterator[tuple[tuple[str, ...], Any]]:
        if not isinstance(command, TyperGroup):
            yield words, command
            return
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from walk_commands((*words, name), command.get_command(context, name))

    for name in SUMMARIES:
        yield from walk_commands((name,), load_command(name))


def _root_command(ctx: typer.Context, version: bool, **values: Any) -> None:
    """Watch a machine that runs on EPICS, snapshot it, compare, and put a state back.

    Every command takes the options below as well, before or after its own.
    """
    ctx.obj = take_group(values, "common", CommonOptions)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        Output().text(f"drey {version('drey-cli')}")
        raise typer.Exit


def _root_parameters() -> list[inspect.Parameter]:
    version = inspect.Parameter(
        "version",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool,
            typer.Option(
                "--version", help="Show the version.", is_eager=True, callback=_show_version
            ),
        ],
    )
    return [version, *option_group("common", CommonOptions, hidden=False)]


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit status. Nothing is raised but defects."""
    out = Output(json="--json" in arguments)
    try:
        result = get_command(build()).main(list(arguments), prog_name="drey", standalone_mode=False)
        # Here, where a reader that has gone is no traceback.
        sys.stdout.flush()
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except typer.TyperException as error:
        return _wrong_usage(error, out)
    except CliError as error:
        out.error(error)
        return error.code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of the pipe has what it wanted; the interpreter must not flush into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.REFUSED
    return int(result or 0)


def _wrong_usage(error: typer.TyperException, out: Output) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        return ExitCode.USAGE
    if out.json:
        out.error(usage_error(error.format_message(), remedy="see --help of the command"))
    else:
        from typer.rich_utils import rich_format_error

        rich_format_error(error)  # type: ignore[arg-type]
    return ExitCode.USAGE


def main() -> None:
    """Entry point of the `drey` script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
