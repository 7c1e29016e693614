"""What tests of clients in Java and Rust share, and the tests that compile the contracts.

A language whose tools are not here is skipped aloud. What the tools fetch lies in the user's cache
folder and is fetched once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto"
JAVA_CLIENT = ROOT / "docs/how-to/java-client"
RUST_CLIENT = ROOT / "docs/how-to/rust-client"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drey-tests"
FETCH_AND_BUILD_S = 1200
"""Only catches a hang: the first build of a language fetches its libraries."""


def require_tool(name: str, language: str) -> str:
    """A program's path; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"NO {name} HERE: the contracts were NOT tried in {language}")
    return found


def fetch(*command: str | Path, cwd: Path, **environment: str) -> None:
    """Run what only brings libraries; where they cannot be had, nothing is known."""
    try:
        run(*command, cwd=cwd, **environment)
    except AssertionError as error:
        said = " ".join(map(str, command))
        pytest.skip(f"NO LIBRARIES, the contracts were NOT tried: {said}: {error}")


def run(*command: str | Path, cwd: Path, **environment: str) -> None:
    """Run a command that has to succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, "PATH": path, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=FETCH_AND_BUILD_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def oldest_python(folder: Path) -> Path:
    """An interpreter with `drey_client`, and the oldest of each library that it says it takes."""
    python = folder / "oldest/bin/python"
    run("uv", "venv", "-q", "--python", sys.executable, folder / "oldest", cwd=folder)
    install = ("uv", "pip", "install", "-q", "--python", python, "--resolution", "lowest-direct")
    fetch(*install, "-e", ROOT / "libs/contracts", "-e", ROOT / "libs/client", cwd=folder)
    return python


def java_client() -> Path:
    """The folder with the classes of the client of the documents, and of its libraries.

    Built once for each state of the sources: to compile all contracts takes half a minute.
    """
    maven = require_tool("mvn", "Java")
    require_tool("javac", "Java")
    sources = sorted(
        [*PROTO.rglob("*.proto"), *JAVA_CLIENT.rglob("*.java"), JAVA_CLIENT / "pom.xml"]
    )
    state = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    built = CACHE / f"java-client-{state}"
    if built.exists():
        return built
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as scratch:
        folder = Path(scratch) / "client"
        shutil.copytree(JAVA_CLIENT, folder, ignore=shutil.ignore_patterns("target"))
        libraries = "dependency:copy-dependencies"
        fetch(maven, "-q", "-B", libraries, f"-Ddrey.proto={PROTO}", cwd=folder)
        run(maven, "-q", "-B", "compile", f"-Ddrey.proto={PROTO}", cwd=folder)
        try:
            (folder / "target").rename(built)
        except OSError:  # another one was faster
            assert built.exists()
    return built


def java_command(folder: Path) -> list[str]:
    """How the client in `java_client()` is called."""
    path = os.pathsep.join([str(folder / "classes"), str(folder / "dependency/*")])
    return ["java", "-Xmx1g", "-cp", path, "org.example.Watch"]


def rust_client(folder: Path) -> Path:
    """The client of the documents as a program in `folder`."""
    cargo = require_tool("cargo", "Rust")
    source, target = folder / "rust-client", CACHE / "rust-target"
    shutil.copytree(RUST_CLIENT, source, ignore=shutil.ignore_patterns("target"))
    fetch(cargo, "fetch", "-q", cwd=source)
    run(cargo, "build", "-q", cwd=source, DREY_PROTO=str(PROTO), CARGO_TARGET_DIR=str(target))
    return Path(shutil.copy(target / "debug/drey-watch", folder))
