"""`drey restore`: plans, and putting a stored state back."""

from drey_cli.commands import SUMMARIES, restore_approve, restore_plan, restore_run
from drey_cli.registry import command_app

app = command_app(SUMMARIES["restore"])
restore_plan.register(app)
restore_run.register(app)
restore_approve.register(app)
