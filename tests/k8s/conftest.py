from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from drey_testing.cluster.api_server import ApiServer
from drey_testing.cluster.programs import ProgramsMissing, built_programs

ROOT = Path(__file__).resolve().parents[2]
Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server for the session; without it the test is skipped, loudly."""
    server = ApiServer(tmp_path_factory.mktemp("api-server"))
    with asyncio.Runner() as runner:
        try:
            runner.run(server.start())
        except ProgramsMissing as error:
            pytest.skip(f"NO KUBERNETES HERE, what needs its API server was NOT tested: {error}")
        yield server
        runner.run(server.stop())


@pytest.fixture(scope="session")
def helm() -> str:
    try:
        return str(built_programs("helm") / "helm")
    except ProgramsMissing as error:
        pytest.skip(f"NO HELM HERE, the chart was NOT tested: {error}")


def options_of(values: Sequence[str]) -> list[str]:
    """As helm takes them; a value that is JSON after `:=` is given as such."""
    options = []
    for value in values:
        # numbers with a point are texts to --set
        as_json = value.startswith("settings.") or ":=" in value
        options += ["--set-json" if as_json else "--set", value.replace(":=", "=", 1)]
    return options


@pytest.fixture(scope="session")
def render(helm: str) -> Render:
    def made(*values: str, release: str = "drey") -> list[dict[str, Any]]:
        chart = str(ROOT / "k8s/drey")
        done = subprocess.run(
            [helm, "template", release, chart, "--namespace", "drey", *options_of(values)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ValueError(done.stderr)
        return [found for found in yaml.safe_load_all(done.stdout) if found]

    return made
