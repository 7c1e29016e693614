"""What a benchmark gives: figures with targets, peers, ratios, and the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WITH_PEERS = os.environ.get("DREY_BENCH_PEERS", "1") != "0"
"""Whether the peers of a benchmark run as well; how ours grow is measured without them."""


@dataclass
class Result:
    """Figures by name: (value, unit, target or None); peers: peer → figure → value."""

    name: str
    pvs: int
    figures: dict[str, tuple[float, str, float | None]] = field(default_factory=dict)
    peers: dict[str, dict[str, float]] = field(default_factory=dict)
    runs: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    at_least: set[str] = field(default_factory=set)

    def figure(
        self, name: str, values: list[float], target: float | None, *, at_least: bool = False
    ) -> None:
        """Add a figure: the median of `values`. `at_least`: the target is a lower bound."""
        self.figures[name] = (statistics.median(values), unit_of(name), target)
        self.runs[name] = values
        if at_least:
            self.at_least.add(name)

    def peer(self, peer: str, name: str, values: list[float]) -> None:
        """Add a peer's figure of the same name; nothing when it did not run."""
        if not values:
            return
        self.peers.setdefault(peer, {})[name] = statistics.median(values)
        self.runs[f"{peer}/{name}"] = values

    def document(self) -> dict[str, Any]:
        """The result as one JSON document."""
        ratios = {
            f"{peer}/{name}": round(value / self.figures[name][0], 2)
            for peer, figures in self.peers.items()
            for name, value in figures.items()
            if name in self.figures and self.figures[name][0]
        }
        return {
            "name": self.name,
            "pvs": self.pvs,
            "figures": {
                n: {"value": round(v, 6), "unit": u, "target": t}
                for n, (v, u, t) in self.figures.items()
            },
            "peers": {p: {n: round(v, 6) for n, v in f.items()} for p, f in self.peers.items()},
            "ratios": ratios,
            "runs": {n: [round(v, 6) for v in values] for n, values in self.runs.items()},
            "notes": self.notes,
            "machine": machine(),
        }

    def table(self) -> str:
        """The figures for people."""
        lines = [f"{self.name} at {self.pvs:,} PVs"]
        for name, (value, _, target) in self.figures.items():
            reached = target is None or (
                value >= target if name in self.at_least else value <= target
            )
            verdict = "" if target is None else ("  ok" if reached else "  MISSED")
            goal = "" if target is None else f"  target {target:g}"
            lines.append(f"  {name:28} {value:12.4f}{goal}{verdict}")
        for peer, figures in self.peers.items():
            lines += [f"  {peer + ' ' + n:28} {v:12.4f}" for n, v in figures.items()]
        return "\n".join(lines)


def unit_of(name: str) -> str:
    """The unit in a figure's name: its suffix, `1/s` of a rate, `cores` of a share of one."""
    if name.endswith("_per_s"):
        return "1/s"
    if name.endswith("_mb_per_min"):
        return "mb/min"
    return "cores" if "_share" in name else name.rsplit("_", 1)[-1]


def machine() -> dict[str, Any]:
    """The machine and the versions that matter."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else ""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "memory_gb": round(pages / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "load_at_start": _LOAD,
    }


_LOAD = [round(x, 2) for x in os.getloadavg()]


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    """Seconds that one call takes."""
    begin = time.perf_counter()
    await call()
    return time.perf_counter() - begin


async def in_turn(
    runs: int,
    *calls: Callable[[], Awaitable[float]],
    peers: Sequence[Callable[[], Awaitable[float]]] = (),
    warm: int = 1,
) -> list[list[float]]:
    """Run the calls one after the other, `runs` times; the seconds that each gave, by call.

    Without peers (see `WITH_PEERS`) theirs are empty.
    """
    out: list[list[float]] = [[] for _ in (*calls, *peers)]
    for turn in range(runs + warm):
        for values, call in zip(out, (*calls, *(peers if WITH_PEERS else ())), strict=WITH_PEERS):
            seconds = await call()
            if turn >= warm:
                values.append(seconds)
    return out


def write(path: Path, result: Result) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result.document(), indent=1) + "\n")
