"""Clients that share no code with the services: Go from the contracts, grpcurl, a small program.

What Go needs is built once a version, in the user's cache folder; without `go` they are skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from shlex import split
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GO_CLIENT = ROOT / "docs/how-to/go-client"
PROGRAMS = ROOT / "docs/how-to/programs"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drey-tests"
GRPCURL = ("github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3",)
PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.8",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1",
)
MAGNETS = '{"selector": {"globs": ["QUAD:*", "BEND:*"]}}'
BUILD_S = 500

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="session")
def go() -> str:
    found = shutil.which("go")
    if found is None:
        pytest.skip(
            "NO GO HERE: clients in Go and grpcurl were NOT tested; install Go 1.24 or later"
        )
    return found


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


def run(command: list[str], timeout: float = BUILD_S, **options: Any) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, **options
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def until(command: list[str], wanted: str, timeout: float = 30.0, **options: Any) -> str:
    """Run something endless until `wanted` is in its output, then end it; what it said."""
    said: list[str] = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
    assert process.stdout is not None
    guard = threading.Timer(timeout, process.kill)
    guard.start()
    try:
        for line in process.stdout:
            said.append(line)
            if wanted in line:
                break
    finally:
        guard.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    text = "".join(said)
    assert wanted in text, text
    return text


# --- Go, generated from the contracts ---


def test_client_in_go_reads_and_watches(go: str, running: Any, tmp_path: Path) -> None:
    plugins = installed(go, PLUGINS)
    source = tmp_path / "go-client"
    shutil.copytree(GO_CLIENT, source)
    search = os.pathsep.join([str(plugins), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": search}
    contracts = [str(ROOT / "proto"), "--path", str(ROOT / "proto" / "drey")]
    run(["buf", "generate", *contracts], cwd=source, env=environment)
    run([go, "build", "-o", "client", "."], cwd=source, env=environment)
    name = first_magnet(running)
    said = run([str(source / "client"), running.stack.server, running.keys["VIEWER"], name], 60)
    value, token = said.splitlines()
    assert re.fullmatch(rf"value {name} -?[0-9.e+-]+ CONNECTION_STATE_CONNECTED", value)
    assert int(re.fullmatch(r".*token .* has (\d+) characters", token)[1]) > 0  # type: ignore[index]


def first_magnet(running: Any) -> str:
    lines = running.machine.catalogue.read_text().splitlines()
    return next(line.split(",")[0] for line in lines if line.startswith(("QUAD", "BEND")))


# --- grpcurl, as the README says ---


def readme_commands() -> dict[str, list[str]]:
    """The arguments of the README's grpcurl commands, by their last word's last part."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("grpcurl ")]
    return {line.split()[-1].rsplit("/", 1)[-1].rsplit(".", 1)[-1]: split(line) for line in lines}


@pytest.fixture(scope="session")
def grpcurl(go: str, running: Any) -> Any:
    """Makes a command of the README one that can be run, as a shell would."""
    program = str(installed(go, GRPCURL) / "grpcurl")
    values = {
        "$AUTH": f"authorization: Bearer {running.keys['VIEWER']}",
        "$ADDRESS": running.stack.server,
    }
    commands = readme_commands()

    def make(name: str, data: str | None = None) -> list[str]:
        words = [values.get(word, word) for word in commands[name]]
        words[0] = program
        if data is not None:
            words[words.index("-d") + 1] = data
        return words

    return make


def test_readme_says_each_command_once() -> None:
    assert list(readme_commands()) == ["list", "SnapshotService", "GetValues", "WatchPvs"]


def test_grpcurl_lists_every_public_service(grpcurl: Any) -> None:
    said = run(grpcurl("list"), 60).split()
    areas = ("access", "catalog", "job", "monitor", "restore", "snapshot", "system")
    wanted = {f"drey.{area}.v1.{area.title()}Service" for area in areas}
    assert wanted <= set(said)
    assert {s for s in said if s.startswith("drey.")} == wanted


def test_grpcurl_describes_a_service(grpcurl: Any) -> None:
    said = run(grpcurl("SnapshotService"), 60)
    assert "rpc TakeSnapshot ( .drey.snapshot.v1.TakeSnapshotRequest )" in said


def test_grpcurl_gets_values(grpcurl: Any) -> None:
    run(grpcurl("GetValues"), 60)  # whatever it chooses on this machine, it is understood
    found = json.loads(run(grpcurl("GetValues", MAGNETS), 60))
    rows = {row["name"]: row for row in found["rows"]}
    assert rows
    assert all("float64Value" in row["setpoint"] for row in rows.values())


def test_grpcurl_watches(grpcurl: Any) -> None:
    said = until(grpcurl("WatchPvs"), '"baselineEnd"')
    assert '"baselineBegin"' in said
    assert '"rows"' in said


# --- the program of the documents ---


def test_program_watches(running: Any) -> None:
    name = first_magnet(running)
    command = [sys.executable, "-u", str(PROGRAMS / "watch.py"), running.stack.server]
    said = until([*command, running.keys["VIEWER"], name], "holding 1 PVs")
    assert re.search(rf"^{name} setpoint=-?[0-9.e+-]+ readback=", said, re.MULTILINE)


def test_program_says_why_it_was_refused(running: Any) -> None:
    command = [sys.executable, str(PROGRAMS / "watch.py"), running.stack.server, "no-key", "*"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("UNAUTHENTICATED")
