"""`drey pv`: the catalog of PVs, and their live values."""

from drey_cli.commands import SUMMARIES, pv_edit, pv_files, pv_look, pv_watch
from drey_cli.registry import command_app

app = command_app(SUMMARIES["pv"])
for part in (pv_look, pv_watch, pv_edit, pv_files):
    app.add_typer(part.app)
