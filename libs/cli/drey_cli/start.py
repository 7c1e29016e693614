"""What the command `drey` begins with: little, so that Ctrl-C is no traceback from the start on."""

import sys


def main() -> None:
    """Load the command line, which takes a moment, and run it."""
    try:
        from drey_cli.main import main as run_command

        run_command()
    except KeyboardInterrupt:
        sys.exit(130)
