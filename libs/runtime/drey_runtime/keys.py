"""Make the keys by which the services believe each other.

    python -m drey_runtime.keys FOLDER gateway snapshot monitor restore

writes `<service>.pem` (private) for each that has none, and `trusted.json` (public keys of all).
"""

from __future__ import annotations

import sys
from pathlib import Path

from drey_runtime.auth import make_keys


def main() -> int:
    """The command; exit code 2 without arguments."""
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    make_keys(Path(sys.argv[1]), sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
