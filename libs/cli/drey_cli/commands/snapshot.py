"""`drey snapshot`: taking, looking at, comparing."""

from drey_cli.commands import (
    SUMMARIES,
    snapshot_compare,
    snapshot_golden,
    snapshot_look,
    snapshot_take,
)
from drey_cli.registry import command_app

app = command_app(SUMMARIES["snapshot"])
for part in (snapshot_take, snapshot_look, snapshot_compare):
    app.add_typer(part.app)
app.add_typer(snapshot_golden.app, name="golden")
