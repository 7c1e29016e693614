"""`python -m drey_monitor`: the monitor service."""

from __future__ import annotations

import os

# libca forks to start the CA repeater; gRPC's fork handlers would only complain about it
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

from drey_monitor.app import main
from drey_monitor.settings import Settings
from drey_runtime import app

if __name__ == "__main__":
    app.run("monitor", Settings, main)
