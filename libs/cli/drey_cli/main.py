"""Entry point of `drey`: the tree of commands, and how each run of it ends."""

import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import typer
from typer.main import get_command

from drey_cli.commands import SUMMARIES
from drey_cli.errors import CliError
from drey_cli.exits import EXIT_CODE_HELP, ExitCode
from drey_cli.output import Output
from drey_cli.registry import common_parameters, take_common

# A distribution of the client alone may leave the stack's own commands out.
OPTIONAL = frozenset({"up", "demo"})


def build(words: Sequence[str] | None = None) -> typer.Typer:
    """The application. Each module of `commands` has `register(app)`.

    `words`: the command line; a command that is not among them is only a line of help then, for
    importing them all takes longer than most of them run. None: all of them whole.
    """
    app = typer.Typer(
        name="drey",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=EXIT_CODE_HELP,
    )
    app.callback()(_root())
    for name, summary in SUMMARIES.items():
        if name in OPTIONAL and find_spec(f"drey_cli.commands.{name}") is None:
            continue
        if words is None or name in words:
            importlib.import_module(f"drey_cli.commands.{name}").register(app)
        else:
            app.command(name, help=summary)(_not_loaded)
    return app


def _not_loaded() -> None:
    """Stands for a command that the command line does not name."""
    raise AssertionError("a command ran that the command line does not name")


def _root() -> Any:
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    version = inspect.Parameter(
        "version",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=_version_annotation(),
    )

    def root(**values: Any) -> None:
        """Watch a machine that runs on EPICS, snapshot it, compare, and put a state back.

        Every command takes the options below as well, before or after its own.
        """
        ctx: typer.Context = values.pop("ctx")
        values.pop("version")
        ctx.obj = take_common(values)

    parameters = [context, version, *common_parameters(short=False)]
    root.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    root.__annotations__ = {each.name: each.annotation for each in parameters}
    return root


def _version_annotation() -> Any:
    from typing import Annotated

    return Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ]


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        Output().text(f"drey {version('drey-cli')}")
        raise typer.Exit


def _words(arguments: Sequence[str]) -> Sequence[str] | None:
    """The words that can name commands; None (all) while a shell asks for completions."""
    return None if "_DREY_COMPLETE" in os.environ else arguments


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit status. Nothing is raised but defects."""
    out = Output(json="--json" in arguments)
    try:
        result = get_command(build(_words(arguments))).main(
            list(arguments), prog_name="drey", standalone_mode=False
        )
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
        out.error(CliError(error.format_message(), reason="USAGE", code=ExitCode.USAGE))
    else:
        from typer.rich_utils import rich_format_error

        rich_format_error(error)  # type: ignore[arg-type]
    return ExitCode.USAGE


def main() -> None:
    """Entry point of the `drey` script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
