"""`drey restore`: plans, and putting a stored state back."""

from drey_cli.commands import restore_plan, restore_run
from drey_cli.registry import command_app

app = command_app("Put a stored state back: plan, look, run. Only `run` writes to the machine.")
restore_plan.register(app)
restore_run.register(app)
