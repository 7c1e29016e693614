"""`drey snapshot`: taking, looking at, comparing."""

import typer

from drey_cli.commands import (
    SUMMARIES,
    snapshot_compare,
    snapshot_golden,
    snapshot_look,
    snapshot_take,
)


def register(app: typer.Typer) -> None:
    """Add the `snapshot` commands."""
    snapshot = typer.Typer(
        name="snapshot",
        no_args_is_help=True,
        help=SUMMARIES["snapshot"],
    )
    snapshot_take.register(snapshot)
    snapshot_look.register(snapshot)
    snapshot_compare.register(snapshot)
    snapshot_golden.register(snapshot)
    app.add_typer(snapshot)
