"""How a command is made: a plain function whose parameters are its options, and groups of options.

A group is a dataclass whose fields are annotated as a parameter of a command is:
`json: Annotated[bool, typer.Option("--json")] = False`. A parameter that has such a class as its
type becomes the options of its fields; the function gets the object.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from copy import copy
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from drey_cli.session import Session
from drey_cli.settings import CommonOptions

F = TypeVar("F", bound=Callable[..., None])


def command_app(summary: str = "", **options: Any) -> typer.Typer:
    """An application without commands so far."""
    return typer.Typer(
        help=summary,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        **options,
    )


def command(app: typer.Typer, name: str, *, examples: Sequence[str] = ()) -> Callable[[F], F]:
    """Register a function of a `Session` as the command `name`; gives the function as it was.

    The common options are added to its own. `examples` are shown by `--help`.
    """

    def decorate_function(function: F) -> F:
        flat, groups = flatten_options(function)
        common = option_group("common", CommonOptions)

        def run(ctx: typer.Context, **values: Any) -> None:
            common_values = take_group(values, "common", CommonOptions)
            for group, kind in groups.items():
                values[group] = take_group(values, group, kind)
            with Session(common_values.over(ctx.obj or CommonOptions())) as session:
                function(session, **values)

        wrapped = with_signature(run, function, [*flat[1:], *common])
        app.command(name, epilog=_examples_text(examples))(wrapped)
        return function

    return decorate_function


def flatten_options(
    function: Callable[..., None],
) -> tuple[list[inspect.Parameter], dict[str, type[Any]]]:
    """Parameters of a function, each group of options as its options, and the groups by name."""
    own, grouped = [], []
    groups: dict[str, type[Any]] = {}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            groups[parameter.name] = kind
            grouped += option_group(parameter.name, kind)
        else:
            own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    return [*own, *grouped], groups


@cache
def option_group(group: str, kind: type[Any], *, hidden: bool = True) -> list[inspect.Parameter]:
    """A parameter for each field, named `GROUP_FIELD`; `hidden`: leave out what is marked so."""
    hints = get_type_hints(kind, include_extras=True)
    parameters = []
    for field in dataclasses.fields(kind):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        annotation = hints[field.name]
        if not hidden:
            (info,) = annotation.__metadata__
            shown = copy(info)
            shown.hidden = False
            annotation = Annotated[get_args(annotation)[0], shown]
        parameters.append(
            inspect.Parameter(
                f"{group}_{field.name}",
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=annotation,
            )
        )
    return parameters


def take_group(values: dict[str, Any], group: str, kind: type[Any]) -> Any:
    """Take the values of a group out of those of a command."""
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: values.pop(f"{group}_{name}") for name in names})


def with_signature(
    run: Callable[..., None], function: Callable[..., None], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    """`run` as Typer sees it: the context, then `parameters`, and the text of `function`."""
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    run.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (context, *parameters)}
    run.__doc__ = function.__doc__
    return run


def _examples_text(examples: Sequence[str]) -> str | None:
    if not examples:
        return None
    shown = (f"  $ {example.replace('[', chr(92) + '[')}" for example in examples)
    return "\n\n".join(["[bold]Examples[/bold]", *shown])
