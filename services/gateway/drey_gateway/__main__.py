"""`python -m drey_gateway`."""

from __future__ import annotations

from drey_gateway.app import main
from drey_gateway.settings import GatewaySettings
from drey_runtime.app import run

if __name__ == "__main__":
    run("gateway", GatewaySettings, main)
