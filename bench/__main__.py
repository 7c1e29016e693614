"""`python -m bench NAME [--pvs N] [--runs N] --json FILE`, or `all`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from bench.report import Result, write

NAMES = {
    "import": "import_",
    "snapshot_image": "snapshot_image",
    "snapshot_get": "snapshot_get",
    "compare": "compare",
    "plan": "plan",
    "storage": "storage",
    "memory": "memory",
    "connect": "connect",
    "channels": "channels",
    "updates": "updates",
    "latency": "latency",
    "snapshot_read": "snapshot_read",
    "restore": "restore",
    "restore_undo": "restore_undo",
    "watching": "watching",
    "abort": "abort",
    "failover": "failover",
    "history": "history",
    "watchers": "watchers",
    "fanout": "fanout",
    "drift": "drift",
    "web": "web",
}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """The command; exit code 1 when a benchmark failed, whatever its figures."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all"])
    parser.add_argument("--pvs", type=int, default=40_000)
    parser.add_argument("--runs", type=int, default=5, help="runs of each; at least five count")
    parser.add_argument("--json", type=Path, help="write the result here")
    args = parser.parse_args()
    if args.name == "all":
        return _run_all(args.pvs, args.runs)
    module = importlib.import_module(f"bench.benchmarks.{NAMES[args.name]}")
    result = asyncio.run(_until_told(module.run(args.pvs, args.runs)))
    print(result.table())
    if args.json:
        write(args.json, result)
    return 0


async def _until_told(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a benchmark; SIGTERM ends it as Ctrl-C does, with everything that it started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def _run_all(pvs: int, runs: int) -> int:
    """Each in a process of its own, so that none finds another's memory or libca."""
    failed = []
    for name in NAMES:
        command = [sys.executable, "-m", "bench", name, "--pvs", str(pvs), "--runs", str(runs)]
        path = RESULTS / f"{name}.json"
        if subprocess.run([*command, "--json", str(path)], check=False).returncode:
            failed.append(name)
    for name in failed:
        print(f"{name} FAILED", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
