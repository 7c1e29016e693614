"""Functions that a reader takes in at once: how long they are, and how much they are told.

The lists only shrink: what is on one and has become short is taken off it, and nothing is added.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MOST_LINES, MOST_PARAMETERS = 40, 6
LEFT_OUT = ("/libs/contracts/", "/.venv/", "/build/")

LONG: frozenset[str] = frozenset([])
WIDE: frozenset[str] = frozenset([])


def parameter_count(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without `self` and `cls`."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    bound = positional[:1] and positional[0].arg in ("self", "cls")
    starred = [each for each in (given.vararg, given.kwarg) if each is not None]
    return len(positional) + len(given.kwonlyargs) + len(starred) - bool(bound)


def too_large() -> tuple[set[str], set[str]]:
    """(too long, told too much), as `package/module.py:function`."""
    long, wide = set[str](), set[str]()
    for path in [*(ROOT / "libs").rglob("*.py"), *(ROOT / "services").rglob("*.py")]:
        if any(each in path.as_posix() for each in LEFT_OUT):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{path.parent.name}/{path.name}:{node.name}"
                if (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES:
                    long.add(place)
                if parameter_count(node) > MOST_PARAMETERS:
                    wide.add(place)
    return long, wide


def test_no_function_becomes_too_large() -> None:
    long, wide = too_large()
    assert long - LONG == set(), f"longer than {MOST_LINES} lines: make parts of it"
    assert wide - WIDE == set(), (
        f"more than {MOST_PARAMETERS} parameters: which of them are one thing?"
    )


def test_the_lists_hold_nothing_that_is_small_by_now() -> None:
    long, wide = too_large()
    assert LONG - long == set()
    assert WIDE - wide == set()
