"""How the figures grow with the number of PVs: `python -m bench.growth`.

Runs benchmarks at 40,000, 200,000 and 1,000,000 PVs, without their peers, and writes a table and a
picture into `bench/results`. The picture shows the cost for one PV in units of that at the
smallest size: 1 is a cost that grows as the number of PVs does, and what rises above it is a fault.

The small sizes come first, and after each benchmark everything is written, so that a run that is
cut short loses nothing. What an earlier run wrote into the folder stays until it is measured again:
`--names import --sizes 1000000` measures that alone. `--only-missing` measures what is not there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from bench.report import machine

RESULTS = Path(__file__).parent / "results"
SIZES = (40_000, 200_000, 1_000_000)
NAMES = ("import", "snapshot_image", "snapshot_get", "compare", "plan", "memory", "connect")
ONCE_FROM = {"import": 1_000_000, "memory": 1_000_000, "plan": 1_000_000, "connect": 1_000_000}
"""Sizes from which a benchmark runs once: what takes it minutes is not the noise of one run."""
ALLOWED = 1.25
"""How far above 1 the cost for one PV may be before it is told: the noise of the machine."""
_END_S = 60.0
"""What a benchmark has to end everything that it started, once it is told to."""

Growth = dict[str, dict[int, float]]
"""Figure (`compare/rows_s`) → PVs → value."""


@dataclass
class Measured:
    """What was measured: figures, how (`compare at 40,000 PVs` → runs, seconds), what failed."""

    growth: Growth = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """What an earlier run wrote; nothing where there is no file."""
        if not path.exists():
            return cls()
        document = json.loads(path.read_text())
        figures = document["figures"].items()
        growth = {name: {int(n): v for n, v in values.items()} for name, values in figures}
        return cls(growth, document["rows"], document["failed"])

    def write(self, folder: Path) -> None:
        """Write the document, the table and the picture, each whole or not at all."""
        document = {
            "figures": {name: dict(sorted(values.items())) for name, values in self.growth.items()},
            "rows": self.rows,
            "failed": self.failed,
            "machine": machine(),
        }
        told = [f"{row}: {reason}" for row, reason in self.failed.items()]
        _replace(folder / "growth.json", json.dumps(document, indent=1) + "\n")
        _replace(folder / "growth.md", table(self.growth, told))
        if self.growth:
            _replace(folder / "growth.svg", picture(self.growth))

    def measure(self, name: str, pvs: int, runs: int, timeout: float) -> None:
        """Run one benchmark in a process of its own, at most `timeout` seconds."""
        row = row_name(name, pvs)
        begin = time.monotonic()
        with TemporaryDirectory(prefix="drey-growth-") as folder:
            path = Path(folder, "result.json")
            command = [sys.executable, "-m", "bench", name, "--pvs", str(pvs)]
            command += ["--runs", str(runs), "--json", str(path)]
            reason = _run(command, timeout)
            if reason:
                if row not in self.rows:  # what an earlier run measured is worth more
                    self.failed[row] = reason
                return
            result = json.loads(path.read_text())
        self.failed.pop(row, None)
        self.rows[row] = {
            "runs": runs,
            "seconds": round(time.monotonic() - begin, 1),
            "load_at_start": result["machine"]["load_at_start"],
        }
        for figure, reported in result["figures"].items():
            self.growth.setdefault(f"{name}/{figure}", {})[pvs] = reported["value"]


def row_name(name: str, pvs: int) -> str:
    """A benchmark at a size, for people."""
    return f"{name} at {pvs:,} PVs"


def _run(command: Sequence[str], timeout: float) -> str:
    """Why the command failed; empty when it did not. It is told to end before it is killed."""
    environment = {**os.environ, "DREY_BENCH_PEERS": "0"}
    with subprocess.Popen(command, env=environment) as process:
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
            return f"not done within {timeout:.0f} s"
    return f"exit code {code}" if code else ""


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(path.suffix + ".new")
    new.write_text(text)
    new.replace(path)


def per_pv(values: Mapping[int, float]) -> dict[int, float]:
    """Cost for one PV at each size, in units of that at the smallest."""
    smallest = min(values)
    return {n: v / values[smallest] * smallest / n for n, v in sorted(values.items())}


def table(growth: Growth, failed: Sequence[str]) -> str:
    """The figures and how much more than the number of PVs they grow, as Markdown."""
    sizes = sorted({n for values in growth.values() for n in values})
    head = [f"{n:,} PVs" for n in sizes] + [f"cost of a PV at {n:,}" for n in sizes[1:]]
    lines = [
        "# Growth",
        "",
        "Made by `python -m bench.growth`. The cost of a PV is in units of that at the smallest"
        " size: above 1 a figure grows faster than the number of PVs.",
        "",
        f"| figure | {' | '.join(head)} |",
        f"|---|{'---|' * len(head)}",
    ]
    for name, values in growth.items():
        cost = per_pv(values)
        cells = [f"{values[n]:.3g}" if n in values else "" for n in sizes]
        cells += [_format_cost(cost[n]) if n in cost else "" for n in sizes[1:]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "![Cost of one PV](growth.svg)", ""]
    lines += [f"Could not run: {each}." for each in failed]
    return "\n".join(lines).rstrip() + "\n"


def _format_cost(value: float) -> str:
    return f"**{value:.2f}**" if value > ALLOWED else f"{value:.2f}"


def picture(growth: Growth) -> str:
    """The cost of one PV by size, both axes logarithmic, as SVG."""
    left, top, width, height = 60, 30, 420, 300
    sizes = sorted({n for values in growth.values() for n in values})
    costs = {name: per_pv(values) for name, values in growth.items()}
    highest = max(2.0, *(c for cost in costs.values() for c in cost.values()))
    lowest = min(0.25, *(c for cost in costs.values() for c in cost.values()))

    def x_of(pvs: int) -> float:
        span = math.log(sizes[-1] / sizes[0]) or 1.0
        return left + width * math.log(pvs / sizes[0]) / span

    def y_of(cost: float) -> float:
        return top + height * math.log(highest / cost) / math.log(highest / lowest)

    def svg_parts() -> Iterator[str]:
        for number, (name, cost) in enumerate(
            sorted(costs.items(), key=lambda c: -_last_cost(c[1]))
        ):
            color = f"hsl({number * 360 // len(costs)} 65% 40%)"
            points = " ".join(f"{x_of(n):.1f},{y_of(c):.1f}" for n, c in cost.items())
            yield f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'
            row = top + 14 * number
            yield f'<rect x="{left + width + 20}" y="{row}" width="10" height="10" fill="{color}"/>'
            yield _svg_text(left + width + 36, row + 9, f"{name}  {_last_cost(cost):.2f}")
        yield (
            f'<line x1="{left}" y1="{y_of(1):.1f}" x2="{left + width}" y2="{y_of(1):.1f}"'
            ' stroke="black" stroke-dasharray="4 3"/>'
        )
        for mark in (0.25, 0.5, 1, 2, 4):
            if lowest <= mark <= highest:
                yield _svg_text(left - 8, y_of(mark) + 4, f"{mark:g}", "end")
        for pvs in sizes:
            yield _svg_text(x_of(pvs), top + height + 18, f"{pvs:,}", "middle")
        yield _svg_text(left, top - 12, "cost of one PV, in units of that at the smallest size")

    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 380" font-family="sans-serif"'
        ' font-size="11">\n<rect width="760" height="380" fill="white"/>\n'
        + "\n".join(svg_parts())
        + "\n</svg>\n"
    )


def _last_cost(cost: Mapping[int, float]) -> float:
    return cost[max(cost)]


def _svg_text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def main() -> int:
    """The command; exit code 1 when a benchmark that was asked for could not run."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20, help="for all; the rest is left out")
    parser.add_argument("--only-missing", action="store_true", help="what the folder has not")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the results go")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    measured = Measured.load(args.folder / "growth.json")
    end = time.monotonic() + 60 * args.minutes
    asked = [(name, pvs) for pvs in sorted(args.sizes) for name in args.names]
    for name, pvs in asked:
        if args.only_missing and row_name(name, pvs) in measured.rows:
            continue
        runs = 1 if pvs >= ONCE_FROM.get(name, pvs + 1) else args.runs
        measured.measure(name, pvs, runs, max(end - time.monotonic(), 0))
        measured.write(args.folder)
    print((args.folder / "growth.md").read_text())
    return 1 if {row_name(name, pvs) for name, pvs in asked} & measured.failed.keys() else 0


if __name__ == "__main__":
    sys.exit(main())
