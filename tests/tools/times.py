"""Runs the suite N times and writes a table of what came out, for "twenty times in a row".

    python tests/tools/times.py 20                     the whole suite, twenty times
    python tests/tools/times.py 5 --busy 3             beside three busy loops
    python tests/tools/times.py 5 -- tests/unit -k law what pytest shall run

One row a run: passed, failed, errors, skipped, seconds, load of the machine at its end, and the
names of what did not pass at the first look. The table is written after each run to `--table`
(`.cache/test-times.md` by default), with the whole output of each run beside it. Exit code 1 if a
run did not pass.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from suite import PYTEST, suite

ROOT = Path(__file__).resolve().parents[2]
COUNTED = ("passed", "failed", "error", "skipped")
NO_TESTS_RAN = 5


@dataclass
class Run:
    """What one run of the suite came to."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    names: list[str] = field(default_factory=list)
    seconds: float = 0.0
    load: float = 0.0
    broken: bool = False
    """It ended without counts."""

    @property
    def good(self) -> bool:
        """Something ran and nothing failed."""
        bad = self.counts["failed"] or self.counts["error"] or self.broken
        return not bad and self.counts["passed"] > 0

    def add_output(self, output: str, exit_code: int) -> None:
        """Count what pytest said."""
        *_, last = [line for line in output.splitlines() if line.strip()] or [""]
        found = re.findall(r"(\d+) (passed|failed|error|skipped)", last)
        self.broken |= not found and exit_code != NO_TESTS_RAN
        self.broken |= exit_code not in {0, NO_TESTS_RAN} and not re.search("failed|error", last)
        for number, what in found:
            self.counts[what] += int(number)
        self.names += re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Processes that do nothing but take processors."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run_suite(arguments: list[str], log: Path) -> Run:
    """One run, its output in `log`."""
    run, began = Run(), time.monotonic()
    with log.open("w") as file:
        done = subprocess.run(
            [*PYTEST, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        file.write(done.stdout)
        run.add_output(done.stdout, done.returncode)
    run.seconds, run.load = time.monotonic() - began, os.getloadavg()[0]
    return run


def format_table(runs: list[Run], busy: int) -> str:
    """The table in Markdown."""
    good = sum(run.good for run in runs)
    lines = [
        f"{good} of {len(runs)} runs passed, beside {busy} busy loops, "
        f"{os.cpu_count()} processors.",
        "",
        "| run | passed | failed | errors | skipped | seconds | load | not passed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, run in enumerate(runs, 1):
        counts = " | ".join(str(run.counts[name]) for name in COUNTED)
        names = "<br>".join(run.names) + (" (ended without counts)" if run.broken else "")
        lines.append(f"| {number} | {counts} | {run.seconds:.0f} | {run.load:.1f} | {names} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Parse, run, write; the exit code."""
    parser = argparse.ArgumentParser(description="Run the suite several times and count.")
    parser.add_argument("times", type=int)
    parser.add_argument("--busy", type=int, default=0, help="busy loops beside it")
    parser.add_argument("--table", type=Path, default=ROOT / ".cache/test-times.md")
    parser.epilog = "What follows -- goes to pytest, instead of the whole suite."
    given = sys.argv[1:]
    split = given.index("--") if "--" in given else len(given)
    options, for_pytest = parser.parse_args(given[:split]), given[split + 1 :]
    arguments = for_pytest or suite(3)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    with busy_loops(options.busy):
        for number in range(1, options.times + 1):
            log = options.table.with_name(f"{options.table.stem}-{number}.log")
            runs.append(run_suite(arguments, log))
            options.table.write_text(format_table(runs, options.busy))
            print(format_table(runs, options.busy).splitlines()[-1], flush=True)
    print(options.table)
    return 0 if all(run.good for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
