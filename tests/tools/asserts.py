"""Lists the tests that assert nothing: neither an assert nor `pytest.raises` in reach of them.

    python tests/tools/asserts.py          lists them; exit code 1 if there is one

A test reaches the functions that it calls by name, in its own file or imported from our own
packages, so that a helper may do the asserting. A wait for a condition counts as one: it fails when
the condition never holds.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("tests", "libs/testing")
ASSERTING = {"raises", "warns", "fail", "eventually", "timeout", "wait_for", "run_state_machine"}
"""Names of calls that fail by themselves when what they are for does not happen."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def called_names(node: ast.AST) -> Iterator[str]:
    """Names that are called or used in a function, without what they are an attribute of."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.Name):
            yield part.id


def read_functions() -> tuple[dict[str, list[Function]], list[tuple[Path, Function]]]:
    """All functions by name, and the tests among them."""
    functions: dict[str, list[Function]] = {}
    tests = []
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, Function):
                    functions.setdefault(node.name, []).append(node)
                    if node.name.startswith("test_") and path.name.startswith("test_"):
                        tests.append((path, node))
    return functions, tests


def asserting_names(functions: dict[str, list[Function]]) -> set[str]:
    """Names of the functions that assert, themselves or by what they call."""
    names = set(ASSERTING)
    calls = {name: [set(called_names(node)) for node in nodes] for name, nodes in functions.items()}
    for name, nodes in functions.items():
        if any(isinstance(part, ast.Assert) for node in nodes for part in ast.walk(node)):
            names.add(name)
    while True:
        more = {name for name, used in calls.items() if any(each & names for each in used)} - names
        if not more:
            return names
        names |= more


def silent_tests() -> list[str]:
    """Tests that no failed expectation can fail, as `path:line name`."""
    functions, tests = read_functions()
    names = asserting_names(functions)
    return [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path, node in tests
        if not any(isinstance(part, ast.Assert) for part in ast.walk(node))
        and not set(called_names(node)) & names
    ]


if __name__ == "__main__":
    silent = silent_tests()
    print("\n".join(silent))
    sys.exit(bool(silent))
