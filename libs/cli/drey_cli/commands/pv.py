"""`drey pv`: the catalog of PVs, and their live values."""

import typer

from drey_cli.commands import SUMMARIES, pv_edit, pv_files, pv_look, pv_watch


def register(app: typer.Typer) -> None:
    """Add the `pv` commands."""
    pv = typer.Typer(
        name="pv",
        no_args_is_help=True,
        help=SUMMARIES["pv"],
    )
    pv_look.register(pv)
    pv_watch.register(pv)
    pv_edit.register(pv)
    pv_files.register(pv)
    app.add_typer(pv)
