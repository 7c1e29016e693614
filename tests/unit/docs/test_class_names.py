"""A class name has one meaning in the whole house, so that grep finds it."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GENERATED = ROOT / "libs" / "contracts"
PLACES = ("services", "libs", "bench")


def test_no_two_classes_share_a_name() -> None:
    modules_of: dict[str, list[str]] = defaultdict(list)
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*.py")):
            if path.is_relative_to(GENERATED) or "build" in path.parts:
                continue
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    modules_of[node.name].append(str(path.relative_to(ROOT)))
    assert len(modules_of) > 300
    assert {name: paths for name, paths in modules_of.items() if len(paths) > 1} == {}
