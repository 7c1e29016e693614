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


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment that has the wheels and what they need."""
    wheels, venv = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed") / "v"
    constraints = ROOT / "constraints.txt"
    for member in members():
        # by way of the sdist: built in its folder, a member keeps what was compiled
        uv("build", member, "-o", wheels, "--build-constraints", constraints)
    built = sorted(wheels.glob("*.whl"))
    assert len(built) == len(members())
    uv("venv", venv, "--python", sys.executable)
    uv("pip", "install", "--python", venv / "bin" / "python", "-c", constraints, *built)
    return venv / "bin"


def test_nothing_comes_from_the_checkout(programs: Path, tmp_path: Path) -> None:
    code = f"import {MODULES}; print(*[m.__file__ for m in ({MODULES})], sep='\\n')"
    argv = [programs / "python", "-c", code]
    said = subprocess.run(
        argv, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert len(said.split()) == len(MODULES.split(","))
    assert all(Path(line).is_relative_to(programs.parent) for line in said.splitlines()), said


def test_the_command_helps_and_brings_the_stack_up(programs: Path, short_folder: Path) -> None:
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
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(HANGS_S) == 0, out.read_text()
