"""The contracts generate and compile with the stock plugins of other languages, no override said.

Go is required of every release; here each language is tried where its tools are, and skipped
aloud where not. What the tools fetch lies in the user's cache folder and is fetched once.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.toolchains import (
    CACHE,
    FETCH_AND_BUILD_S,
    PROTO,
    ROOT,
    fetch,
    java_client,
    require_tool,
    run,
    rust_client,
)

PROJECTS = Path(__file__).parent
GO_CLIENT = ROOT / "docs/how-to/go-client"

pytestmark = [pytest.mark.timeout(FETCH_AND_BUILD_S + 60), pytest.mark.xdist_group("languages")]


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
    go = require_tool("go", "Go")
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
    npm = require_tool("npm", "TypeScript")
    folder = project("typescript", tmp_path)
    fetch(npm, "ci", "--no-audit", "--no-fund", "--silent", cwd=folder)
    programs = folder / "node_modules/.bin"
    path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run("buf", "generate", PROTO, "--path", PROTO / "drey", cwd=folder, PATH=path)
    for package in packages():
        assert (folder / "gen/drey" / package).is_dir()
    run(programs / "tsc", "-p", ".", cwd=folder)


def test_java() -> None:
    classes = java_client() / "classes/org/drey"
    for package in packages():
        assert any((classes / package).glob("*.class"))


def test_rust(tmp_path: Path) -> None:
    assert rust_client(tmp_path).stat().st_size > 0


def test_csharp(tmp_path: Path) -> None:
    dotnet = require_tool("dotnet", "C#")
    folder = project("csharp", tmp_path)
    run(dotnet, "build", "-nologo", f"-p:DreyProto={PROTO}", cwd=folder)
