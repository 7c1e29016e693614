from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from drey_testing.cluster.api_server import ApiServer
from drey_testing.cluster.programs import ProgramsMissing, built_programs


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
