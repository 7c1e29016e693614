"""The pages `walk-of-*.md` name files and functions in order; all of them are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WALKS = sorted((ROOT / "docs/explanation").glob("walk-of-*.md"))
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w./-]+/[\w.-]+\.\w+")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_CYTHON = re.compile(r"^\s*(?:cdef|cpdef|def|class)\b[^\n#=]*?(\w+)\s*[(:]", re.MULTILINE)


def steps(text: str) -> list[tuple[str, list[str]]]:
    """Each file that a line names, with the names that stand behind it up to the next one.

    In a row of a table these are the names of its first cell.
    """
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        where = line.split("|")[1] if line.startswith("|") else line
        current: list[str] | None = None
        for code in _CODE.findall(where):
            if _PATH.fullmatch(code):
                current = []
                found.append((code, current))
            elif current is not None and _NAME.fullmatch(code):
                current.append(code)
    return found


def names_of(path: Path) -> set[str]:
    """Functions, classes, methods as `Class.method`, and names assigned in a module or class."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return set(_python_names(ast.parse(text), ""))
    if path.suffix in (".pyx", ".pxi", ".pxd"):
        plain = set(_CYTHON.findall(text))
        return plain | {f"{one}.{other}" for one in plain for other in plain}
    return set(re.findall(r"\w+", text))


def _python_names(node: ast.AST, prefix: str) -> list[str]:
    names: list[str] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(prefix + child.name)
            if isinstance(child, ast.ClassDef):
                names += _python_names(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.Assign):
            names += [prefix + t.id for t in child.targets if isinstance(t, ast.Name)]
        elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            names.append(prefix + child.target.id)
    return names


def lacking(text: str) -> list[str]:
    """What a page names and the repository does not have."""
    out = []
    for path, names in steps(text):
        file = ROOT / path
        if not file.is_file():
            out.append(path)
            continue
        there = names_of(file)
        out += [f"{path}: {name}" for name in names if name not in there]
    return out


@pytest.mark.parametrize("page", WALKS, ids=lambda page: page.name)
def test_every_file_and_name_exists(page: Path) -> None:
    assert lacking(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", WALKS, ids=lambda page: page.name)
def test_every_row_names_a_file_and_a_function_in_it(page: Path) -> None:
    rows = re.findall(r"^\| `.*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 5
    for row in rows:
        assert steps(row) and all(names for _, names in steps(row)), row


def test_a_walk_of_an_update_is_there() -> None:
    assert "walk-of-an-update.md" in {page.name for page in WALKS}


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("| `libs/core/drey_core/none.py` `values` | gone |", ["libs/core/drey_core/none.py"]),
        (
            "| `libs/core/drey_core/values.py` `Columns.take_rows`, `Columns.took` | renamed |",
            ["libs/core/drey_core/values.py: Columns.took"],
        ),
        (
            "| `libs/ca/src/drey_ca/_native/table.pyx` `Table.drain`, `Table.drained` | in C |",
            ["libs/ca/src/drey_ca/_native/table.pyx: Table.drained"],
        ),
        ("as `libs/core/drey_core/values.py` `took` says", ["libs/core/drey_core/values.py: took"]),
    ],
)
def test_what_is_not_there_is_found(line: str, missing: list[str]) -> None:
    assert lacking(line) == missing
