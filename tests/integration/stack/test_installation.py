"""What is installed for the demo is what it needs: the command's own requirements, and no more."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]
FINDER = """
import sys
FORBIDDEN = frozenset({names!r})

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"{{name}} is not in the command's installation", name=name)

sys.meta_path.insert(0, Refuse())
"""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(name: str) -> set[str]:
    """Names of all distributions that come with one, itself included."""
    found: set[str] = set()
    wanted = [Requirement(name)]
    while wanted:
        requirement = wanted.pop()
        key = f"{plain(requirement.name)}{sorted(requirement.extras)}"
        extras = ["", *requirement.extras]
        if key in found:
            continue
        found.add(key)
        for text in distribution(requirement.name).requires or []:
            further = Requirement(text)
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in extras):
                wanted.append(further)
    return {key.partition("[")[0] for key in found}


@pytest.fixture(scope="module")
def installed() -> set[str]:
    return required("drey-cli")


def test_the_command_brings_all_that_it_starts(installed: set[str]) -> None:
    services = {f"drey-{name}" for name in ("snapshot", "monitor", "restore", "gateway")}
    assert installed >= services | {"drey-stack", "drey-machine", "drey-runtime", "softioc"}
    assert not installed & {"drey-testing", "pytest", "hypothesis", "caproto", "grpcio-tools"}


def test_the_demo_needs_nothing_else(
    installed: set[str], tmp_path: Path, short_folder: Path
) -> None:
    others = {
        module
        for module, names in packages_distributions().items()
        if not {plain(name) for name in names} & installed
    }
    (vendored,) = distribution("setuptools").locate_file("setuptools").glob("_vendor")  # type: ignore[attr-defined]
    own = {path.name.partition(".")[0] for path in vendored.iterdir()} | {"pip", "setuptools"}
    forbidden = sorted((others | {"drey_testing", "tests"}) - own)
    assert {"pytest", "hypothesis"} <= set(forbidden)
    (tmp_path / "sitecustomize.py").write_text(FINDER.format(names=forbidden))
    report = tmp_path / "report.json"
    argv = ["-m", "drey_cli.main", "demo", "--pvs", "60", "--report", str(report)]
    done = subprocess.run(
        [sys.executable, *argv],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "TMPDIR": str(short_folder)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(report.read_text())["ok"]


def test_make_demo_installs_no_test_tools() -> None:
    def recipe(target: str) -> str:
        argv = ["make", "-n", target, "VENV=none"]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "libs/cli" in recipe("demo")
    assert "--group dev" not in recipe("demo")
    assert "libs/testing" not in recipe("demo")
    assert "--group dev" in recipe("test")
