"""What users install: the sdist and the wheel made of it, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UV = Path(sys.executable).with_name("uv")
pytestmark = [
    pytest.mark.xdist_group("packaging"),  # built once
    pytest.mark.skipif(shutil.which("gcc") is None, reason="NOT TESTED: there is no C compiler"),
]


def uv(*arguments, **environment):
    # What the tests run under (coverage, sanitizers) is not for the build.
    clean = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "PYTHONPATH")}
    subprocess.run([UV, "-q", *arguments], check=True, cwd=ROOT, env=clean | environment)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is made of the sdist alone."""
    out = tmp_path_factory.mktemp("dist")
    constraints = ("--build-constraints", ROOT / "constraints.txt")
    uv("build", "libs/ca", "-o", out, *constraints, DREY_CA_NATIVE="require")
    return out


def test_the_sdist_has_the_sources_and_nothing_made_of_them(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = [Path(name).name for name in archive.getnames()]
    assert {"table.pyx", "table.pyi", "worker.pxi", "callbacks.pxi", "state.pxd"} <= set(names)
    assert not [name for name in names if name.endswith((".c", ".so"))]


def test_the_wheel_carries_no_libca(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        libraries = [name for name in archive.namelist() if ".so" in name]
    assert [Path(name).name.split(".")[0] for name in libraries] == ["table"]


def test_the_wheel_installs_and_shares_libca(built, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    uv("venv", tmp_path / "venv", "--python", sys.executable)
    wheel = next(built.glob("*.whl"))
    constraints = ("-c", ROOT / "constraints.txt")
    uv("pip", "install", "--python", python, *constraints, wheel, "libs/core")
    clean = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "PYTHONPATH")}
    subprocess.run([python, ROOT / "libs/ca/tests/one_libca.py"], check=True, env=clean)


def test_without_a_compiler_it_installs_and_says_so(built, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    uv("venv", tmp_path / "venv", "--python", sys.executable)
    constraints = ("-c", ROOT / "constraints.txt", "--build-constraints", ROOT / "constraints.txt")
    # not of the checkout, where a build by hand may have left what it compiled
    sdist = next(built.glob("*.tar.gz"))
    uv("pip", "install", "--python", python, *constraints, sdist, "libs/core", CC="false")
    said = subprocess.run(
        [python, "-c", "import drey_ca, asyncio; asyncio.run(drey_ca.open_table().__aenter__())"],
        check=True,
        capture_output=True,
        text=True,
        env={"EPICS_CA_ADDR_LIST": "127.0.0.1", "EPICS_CA_AUTO_ADDR_LIST": "NO"},
    )
    assert "using aioca's" in said.stderr
