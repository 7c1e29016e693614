"""Steps of the walk: what they do, which command would do it, how long they took."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drey_cli.output import Output


@dataclass
class Step:
    """One step; `facts` are its results, for people and for the JSON report."""

    title: str
    command: str
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


class Report:
    """Prints the steps as they go and keeps them."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self.steps: list[Step] = []

    @contextmanager
    def step(self, title: str, command: str = "") -> Iterator[Step]:
        """Announce a step, time the body, and print what came of it."""
        step = Step(title, command)
        self.steps.append(step)
        self._out.text(f"{len(self.steps):2}. {title}", "bold")
        if command:
            self._out.text(f"    $ {command}", "cyan")
        begin = time.perf_counter()
        yield step
        if not step.seconds:
            step.seconds = time.perf_counter() - begin
        facts = ", ".join(f"{k.replace('_', ' ')} {_text(v)}" for k, v in step.facts.items())
        self._out.text(f"    {step.seconds:.3f} s{': ' if facts else ''}{facts}")

    def write(self, path: Path, *, pvs: int, ok: bool) -> None:
        """Write the report as JSON."""
        steps = [
            {"step": s.title, "command": s.command, "seconds": round(s.seconds, 6), **s.facts}
            for s in self.steps
        ]
        path.write_text(json.dumps({"pvs": pvs, "ok": ok, "steps": steps}, indent=2) + "\n")


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
