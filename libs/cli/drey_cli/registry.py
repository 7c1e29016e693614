"""How a command is made: its own parameters, the choice of PVs, and the common options.

A command is a plain function of a `Session`, then a `Choice` where it chooses PVs, then its own
parameters. The decorator gives Typer one signature of all of them.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer

from drey_cli.selection import Choice
from drey_cli.session import Session
from drey_cli.settings import CommonOptions

F = TypeVar("F", bound=Callable[..., None])

SELECTION_PANEL = "Choosing PVs"
COMMON_PANEL = "Output and connection"
_PREFIX = "common_"


def _option(
    *names: str, help: str, hidden: bool = False, panel: str = COMMON_PANEL, **kw: Any
) -> Any:
    return typer.Option(*names, help=help, hidden=hidden, rich_help_panel=panel, **kw)


def common_parameters(*, short: bool) -> list[inspect.Parameter]:
    """The common options; `short` hides from `--help` what the root's help explains."""
    text = dict[str, tuple[Any, Any]](
        json_=(
            bool | None,
            _option("--json", help="One JSON document; streams give one JSON document a line."),
        ),
        utc=(bool | None, _option("--utc", help="Times in UTC, to the nanosecond.")),
        server=(
            str | None,
            _option("--server", metavar="HOST:PORT", help="The server. (env DREY_SERVER)"),
        ),
        key=(
            str | None,
            _option("--key", metavar="SECRET", help="API key. (env DREY_KEY)", hidden=short),
        ),
        key_file=(
            str | None,
            _option(
                "--key-file",
                metavar="FILE",
                help="File that holds the API key. (env DREY_KEY_FILE)",
                hidden=short,
            ),
        ),
        profile=(
            str | None,
            _option(
                "--profile",
                metavar="NAME",
                help="Profile of ~/.config/drey/config.toml. (env DREY_PROFILE)",
                hidden=short,
            ),
        ),
        state=(
            str | None,
            _option(
                "--state",
                metavar="DIR",
                help="State folder of a `drey up`; ./.drey is found by itself. (env DREY_STATE)",
                hidden=short,
            ),
        ),
        tls=(
            bool | None,
            _option("--tls/--no-tls", help="Connect by TLS. (env DREY_TLS)", hidden=short),
        ),
        ca=(
            str | None,
            _option(
                "--ca",
                metavar="FILE",
                help="Certificates to trust, PEM; means --tls. (env DREY_CA)",
                hidden=short,
            ),
        ),
        plaintext=(
            bool | None,
            _option(
                "--plaintext",
                help="Send the key without TLS to another host. (env DREY_PLAINTEXT)",
                hidden=short,
            ),
        ),
        timeout=(
            str | None,
            _option(
                "--timeout",
                metavar="TIME",
                help="Deadline of each call, such as 5s; default 30s. (env DREY_TIMEOUT)",
            ),
        ),
        color=(
            bool | None,
            _option("--color/--no-color", help="Force colour, or none.", hidden=short),
        ),
    )
    # Prefixed, so that a command may have a parameter `key` or `state` of its own.
    return [
        _parameter(_PREFIX + name.rstrip("_"), kind, info, None)
        for name, (kind, info) in text.items()
    ]


def _parameter(name: str, kind: Any, info: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )


def _selection_parameters(named: bool) -> list[inspect.Parameter]:
    def option(*names: str, help: str, **kw: Any) -> Any:
        return _option(*names, help=help, panel=SELECTION_PANEL, **kw)

    many = list[str] | None
    help_ = "Names of PVs or addresses; * and ? make a pattern."
    names = typer.Argument(metavar="PV", help=help_)
    if named:
        names = option("--pv", metavar="PV", help=help_)
    parameters: list[tuple[str, Any, Any, Any]] = [
        ("names", many, names, None),
        (
            "globs",
            many,
            option("--glob", metavar="PATTERN", help="Pattern: *, ?, or one of \\[abc]."),
            None,
        ),
        (
            "tags",
            many,
            option("--tag", metavar="GROUP=TAG[,TAG]", help="Any of the tags; repeated: each."),
            None,
        ),
        ("devices", many, option("--device", metavar="NAME", help="Any of these devices."), None),
        ("all", bool, option("--all", help="Every PV."), False),
        (
            "names_from",
            str,
            option("--names-from", metavar="FILE", help="Names, one a line; - is stdin."),
            "",
        ),
        (
            "except_names",
            many,
            option("--except", metavar="PV", help="Take out this name or pattern."),
            None,
        ),
        (
            "except_globs",
            many,
            option("--except-glob", metavar="PATTERN", help="Take out by pattern."),
            None,
        ),
        (
            "except_tags",
            many,
            option("--except-tag", metavar="GROUP=TAG[,TAG]", help="Take out by tag."),
            None,
        ),
        (
            "except_devices",
            many,
            option("--except-device", metavar="NAME", help="Take out by device."),
            None,
        ),
    ]
    return [_parameter(*each) for each in parameters]


_CHOICE_NAMES = tuple(Choice.__slots__)


def command(
    app: typer.Typer,
    name: str,
    *,
    chooses: bool = False,
    named: bool = False,
    examples: Sequence[str] = (),
) -> Callable[[F], F]:
    """Register a function as the command `name` of `app`; returns the function as it was.

    `chooses`: the function takes a `Choice` after the session; `named`: names of PVs are given by
    `--pv`, for the command's own arguments are many. `examples` are shown by `--help`.
    """

    def decorate(function: F) -> F:
        app.command(name, epilog=_epilog(examples))(_with_options(function, chooses, named))
        return function

    return decorate


def _epilog(examples: Sequence[str]) -> str | None:
    if not examples:
        return None
    lines = ["[bold]Examples[/bold]", *(f"  $ {_escape(example)}" for example in examples)]
    return "\n\n".join(lines)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


def _with_options(function: Callable[..., None], chooses: bool, named: bool) -> Callable[..., None]:
    own = list(inspect.signature(function, eval_str=True).parameters.values())[
        2 if chooses else 1 :
    ]
    selection = _selection_parameters(named) if chooses else []
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    common = common_parameters(short=True)

    def run(**values: Any) -> None:
        ctx: typer.Context = values.pop("ctx")
        options = take_common(values).over(ctx.obj or CommonOptions())
        arguments: list[Any] = []
        if chooses:
            arguments.append(_take_choice(values))
        with Session(options) as session:
            function(session, *arguments, **values)

    parameters = [
        context,
        *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own),
        *selection,
        *common,
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__doc__ = function.__doc__
    run.__name__ = function.__name__
    run.__module__ = function.__module__
    return run


def take_common(values: dict[str, Any]) -> CommonOptions:
    """Take the common options out of a command's values."""
    return CommonOptions(**{n: values.pop(_PREFIX + n) for n in CommonOptions.__slots__})


def _take_choice(values: dict[str, Any]) -> Choice:
    taken = {name: values.pop(name) for name in _CHOICE_NAMES}
    return Choice(**{k: [] if v is None else v for k, v in taken.items()})
