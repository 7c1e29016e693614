"""`python -m drey_restore` runs the service."""

from __future__ import annotations

from drey_restore.app import main
from drey_restore.settings import RestoreSettings
from drey_runtime import app


async def _main(settings: RestoreSettings, running: app.App) -> None:
    await main(settings, running)


if __name__ == "__main__":
    app.run_service("restore", RestoreSettings, _main)
