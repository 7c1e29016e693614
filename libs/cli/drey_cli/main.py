"""Entry point of `drey`: the tree of commands, and how each run of it ends."""

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from drey_cli.commands import MODULES, SUMMARIES
from drey_cli.errors import EXIT_CODE_HELP, CliError, ExitCode, usage_error
from drey_cli.options import write_options
from drey_cli.output import Output
from drey_cli.session import CommonOptions, common_options

_OUTPUT_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
OPTIONAL = frozenset({"up", "demo"})
"""A distribution of the client alone may leave the stack's own commands out."""


class LazyGroup(click.Group):
    """Loads a command when the command line names it: loading all takes longer than most run.

    The way is that of Click's documents, "Lazily Loading Subcommands". For `--help` there is a
    line on each.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        is_whole = find_spec("drey_cli.commands.up") is not None
        return [name for name in SUMMARIES if is_whole or name not in OPTIONAL]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command as `--help` shows it; None where there is none."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return click.Command(cmd_name, short_help=SUMMARIES[cmd_name])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named, loaded, and the words after it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, None if command is None or name is None else load_command(name), rest


def load_command(name: str) -> click.Command:
    """The command, or group of commands, that its modules make."""
    modules = [import_module(f"drey_cli.commands.{each}") for each in MODULES.get(name, (name,))]
    command: click.Command = getattr(modules[0], f"{name}_command")
    return command


def every_command() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Each command that does something, by its words; for tests and documents."""

    def walk_commands(
        words: tuple[str, ...], command: click.Command
    ) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        if not isinstance(command, click.Group):
            yield words, command
            return
        for name, each in command.commands.items():
            yield from walk_commands((*words, name), each)

    for name in SUMMARIES:
        yield from walk_commands((name,), load_command(name))


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        Output().print_text(f"drey {version('drey-cli')}")
        ctx.exit()


@click.group(
    "drey",
    cls=LazyGroup,
    epilog=EXIT_CODE_HELP,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
@common_options(shows_all=True)
@click.pass_context
def drey(ctx: click.Context, common: CommonOptions) -> None:
    """Watch a machine that runs on EPICS, snapshot it, compare, and put a state back.

    Every command takes the options below as well, before or after its own.
    """
    ctx.obj = common


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit status. Nothing is raised but defects."""
    out = Output(json="--json" in arguments)
    try:
        _require_utf8(arguments)
        result: Any = drey.main(list(arguments), prog_name="drey", standalone_mode=False)
        # Here, where a reader that has gone is no traceback.
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        out.print_error(_wrong_usage(error))
        return ExitCode.USAGE
    except CliError as error:
        out.print_error(error)
        return error.code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of the pipe has what it wanted; the interpreter must not flush into it again.
        _forget_output()
        return ExitCode.REFUSED
    except OSError as error:
        if error.errno not in _OUTPUT_FULL:
            raise
        _forget_output()
        Output().print_error(
            CliError(
                f"the output cannot be written whole: {error.strerror}",
                remedy="make room where it goes; what the command did on the server stands",
            )
        )
        return ExitCode.REFUSED
    return int(result or 0)


def _require_utf8(arguments: Sequence[str]) -> None:
    """Bytes that are no text come from shell and environment as lone surrogates."""
    settings = (f"{k}={v}" for k, v in os.environ.items() if k.startswith("DREY_"))
    for text in (*arguments, *settings):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            where = text.partition("=")[0] if text not in arguments else ascii(text[:60])
            raise usage_error(
                f"{where} is not UTF-8 at character {error.start + 1}",
                remedy="see that the terminal, and the file where it comes from, are in UTF-8",
            ) from error


def _forget_output() -> None:
    """What is left of it goes nowhere: the interpreter would try to write it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_missing_streams() -> None:
    """Let standard streams that are closed lead nowhere.

    The next connection would have the number of one of them, and be sent what is written there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _wrong_usage(error: click.ClickException) -> CliError:
    """What Click says is wrong with the command line, as the error that every command ends with."""
    context = getattr(error, "ctx", None)
    parameter = getattr(error, "param", None)
    words = context.command_path if context is not None else "drey"
    field = getattr(error, "option_name", "")
    if parameter is not None:
        is_option = isinstance(parameter, click.Option)
        field = parameter.opts[0] if is_option else parameter.human_readable_name
    return usage_error(error.format_message(), field=field, remedy=f"see {words} --help")


def main() -> None:
    _open_missing_streams()
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
