"""What the import of nats-py brings along, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys

SERVICES = "import drey_gateway.app, drey_monitor.app, drey_restore.app, drey_snapshot.app"


def test_no_service_loads_aiohttp_that_does_not_use_it() -> None:
    """It is there for who does: the monitor that keeps its leases in Kubernetes."""
    code = (
        f"import sys\n{SERVICES}\n"
        "print('aiohttp' in sys.modules)\n"
        "import drey_runtime.lease_kubernetes as kubernetes\n"
        "print(kubernetes.aiohttp is sys.modules['aiohttp'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
