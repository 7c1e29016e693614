"""`python -m drey_monitor`: the monitor service."""

from __future__ import annotations

import gc
import os

# a fail-over waits for this: looking through half-loaded modules for garbage is a tenth of it
gc.disable()
# libca forks to start the CA repeater; gRPC's fork handlers would only complain about it
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

from drey_monitor.app import main  # noqa: E402  see above
from drey_monitor.settings import MonitorSettings  # noqa: E402
from drey_runtime import app  # noqa: E402

gc.freeze()
gc.enable()

if __name__ == "__main__":
    app.run_service("monitor", MonitorSettings, main)
