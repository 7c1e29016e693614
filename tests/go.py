"""What tests of clients in Go share: tools built once a version, in the user's cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
GO_CLIENT = ROOT / "docs/how-to/go-client"
GO_DIGEST = ROOT / "docs/how-to/go-digest"
GO_NATS = ROOT / "docs/how-to/go-nats"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drey-tests"
PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.8",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1",
)
BUILD_S = 500


def require_go() -> str:
    """The program `go`; without it the test is skipped, loudly."""
    found = shutil.which("go")
    if found is None:
        pytest.skip(
            "NO GO HERE: clients in Go and grpcurl were NOT tested; install Go 1.24 or later"
        )
    return found


def run(command: list[str], timeout: float = BUILD_S, **options: Any) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, **options
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def installed(go: str, tools: tuple[str, ...]) -> Path:
    """The folder with the programs of some modules, built on first use."""
    name = "-".join(tool.rsplit("/", 1)[-1].replace("@", "-") for tool in tools)
    folder = CACHE / name
    for tool in tools:
        program = folder / tool.rsplit("/", 1)[-1].partition("@")[0]
        if not program.exists():
            folder.mkdir(parents=True, exist_ok=True)
            run([go, "install", tool], env={**os.environ, "GOBIN": str(folder)})
    return folder


def built_client(go: str, folder: Path, origin: Path = GO_CLIENT) -> Path:
    """A client of the documents, generated and built in `folder` as they say."""
    plugins = installed(go, PLUGINS)
    source = folder / origin.name
    shutil.copytree(origin, source)
    search = os.pathsep.join([str(plugins), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": search}
    contracts = [str(ROOT / "proto"), "--path", str(ROOT / "proto" / "drey")]
    run(["buf", "generate", *contracts], cwd=source, env=environment)
    run([go, "build", "-o", "client", "."], cwd=source, env=environment)
    return source / "client"
