"""What users install: wheels of all members in an empty environment, without the checkout."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
UV = Path(sys.executable).with_name("uv")
HANGS_S = 500
pytestmark = pytest.mark.xdist_group("packaging")  # built once
HIDDEN = ("PYTHONPATH", "LD_PRELOAD", "VIRTUAL_ENV")
MODULES = "drey_cli, drey_stack, drey_machine, drey_ca, drey_runtime, drey_gateway, drey_snapshot"


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in HIDDEN and not k.startswith("DREY_")}


def uv(*arguments: str | Path) -> None:
    subprocess.run([UV, "-q", *arguments], check=True, cwd=ROOT, env=environment())


def members() -> list[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.search(r"^MEMBERS := (.*)$", text, re.MULTILINE)
    assert found is not None
    return found[1].split()


def install(venv: Path, *what: str | Path) -> Path:
    """The folder of the programs of a new environment."""
    uv("venv", venv, "--python", sys.executable)
    uv("pip", "install", "--python", venv / "bin" / "python", *what)
    return venv / "bin"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One of each member."""
    folder, constraints = tmp_path_factory.mktemp("wheels"), ROOT / "constraints.txt"
    for member in members():
        # by way of the sdist: built in its folder, a member keeps what was compiled
        uv("build", member, "-o", folder, "--build-constraints", constraints)
    built = sorted(folder.glob("*.whl"))
    assert len(built) == len(members())
    return built


@pytest.fixture(scope="module")
def programs(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment that has the wheels and what they need."""
    venv = tmp_path_factory.mktemp("installed") / "v"
    return install(venv, "-c", ROOT / "constraints.txt", *wheels)


@pytest.fixture(scope="module")
def old_python(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the client beside the oldest protobuf for it."""
    client = [each for each in wheels if each.name.startswith(("drey_client-", "drey_contracts-"))]
    assert len(client) == 2
    venv = tmp_path_factory.mktemp("old") / "v"
    return install(venv, "protobuf==6.30.0", *client) / "python"


def test_nothing_comes_from_the_checkout(programs: Path, tmp_path: Path) -> None:
    code = f"import {MODULES}; print(*[m.__file__ for m in ({MODULES})], sep='\\n')"
    argv = [programs / "python", "-c", code]
    said = subprocess.run(
        argv, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert len(said.split()) == len(MODULES.split(","))
    assert all(Path(line).is_relative_to(programs.parent) for line in said.splitlines()), said


OLD_CLIENT = """
import importlib, pkgutil
import drey, drey_client, google.protobuf
from drey.common.v1 import value_pb2
from drey_client import BlockingClient, find_connection
assert google.protobuf.__version__ == "6.30.0"
for module in pkgutil.walk_packages(drey.__path__, "drey."):
    importlib.import_module(module.name)
for module in pkgutil.iter_modules(drey_client.__path__, "drey_client."):
    importlib.import_module(module.name)
value = value_pb2.Value(float64_value=0.5, state=value_pb2.CONNECTION_STATE_CONNECTED)
assert value_pb2.Value.FromString(value.SerializeToString()) == value
with BlockingClient.of(find_connection()) as client:
    print("taken:", len(client.snapshots()))
"""


def test_the_command_helps_and_brings_the_stack_up(
    programs: Path, old_python: Path, short_folder: Path
) -> None:
    """A program beside the oldest protobuf is a client of it."""
    drey = programs / "drey"
    helped = subprocess.run(
        [drey, "--help"], cwd=short_folder, env=environment(), capture_output=True, check=False
    )
    assert helped.returncode == 0 and b"snapshot" in helped.stdout
    out = short_folder / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [drey, "up", "--no-web"], cwd=short_folder, env=environment(), stdout=file, stderr=file
        )
    try:
        end = time.monotonic() + HANGS_S
        while "Ctrl-C stops everything" not in out.read_text():
            assert process.poll() is None, out.read_text()
            assert time.monotonic() < end, out.read_text()
            time.sleep(0.1)
        status = subprocess.run(
            [drey, "whoami"], cwd=short_folder, env=environment(), capture_output=True, check=False
        )
        assert status.returncode == 0, status.stderr
        argv = [old_python, "-W", "error", "-c", OLD_CLIENT]
        told = subprocess.run(
            argv, cwd=short_folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert told.stdout == "taken: 0\n", told.stderr
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(HANGS_S) == 0, out.read_text()
