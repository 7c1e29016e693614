"""The IOC as the benchmarks see it: start, rate, what it did, stop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drey_stack.ports import LOOPBACK, free_port

_START_S = 300.0  # a million records
_ANSWER_S = 60.0
_IDLE_S = 300.0


@dataclass(frozen=True)
class Count:
    """What an IOC did so far: records processed, groups passed over, its own CPU and clock."""

    processed: int
    passed_over: int
    cpu_s: float
    time_s: float


class BenchIoc:
    """A running IOC process on loopback."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self._log = process, log
        self._asked = asyncio.Lock()

    async def rate(self, per_second: float) -> None:
        """Process each moving record so often from now on."""
        await self._ask_ioc({"rate": per_second})

    async def count(self) -> Count:
        """What it did so far."""
        return Count(**await self._ask_ioc({}))

    async def until_idle(self) -> None:
        """Wait until it uses less than a twentieth of a core. TimeoutError after five minutes."""
        async with asyncio.timeout(_IDLE_S):
            before = await self.count()
            while True:
                await asyncio.sleep(0.5)
                now = await self.count()
                if now.cpu_s - before.cpu_s < 0.05 * (now.time_s - before.time_s):
                    return
                before = now

    async def _ask_ioc(self, command: dict[str, float]) -> dict[str, Any]:
        async with self._asked, asyncio.timeout(_ANSWER_S):
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """The next answer; what the IOC says beside is passed over. RuntimeError at its end."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.startswith(b"{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"the IOC ended: {self._log.read_text(errors='replace')[-2000:]}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid


def _client_env(port: int, repeater: int) -> dict[str, str]:
    return {
        "EPICS_CA_ADDR_LIST": LOOPBACK,
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_NAME_SERVERS": "",
        "EPICS_CA_SERVER_PORT": str(port),
        "EPICS_CA_REPEATER_PORT": str(repeater),
    }


def _server_env(port: int, repeater: int) -> dict[str, str]:
    return {
        "EPICS_CAS_INTF_ADDR_LIST": LOOPBACK,
        "EPICS_CAS_SERVER_PORT": str(port),
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_CAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_CAS_BEACON_PORT": str(repeater),
    }


def _confine_environment(environment: dict[str, str]) -> None:
    """Let this process and its children find that IOC and no other."""
    for key in [key for key in os.environ if key.startswith("EPICS_")]:
        del os.environ[key]
    os.environ.update(environment)


@asynccontextmanager
async def ioc(
    pvs: int, *, both: bool = False, moving: int = 0, groups: int = 10
) -> AsyncIterator[BenchIoc]:
    """An IOC of `pvs` PVs, as `bench.softioc` says; ends at the end of the scope.

    libca reads its environment when its context is first made: one IOC in a process's life.
    """
    port = free_port()
    repeater = free_port(avoid={port})
    _confine_environment(_client_env(port, repeater))
    kind = "both" if both else "readbacks"
    with tempfile.NamedTemporaryFile(prefix="drey-bench-ioc-") as log:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "bench.softioc", str(pvs), str(groups), str(moving), kind],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=os.environ | _server_env(port, repeater),
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends it
        )
        bench_ioc = BenchIoc(process, Path(log.name))
        try:
            async with asyncio.timeout(_START_S):
                await bench_ioc.answer()
            yield bench_ioc
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
