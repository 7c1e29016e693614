"""Functions are found by grep: their names say what they do without their module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LEAST_WORDS = 1.9
"""Words a name, on the whole; it was 1.5 when this was first measured."""


def words_of(name: str) -> list[str]:
    return [word for word in re.split(r"_+|(?<=[a-z0-9])(?=[A-Z])", name.strip("_")) if word]


def function_names() -> list[str]:
    """Of the product: neither generated code nor what tests are made of."""
    paths = [*(ROOT / "libs").rglob("*.py"), *(ROOT / "services").rglob("*.py")]
    left_out = ("/libs/contracts/", "/libs/testing/", "/.venv/", "/build/")
    return [
        node.name
        for path in paths
        if not any(each in path.as_posix() for each in left_out)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("__")
    ]


def test_names_have_words_enough() -> None:
    names = function_names()
    assert len(names) > 3000
    assert sum(len(words_of(name)) for name in names) / len(names) >= LEAST_WORDS
