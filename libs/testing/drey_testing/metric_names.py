"""The metrics that the code declares, as it stands there, and their names at Prometheus."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.exporter.prometheus._mapping import map_unit, sanitize_full_name

ROOT = Path(__file__).resolve().parents[3]
_KINDS = {
    "create_counter": "counter",
    "create_histogram": "histogram",
    "create_observable_gauge": "gauge",
    "ObservedGauge": "gauge",
}
_SERIES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


@dataclass(frozen=True)
class DeclaredMetric:
    """One metric. `package`: whose processes have it; `drey_runtime`'s are of all."""

    name: str
    kind: str
    unit: str
    description: str
    package: str

    @property
    def family(self) -> str:
        """Its name at Prometheus, without what the kind adds."""
        unit = map_unit(self.unit)
        return sanitize_full_name(self.name) + (f"_{unit}" if unit else "")

    @property
    def series(self) -> list[str]:
        """What expressions name."""
        return [self.family + ending for ending in _SERIES[self.kind]]


def declared_metrics() -> list[DeclaredMetric]:
    """All of them, by name."""
    folders = [ROOT / "libs/runtime/drey_runtime", *ROOT.glob("services/*/drey_*")]
    files = (path for folder in folders for path in sorted(folder.rglob("*.py")))
    metrics = (metric for path in files for metric in _metrics_in(path))
    return sorted(metrics, key=lambda metric: metric.name)


def _metrics_in(path: Path) -> Iterator[DeclaredMetric]:
    package = next(part for part in path.parts if part.startswith("drey_"))
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if isinstance(node.func, ast.Name):
            called = node.func.id
        texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
        if called not in _KINDS or not texts:
            continue
        named = {
            each.arg: each.value.value
            for each in node.keywords
            if isinstance(each.value, ast.Constant)
        }
        name, unit, description = (
            *texts,
            *(named[each] for each in ("unit", "description") if each in named),
        )
        yield DeclaredMetric(str(name), _KINDS[called], str(unit), str(description), package)
