"""The contracts generate and compile with the stock plugins of other languages, no override said.

Go is required of every release; here each language is tried where its tools are, and skipped
aloud where not. What the tools fetch lies in the user's cache folder and is fetched once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
PROJECTS = Path(__file__).parent
GO_CLIENT = ROOT / "docs/how-to/go-client"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drey-tests"
FETCH_AND_BUILD_S = 1200
"""Only catches a hang: the first build of a language fetches its libraries."""

pytestmark = [pytest.mark.timeout(FETCH_AND_BUILD_S + 60), pytest.mark.xdist_group("languages")]


def tool(name: str, language: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"NO {name} HERE: the contracts were NOT compiled for {language}")
    return found


def fetch(*command: str | Path, cwd: Path, **environment: str) -> None:
    """Run what only brings libraries; where they cannot be had, nothing is known."""
    try:
        run(*command, cwd=cwd, **environment)
    except AssertionError as error:
        said = " ".join(map(str, command))
        pytest.skip(f"NO LIBRARIES, the contracts were NOT compiled: {said}: {error}")


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


def project(language: str, tmp_path: Path) -> Path:
    """A copy of the language's project, to be built in."""
    folder = tmp_path / language
    shutil.copytree(PROJECTS / language, folder)
    return folder


def packages() -> list[str]:
    """Folders of the public packages below `drey`."""
    return sorted(
        {str(path.parent.relative_to(PROTO / "drey")) for path in PROTO.glob("drey/**/*.proto")}
    )


def test_go(tmp_path: Path) -> None:
    go = tool("go", "Go")
    plugins = CACHE / "go-plugins"
    for module in (
        "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.8",
        "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1",
    ):
        if not (plugins / module.rsplit("/", 1)[-1].partition("@")[0]).exists():
            fetch(go, "install", module, cwd=tmp_path, GOBIN=str(plugins))
    folder = tmp_path / "go"
    shutil.copytree(GO_CLIENT, folder, ignore=shutil.ignore_patterns("v1"))
    path = f"{plugins}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run("buf", "generate", PROTO, "--path", PROTO / "drey", cwd=folder, PATH=path)
    for package in packages():
        assert (folder / "gen" / package).is_dir()
    run(go, "vet", "./...", cwd=folder / "gen")


def test_typescript(tmp_path: Path) -> None:
    npm = tool("npm", "TypeScript")
    folder = project("typescript", tmp_path)
    fetch(npm, "ci", "--no-audit", "--no-fund", "--silent", cwd=folder)
    programs = folder / "node_modules/.bin"
    path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run("buf", "generate", PROTO, "--path", PROTO / "drey", cwd=folder, PATH=path)
    for package in packages():
        assert (folder / "gen/drey" / package).is_dir()
    run(programs / "tsc", "-p", ".", cwd=folder)


def test_java(tmp_path: Path) -> None:
    maven = tool("mvn", "Java")
    tool("javac", "Java")
    folder = project("java", tmp_path)
    fetch(maven, "-q", "-B", "dependency:resolve", f"-Ddrey.proto={PROTO}", cwd=folder)
    run(maven, "-q", "-B", "compile", f"-Ddrey.proto={PROTO}", cwd=folder)
    classes = folder / "target/classes/org/drey"
    for package in packages():
        assert any((classes / package).glob("*.class"))


def test_rust(tmp_path: Path) -> None:
    cargo = tool("cargo", "Rust")
    folder = project("rust", tmp_path)
    target = CACHE / "rust-target"
    fetch(cargo, "fetch", "-q", cwd=folder)
    run(cargo, "check", "-q", cwd=folder, DREY_PROTO=str(PROTO), CARGO_TARGET_DIR=str(target))


def test_csharp(tmp_path: Path) -> None:
    dotnet = tool("dotnet", "C#")
    folder = project("csharp", tmp_path)
    run(dotnet, "build", "-nologo", f"-p:DreyProto={PROTO}", cwd=folder)
