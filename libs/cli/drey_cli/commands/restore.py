"""`drey restore`: plans, and putting a stored state back."""

import typer

from drey_cli.commands import SUMMARIES, restore_plan, restore_run


def register(app: typer.Typer) -> None:
    """Add the `restore` commands."""
    restore = typer.Typer(
        name="restore",
        no_args_is_help=True,
        help=SUMMARIES["restore"],
    )
    restore_plan.register(restore)
    restore_run.register(restore)
    app.add_typer(restore)
