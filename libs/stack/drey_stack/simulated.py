"""The simulated machine as a child process: a real softIOC that nobody else can see."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from drey_stack.errors import PartFailed
from drey_stack.foreground import finish_shielded
from drey_stack.private import hold_folder
from drey_stack.process import Process, tail_lines

MODULE = "drey_machine"
"""Runs as a program of its own; this package does not depend on it."""
_START_S = 600.0
"""Catches an IOC that hangs, on a machine of any pace."""


class SimulatedMachine:
    """A machine of `pvs` PVs in `folder`. Use inside `async with`, from the main thread.

    `command`: what else it serves, as words for its program.
    """

    def __init__(self, folder: Path, pvs: int = 0, *, command: Sequence[str] = ()) -> None:
        self.folder = Path(folder).absolute()
        self._command = command or ("--pvs", str(pvs))
        self._process: Process | None = None
        self._lock: int | None = None
        self.environment: dict[str, str] = {}
        self.ports = (0, 0)
        """Of Channel Access and of its repeater."""
        self.catalog = self.folder / "machine.csv"

    async def __aenter__(self) -> SimulatedMachine:
        """Start it; returns when it serves.

        Raises `PartFailed` with the end of its log, `FolderBusy` where another runs in the folder.
        """
        self._lock = hold_folder(self.folder)
        (self.folder / "machine.json").unlink(missing_ok=True)
        try:
            self._process = self._spawn_machine(*self._command)
            async with asyncio.timeout(_START_S):
                described = await self._wait_description(self._process)
        except BaseException:
            await finish_shielded(self._stop_machine())
            raise
        self.environment = described["env"]
        self.ports = (described["ca_port"], described["repeater_port"])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it, also when cancelled."""
        await finish_shielded(self._stop_machine())

    async def wait_ended(self) -> NoReturn:
        """Wait until it ends by itself, and raise `PartFailed` with the end of its log.

        It is not started again: whoever uses it has to know that its values have begun anew.
        """
        assert self._process is not None
        code = await self._process.wait()
        log = tail_lines(self.folder / "machine.log")
        raise PartFailed("the simulated machine", f"ended with {code}", log)

    async def _stop_machine(self) -> None:
        if self._process is not None:
            await self._process.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _spawn_machine(self, *arguments: str) -> Process:
        argv = [sys.executable, "-m", MODULE, *arguments, "--folder", str(self.folder)]
        return Process.spawn_process(argv, log=self.folder / "machine.log")

    async def _wait_description(self, process: Process) -> dict[str, Any]:
        path = self.folder / "machine.json"
        while not path.exists():
            if not process.running:
                log = tail_lines(self.folder / "machine.log")
                raise PartFailed("the simulated machine", "ended during its start", log)
            await asyncio.sleep(0.05)
        description: dict[str, Any] = json.loads(path.read_text())
        return description

    async def run(self, *arguments: str) -> None:
        """Run one of the machine's commands (`disturb`, `read`) to its end."""
        process = self._spawn_machine(*arguments)
        try:
            code = await process.wait()
        except BaseException:
            await process.stop()
            raise
        if code:
            log = tail_lines(self.folder / "machine.log")
            raise PartFailed(f"{MODULE} {arguments[0]}", f"ended with {code}", log)
