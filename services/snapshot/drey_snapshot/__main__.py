"""`python -m drey_snapshot` runs the service."""

from __future__ import annotations

from drey_runtime import app
from drey_snapshot.app import main
from drey_snapshot.settings import SnapshotSettings

if __name__ == "__main__":
    app.run_service("snapshot", SnapshotSettings, main)
