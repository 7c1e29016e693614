"""Run by the wheel's build: the native table loads, and libca and libCom are there once."""

import re
from pathlib import Path

import aioca  # noqa: F401  loads libca too

from drey_ca._native import Table

mapped = Path("/proc/self/maps")
if mapped.exists():
    for name in ("libca", "libCom"):
        found = set(re.findall(rf"/\S*/{name}\.so\S*", mapped.read_text()))
        if len(found) != 1:
            raise SystemExit(f"{name} is loaded from {sorted(found)}")
assert Table is not None
