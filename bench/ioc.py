"""The IOC as the benchmarks see it: start, rate, what it did, stop.

Beyond 40,000 PVs it is several processes with as many each, as a facility has many IOCs. One server
of Channel Access keeps the channels of all its clients in 4,096 lists and looks for a new
subscription's queue from the first one on (EPICS base 7, `CAS_HASH_TABLE_SIZE`, `db_add_event`):
with the number of channels, what it takes for one of them grows too.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drey_stack.ports import LOOPBACK, free_port

_START_S = 300.0  # a million records
_ANSWER_S = 60.0
_IDLE_S = 600.0
_PVS_OF_ONE = 40_000


@dataclass(frozen=True)
class Count:
    """What an IOC did so far: records processed, groups passed over, its own CPU and clock."""

    processed: int
    passed_over: int
    cpu_s: float
    time_s: float


class _Process:
    """One process of it, which answers a line with a line."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process, self._log = process, log

    async def ask(self, command: dict[str, float]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """The next answer; what the IOC says beside is passed over. RuntimeError at its end."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if line.startswith(b"{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"the IOC ended: {self._log.read_text(errors='replace')[-2000:]}")


class BenchIoc:
    """Running IOC processes on loopback."""

    def __init__(self, processes: Sequence[_Process]) -> None:
        self._processes = processes
        self._asked = asyncio.Lock()

    async def rate(self, per_second: float) -> None:
        """Process each moving record so often from now on."""
        await self._ask_all({"rate": per_second})

    async def count(self) -> Count:
        """What it did so far."""
        answers = [Count(**answer) for answer in await self._ask_all({})]
        return Count(
            processed=sum(answer.processed for answer in answers),
            passed_over=sum(answer.passed_over for answer in answers),
            cpu_s=sum(answer.cpu_s for answer in answers),
            time_s=answers[0].time_s,
        )

    async def until_idle(self) -> None:
        """Wait until it uses less than a twentieth of a core. TimeoutError after ten minutes."""
        async with asyncio.timeout(_IDLE_S):
            before = await self.count()
            while True:
                await asyncio.sleep(0.5)
                now = await self.count()
                if now.cpu_s - before.cpu_s < 0.05 * (now.time_s - before.time_s):
                    return
                before = now

    async def _ask_all(self, command: dict[str, float]) -> list[dict[str, Any]]:
        async with self._asked, asyncio.timeout(_ANSWER_S):
            return await asyncio.gather(*(process.ask(command) for process in self._processes))

    @property
    def pids(self) -> list[int]:
        """Its process ids."""
        return [process.process.pid for process in self._processes]


def split(pvs: int, moving: int, of_one: int = _PVS_OF_ONE) -> list[tuple[int, int, int]]:
    """What each process has: the number of its first PV, how many, and how many of them move."""
    return [
        (first, min(pvs - first, of_one), min(max(moving - first, 0), pvs - first, of_one))
        for first in range(0, pvs, of_one)
    ]


def _client_env(ports: Sequence[int], repeater: int) -> dict[str, str]:
    return {
        "EPICS_CA_ADDR_LIST": " ".join(f"{LOOPBACK}:{port}" for port in ports),
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_NAME_SERVERS": "",
        "EPICS_CA_SERVER_PORT": str(ports[0]),
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
    parts = split(pvs, moving)
    ports = [free_port() for _ in parts]
    repeater = free_port()
    _confine_environment(_client_env(ports, repeater))
    kind = "both" if both else "readbacks"
    async with AsyncExitStack() as running:
        processes: list[_Process] = []
        for (first, own, own_moving), port in zip(parts, ports, strict=True):
            arguments = [str(n) for n in (first, own, groups, own_moving)] + [kind]
            started = _process(arguments, _server_env(port, repeater))
            processes.append(await running.enter_async_context(started))
        async with asyncio.timeout(_START_S):
            await asyncio.gather(*(process.answer() for process in processes))
        yield BenchIoc(processes)


@asynccontextmanager
async def _process(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[_Process]:
    with tempfile.NamedTemporaryFile(prefix="drey-bench-ioc-") as log:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "bench.softioc", *arguments],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends it
        )
        try:
            yield _Process(process, Path(log.name))
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
