"""Clients that share no code with the services: Go from the contracts, grpcurl, a small program.

What Go needs is built once a version, in the user's cache folder; without `go` they are skipped.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from shlex import split
from typing import Any

import pytest

from drey.catalog.v1 import catalog_service_pb2
from tests.go import GO_NATS, built_client, installed, require_go, run

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "docs/how-to/programs"
GRPCURL = ("github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3",)
MAGNETS = '{"selector": {"globs": ["QUAD:*", "BEND:*"]}}'

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="session")
def go() -> str:
    return require_go()


def until(command: list[str], wanted: str, timeout: float = 120.0, **options: Any) -> str:
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


def test_client_in_go_watches(go: str, running: Any, tmp_path: Path) -> None:
    name = first_magnet(running)
    command = [str(built_client(go, tmp_path)), running.stack.server, running.keys["VIEWER"], name]
    said = until(command, "holding 1 PVs")
    assert re.search(rf"^{name} setpoint=-?[0-9.e+-]+ readback=", said, re.MULTILINE)


def test_values_are_followed_on_nats(go: str, running: Any, tmp_path: Path) -> None:
    """By a program that knows nothing but `proto/`: a value that is written comes by."""
    program = built_client(go, tmp_path, GO_NATS)
    name, wanted = first_magnet(running), 17.125
    request = {"selector": {"names": [name]}}
    pv = running.catalog.ListPvs(catalog_service_pb2.ListPvsRequest(**request), **running.call())
    (channel,) = [each.setpoint.number for each in pv.pvs]
    process = subprocess.Popen(
        [str(program), running.stack.nats.url, "drey"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    guard = threading.Timer(120, process.kill)
    guard.start()
    try:
        assert process.stdout.readline() == "following\n"
        values = running.machine.folder / "values.json"
        values.write_text(json.dumps({name: wanted}))
        running.do(running.machine.run("write", "--values-from", str(values)))
        assert f"{channel} {wanted}\n" in process.stdout
    finally:
        guard.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def first_magnet(running: Any) -> str:
    lines = running.machine.catalog.read_text().splitlines()
    return next(line.split(",")[0] for line in lines if line.startswith(("QUAD", "BEND")))


# --- grpcurl, as the README says ---


def readme_commands() -> dict[str, list[str]]:
    """The arguments of the README's grpcurl commands, by their last word's last part."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("grpcurl ")]
    return {line.split()[-1].rsplit("/", 1)[-1].rsplit(".", 1)[-1]: split(line) for line in lines}


@pytest.fixture(scope="package")
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
    areas = (
        "access",
        "audit",
        "catalog",
        "compare",
        "event",
        "job",
        "monitor",
        "policy",
        "restore",
        "snapshot",
        "system",
    )
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
