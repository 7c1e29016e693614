"""`python -m drey_gateway`."""

from __future__ import annotations

from drey_gateway.app import main
from drey_gateway.settings import GatewaySettings
from drey_runtime.app import run_service

if __name__ == "__main__":
    run_service("gateway", GatewaySettings, main)
