"""How the figures grow with the number of PVs: `python -m bench.growth`.

Runs benchmarks at 40,000, 200,000 and 1,000,000 PVs, without their peers, and writes a table and a
picture into `bench/results`. The picture shows the cost for one PV in units of that at the
smallest size: 1 is a cost that grows as the number of PVs does, and what rises above it is a fault.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.report import machine

RESULTS = Path(__file__).parent / "results"
SIZES = (40_000, 200_000, 1_000_000)
NAMES = ("import", "snapshot_image", "snapshot_get", "compare", "plan", "memory", "connect")
MOST = {"connect": 200_000, "plan": 200_000}
"""Sizes that the machine carries where an IOC and its subscriptions run beside the benchmark."""
ALLOWED = 1.25
"""How far above 1 the cost for one PV may be before it is told: the noise of the machine."""

Growth = dict[str, dict[int, float]]
"""Figure (`compare/rows_s`) → PVs → value."""


def measure(names: Sequence[str], sizes: Sequence[int], runs: int) -> tuple[Growth, list[str]]:
    """Run the benchmarks, each in a process of its own; figures, and what could not run."""
    growth: Growth = {}
    failed = []
    with TemporaryDirectory(prefix="drey-growth-") as folder:
        for name in names:
            for pvs in sizes:
                if pvs > MOST.get(name, pvs):
                    continue
                path = Path(folder, f"{name}-{pvs}.json")
                command = [sys.executable, "-m", "bench", name, "--pvs", str(pvs)]
                command += ["--runs", str(runs), "--json", str(path)]
                environment = {**os.environ, "DREY_BENCH_PEERS": "0"}
                if subprocess.run(command, env=environment, check=False).returncode:
                    failed.append(f"{name} at {pvs:,} PVs")
                    continue
                for figure, reported in json.loads(path.read_text())["figures"].items():
                    growth.setdefault(f"{name}/{figure}", {})[pvs] = reported["value"]
    return growth, failed


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
    """The command; exit code 1 when a benchmark could not run."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the results go")
    args = parser.parse_args()
    growth, failed = measure(args.names, sorted(args.sizes), args.runs)
    document: dict[str, Any] = {"figures": growth, "failed": failed, "machine": machine()}
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "growth.json").write_text(json.dumps(document, indent=1) + "\n")
    (args.folder / "growth.md").write_text(table(growth, failed))
    (args.folder / "growth.svg").write_text(picture(growth))
    print((args.folder / "growth.md").read_text())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
